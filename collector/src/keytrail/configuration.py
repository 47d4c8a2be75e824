"""What the pipeline decides by: the rules and identity mappings in force, made from the settings and their folders.

In flow the settings, the folder of manifests and the folder of rules; out flows one `Configuration`, or an error with
every problem, each with file, line and field, and then nothing of it is used. Every command judges manifests through
this one loader. Knows no thread and no event: `keytrail.reload` says when to load again, `keytrail.pipeline` decides by
what was loaded.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeGuard

from keytrail.aside import Task, run_aside, run_here
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.detect import Engine
from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.domain.fingerprint import Book
from keytrail.domain.objects import Resource
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.resources import BUILTIN_LABEL, ClusterIdentityMapping
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.fingerprint_file import read_book, wanted_variables
from keytrail.identify.matcher import IdentityMatcher, Mapping
from keytrail.identify.proc_environ import ProcEnvironment
from keytrail.manifests import SUFFIXES, Manifests, builtin_folder, load_builtin_identities, load_folder
from keytrail.settings import Settings
from keytrail.yaml_documents import MAX_FILE_BYTES

Redact = Callable[[str], tuple[str, tuple[str, ...]]]

RULE_CHOICES: Final[dict[str, tuple[Maturity, ...] | None]] = {"stable": None, "all": tuple(Maturity), "none": ()}
"""What of the library runs; None leaves it to the user's PolicyLibrary, whose default is the stable rules."""


_TELLING: Final = frozenset({EventKind.EXEC, EventKind.EXIT, EventKind.FILE, EventKind.SEND})
"""Whatever the rules look at: processes live by their starts and ends, providers and mounted Secrets are told by the
files that are opened, and hosts by the names that are sent."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that decides about an event, loaded together and put in force together."""

    manifests: Manifests
    engine: Engine | None
    """None where nobody asks for findings. The pipeline gives it the memory of the engine before it."""
    matcher: IdentityMatcher
    book: Book
    """The operator's fingerprints of Secrets; empty where they are not configured, or not there yet."""
    digest: str
    """Of all files that it was made from: the same for the same content."""
    applied: tuple[Resource, ...] = ()
    """What of it came from the API server."""

    def looked_at(self, wanted: EventFilter) -> EventFilter:
        """Of what is wanted, the kinds that say something to rules or identities: all that findings are made of."""
        if self.engine is None:
            return wanted
        kinds = self.engine.kinds | _TELLING
        return replace(wanted, kinds=wanted.kinds & kinds or wanted.kinds or kinds)

    @property
    def given_rules(self) -> tuple[Resource, ...]:
        """The user's own rules, and what tunes all."""
        return tuple(one for one in self.manifests.resources if isinstance(one, DetectionRule | PolicyLibrary))

    @property
    def wants_fingerprint(self) -> Callable[[str], bool]:
        """Whether a variable of this name is worth a fingerprint."""
        return wanted_variables(self.manifests.identity_mappings, self.book)


def load_configuration(
    settings: Settings,
    redact: Redact,
    *,
    live: bool,
    findings: bool,
    previous: Configuration | None = None,
    applied: tuple[Resource, ...] = (),
) -> Configuration:
    """Load what the settings name. Raises SettingsError or ManifestError with everything that is wrong.

    `applied` are resources of the API server, judged already (`keytrail.judging`); they count before a folder's own.
    What is the same as in `previous` is the same object, so that whoever replaces one by the other sees what changed:
    rules that are as they were keep their engine, and mappings their matcher.
    """
    digest = digest_of(watched_folders(settings))  # before reading: what changes meanwhile differs at the next look
    manifests = given_manifests(settings).overlaid(applied)
    of_rules = tuple(one for one in manifests.resources if isinstance(one, DetectionRule | PolicyLibrary))
    engine = _engine(settings, of_rules, applied, previous, live=live) if findings else None
    book = read_book(settings.fingerprints_file)
    of_matcher = manifests.identity_mappings, book
    if previous is not None and of_matcher == (previous.manifests.identity_mappings, previous.book):
        matcher = previous.matcher
    else:
        matcher = _matcher(settings, manifests, redact, book, live=live)
    return Configuration(manifests, engine, matcher, book, digest, applied)


