"""Secrets that the operator may read, one by one, by name: values in, their fingerprints out, and nothing kept of them.

The only place of the operator that has a value in its hands, for as long as it takes to compute with it. It neither
lists nor watches, since that could not be limited to names: each Secret that a mapping names and that the chart lists
is read again every five minutes. In front of `reconcile.fingerprints`, which decides what is published.
"""

import base64
import binascii
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from keytrail.domain.errors import KubeError, KubeNotFoundError
from keytrail.domain.fingerprint import Book, ClusterKey, read
from keytrail.kube.api import Api
from keytrail.kube.json_stream import Json
from keytrail_operator.reconcile import Outcome, Reconciler
from keytrail_operator.reconcile.fingerprints import (
    FILE_NAME,
    SECRET_NAME,
    SECRETS,
    Facts,
    Place,
    book_of,
    named_secrets,
    publish,
    renewed,
)
from keytrail_operator.world import World

log = logging.getLogger(__name__)

_READ_SECONDS: Final = 300.0
"""Between two looks at a Secret: it changes when a key is rotated."""
_MOST_AT_ONCE: Final = 200
"""Secrets that are read in one run, so that the other reconcilers get their turn."""


class SecretReader:
    """Reads for the worker's thread; `known` is for any."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        allowed: frozenset[Place],
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`namespace` is where the fingerprints are published; `allowed` are the Secrets that a Role lets be read."""
        self._api = api
        self._own = SECRETS.at(namespace, SECRET_NAME)
        self._namespace = namespace
        self._allowed = allowed
        self._random = random
        self._facts: dict[Place, Facts] = {}
        self._due: dict[Place, float] = {}
        self._keys: tuple[ClusterKey, ...] = ()
        self._published: Book | None = None
        self._look_at = 0.0
        """When to see again what is published."""
        self._trouble: dict[str, str] = {}

    def reconciler(self) -> Reconciler[None]:
        """Return the reconciler that publishes what this reads."""
        return Reconciler("fingerprints", self._reconcile, None)

    def known(self) -> Mapping[Place, Facts]:
        """Return what was read so far."""
        return self._facts.copy()

    def _reconcile(self, world: World, _memory: None, now: float) -> Outcome[None]:
        if now >= self._look_at:
            try:
                self._published = self._read_published()
            except KubeError as error:  # without the key there is nothing to compute with
                self._say(SECRET_NAME, str(error))
                return Outcome([], None, again=_READ_SECONDS)
            self._look_at = now + _READ_SECONDS
        # A key that was made and could not be published yet is still the one: values were read with it.
        keys = renewed(self._keys if self._published is None else self._published.keys, now, self._random)
        if keys != self._keys:
            self._keys, self._due = keys, {}
        named = named_secrets(world.mappings)
        wanted = {at for at in named if at in self._allowed}
        self._facts = {at: facts for at, facts in self._facts.items() if at in wanted}
        self._due = {at: self._due.get(at, 0.0) for at in wanted}
        due = sorted((at for at in wanted if self._due[at] <= now), key=lambda at: (self._due[at], at))
        for at in due[:_MOST_AT_ONCE]:
            self._read(at, now)
        again = _READ_SECONDS if len(due) <= _MOST_AT_ONCE else 0.0
        if not all(at in self._facts or self._due[at] for at in wanted):
            # A book of a part would take away what is published: first everything is read once.
            return Outcome([], None, again=again)
        book, left_out = book_of(keys, named, self._facts)
        self._say("room", f"{left_out} fingerprints do not fit into Secret {SECRET_NAME}" if left_out else "")
        actions = publish(book, self._published, self._namespace, world.owner)
        if actions:
            self._look_at = 0.0  # whether it was written is seen when it is read
        return Outcome(actions, None, again=again)

    def _read_published(self) -> Book | None:
        """Read what is published; None where there is nothing that can be read as fingerprints."""
        try:
            raw = self._api.get(self._own)
        except KubeNotFoundError:
            return None
        self._say(SECRET_NAME, "")
        for name, value in _values(raw):
            if name == FILE_NAME:
                try:
                    return read(value)
                except ValueError as error:
                    log.warning("Secret %s is made anew: %s", SECRET_NAME, error)
        return None

    def _read(self, at: Place, now: float) -> None:
        """Read one Secret. One that cannot be read now keeps what was known of it."""
        named = "/".join(at)
        self._due[at] = now + _READ_SECONDS
        try:
            raw = self._api.get(SECRETS.at(*at))
        except KubeNotFoundError:
            self._facts[at] = Facts(exists=False)
        except KubeError as error:
            self._say(named, f"{error}; list it in the chart's value fingerprints.secrets")
            return
        else:
            self._facts[at] = _facts(raw, self._keys)
        self._say(named, "")

    def _say(self, about: str, trouble: str) -> None:
        if trouble and self._trouble.get(about) != trouble:
            log.warning("%s", trouble)
        self._trouble[about] = trouble


def _facts(raw: Json, keys: tuple[ClusterKey, ...]) -> Facts:
    names, digests = set(), {}
    for name, value in _values(raw):
        names.add(name)
        made = [digest for key in keys if (digest := key.digest(value)) is not None]
        if made:
            digests[name] = tuple(made)
    return Facts(frozenset(names), digests)


def _values(raw: Json) -> Iterator[tuple[str, bytes]]:
    data = raw.get("data")
    for name, text in data.items() if isinstance(data, dict) else ():
        try:
            yield str(name), base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            continue  # the API server lets nothing else in
