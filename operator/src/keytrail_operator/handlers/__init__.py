"""The thin layer that knows kopf: what its watches tell goes into the stores, and that is all.

Only `kopf.on.event` handlers: those need no finalizers, annotations or patches, so kopf never writes to an object.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import kopf

from keytrail.kube.access import Access
from keytrail_operator.stores import WATCHED, Stores, Watched

log = logging.getLogger(__name__)

_DOMAIN: Final = "keytrail.io"
_SERVER_SECONDS: Final = 300
"""A watch ends after so long and goes on with the next, so that load spreads over API servers again."""
_SILENCE_SECONDS: Final = 90.0
"""The API server sends a bookmark every minute: a watch that says nothing for longer has lost its connection."""


class Forever:
    """Pauses between the tries of a request: kopf gives up a watch for good when they end."""

    def __iter__(self) -> Iterator[float]:
        seconds = 0.5
        while True:
            yield seconds * random.uniform(0.5, 1.0)  # noqa: S311 - only spreads requests
            seconds = min(30.0, seconds * 2)


def operator_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches, and does nothing else."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.watching.server_timeout = _SERVER_SECONDS
    settings.watching.inactivity_timeout = _SILENCE_SECONDS
    settings.watching.connect_timeout = 5.0
    settings.watching.chunk_size = 200  # it parses a page at once: a thousand CollectorStatuses are tens of megabytes
    settings.networking.request_timeout = 60.0
    settings.networking.error_backoffs = Forever()
    # Nothing is ever persisted by event handlers; were it, it should at least carry our own name.
    settings.persistence.finalizer = f"{_DOMAIN}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=_DOMAIN)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=_DOMAIN)
    # Then by SIGKILL, so more than the 5 s that kopf may leave to requests under way when it ends by itself.
    settings.process.ultimate_exiting_timeout = 15.0
    for one in WATCHED:
        if one.fields:
            selector = ",".join(f"{name}={value}" for name, value in one.fields.items())
            settings.watching.field_selectors[one.kind.group, one.kind.version, one.kind.plural] = selector
    return settings


def registry_of(stores: Stores, login: Callable[[], kopf.ConnectionInfo]) -> kopf.OperatorRegistry:
    """Return the registry of all handlers; kopf's own default one, which any import may add to, is not used."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=5.0)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await asyncio.to_thread(login)

    for one in WATCHED:
        _observe(registry, stores, one)
    return registry


def _observe(registry: kopf.OperatorRegistry, stores: Stores, one: Watched) -> None:
    @kopf.on.event(
        group=one.kind.group, version=one.kind.version, plural=one.kind.plural, id=one.name, registry=registry
    )
    async def observe(event: Any, **_: Any) -> None:
        stores.tell(one.name, event["type"], event["object"])


def connection_of(access: Access) -> kopf.ConnectionInfo:
    """Return for kopf what every other request uses, so that there is one way to be let in. Never to be logged."""
    trust = access.pool.connection_pool_kw
    scheme, _, token = access.headers().get("Authorization", "").partition(" ")
    return kopf.ConnectionInfo(
        server=access.url,
        ca_path=trust.get("ca_certs"),
        insecure=trust.get("cert_reqs") == "CERT_NONE",
        certificate_path=trust.get("cert_file"),
        private_key_path=trust.get("key_file"),
        scheme=scheme or None,
        token=token or None,
    )