# -- manifests and rules


def given_manifests(settings: Settings) -> Manifests:
    """The user's folder; empty without one. Raises UsageError for a wrong manifest."""
    return Manifests() if settings.config is None else load_folder(settings.config)


def rules_folder(settings: Settings) -> Path:
    """Where the rules come from that run beside the user's own: the shipped library, or the folder that replaces it."""
    return builtin_folder() / "rules" if settings.rules in RULE_CHOICES else Path(settings.rules)


def library_of(manifests: Manifests) -> PolicyLibrary | None:
    """What tunes the rules; None where nobody does."""
    return next((one for one in manifests.resources if isinstance(one, PolicyLibrary)), None)


def _engine(
    settings: Settings,
    given: tuple[Resource, ...],
    applied: tuple[Resource, ...],
    previous: Configuration | None,
    *,
    live: bool,
) -> Engine:
    """The engine of the rules that are to run, which is the previous one if they are as they were."""
    engine = None if previous is None else previous.engine
    if engine is not None and previous is not None and given == previous.given_rules and _ships(settings):
        return engine
    perform = run_aside if live else run_here
    compiled = perform(Task.COMPILE_RULES, replace(settings, origins={}), applied)
    return engine if engine is not None and compiled.rules == engine.rules else Engine(compiled)


def _ships(settings: Settings) -> bool:
    """Whether the rules beside the user's own are the shipped ones, which never change."""
    return settings.rules in RULE_CHOICES


# -- identities


_providers = cache(load_builtin_identities)


def _matcher(settings: Settings, manifests: Manifests, redact: Redact, book: Book, *, live: bool) -> IdentityMatcher:
    """Mappings of the user's folder and the built-in providers."""
    given = manifests.identity_mappings
    # A folder may hold the shipped library itself, or newer files of it: they stay knowledge of providers.
    builtin = {mapping.metadata.name: mapping for mapping in _providers()}
    builtin |= {mapping.metadata.name: mapping for mapping in given if _is_builtin(mapping)}
    mappings = [mapping for mapping in given if not _is_builtin(mapping)]
    fallback = None
    if live and settings.proc_fallback:
        fallback = ProcEnvironment(settings.proc_root, lambda name: redact(name)[0])
    return IdentityMatcher(
        mappings,
        list(builtin.values()),
        looks_like_credential=looks_like_credential_name if settings.unmapped_credentials else None,
        fallback=fallback,
        fingerprints=book,
    )


def _is_builtin(mapping: Mapping) -> TypeGuard[ClusterIdentityMapping]:
    return mapping.metadata.labels.get(BUILTIN_LABEL) == "true" and isinstance(mapping, ClusterIdentityMapping)


# -- the files behind it


def watched_folders(settings: Settings) -> tuple[Path, ...]:
    """The user's folders and files, whose change means another configuration; the shipped library never changes."""
    replaced = None if _ships(settings) else rules_folder(settings)
    return tuple(one for one in (settings.config, replaced, settings.fingerprints_file) if one is not None)


def files_below(path: Path) -> Iterator[Path]:
    """Yield the manifest files of a folder, sorted, or the file itself; nothing where there is nothing.

    Links are followed and hidden names not entered: the kubelet mounts a ConfigMap as links through `..data` into a
    folder whose name changes with its content. A link that leads back up is followed once.
    """
    if not path.is_dir():
        yield path
        return
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and _is_new(Path(folder, name), seen))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix in SUFFIXES:
                yield Path(folder, name)


def digest_of(paths: Iterable[Path]) -> str:
    """Digest of the content of all files below some paths, and of their names."""
    digest = blake2b(digest_size=16)
    for path in paths:
        for file in files_below(path):
            digest.update(repr((str(file), _content(file))).encode())
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    """Digest of one file; empty for what cannot be read: loading it says why."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe would wait for its writer
            return b""
        with file.open("rb") as opened:
            return blake2b(opened.read(MAX_FILE_BYTES + 1), digest_size=16).digest()
    except OSError:
        return b""


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    place = status.st_dev, status.st_ino
    new = place not in seen
    seen.add(place)
    return new
