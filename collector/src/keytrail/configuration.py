"""What the pipeline decides by: the rules and identity mappings in force, made from the settings and their folders.

In flow the settings, the folder of manifests and the folder of rules; out flows one `Configuration`, or an error with
every problem, each with file, line and field, and then nothing of it is used. Every command judges manifests through
this one loader. Knows no thread and no event: `keytrail.reload` says when to load again, `keytrail.pipeline` decides by
what was loaded.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeGuard

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.detect import Engine
from keytrail.detect.library import load_rules
from keytrail.detect.rule_check import RuleError, check_rule
from keytrail.domain.errors import ManifestError, Problem
from keytrail.domain.fingerprint import Book
from keytrail.domain.objects import Resource
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.resources import BUILTIN_LABEL, ClusterIdentityMapping
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.domain.shape import Fault, FieldPath, dotted
from keytrail.fingerprint_file import read_book, wanted_variables
from keytrail.identify.matcher import IdentityMatcher, Mapping
from keytrail.identify.proc_environ import ProcEnvironment
from keytrail.manifests import SUFFIXES, Manifests, builtin_folder, load_builtin_identities, load_folder
from keytrail.settings import Settings
from keytrail.tracing import sensors
from keytrail.yaml_documents import MAX_FILE_BYTES, read_documents

Redact = Callable[[str], tuple[str, tuple[str, ...]]]

_RULE_CHOICES: dict[str, tuple[Maturity, ...] | None] = {"stable": None, "all": tuple(Maturity), "none": ()}
"""What of the library runs; None leaves it to the user's PolicyLibrary, whose default is the stable rules."""
_TUNE: Final = ("spec", "rules", "tune")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that decides about an event, loaded together and put in force together."""

    manifests: Manifests
    rules: tuple[DetectionRule, ...]
    """All that were given, whether they run or not."""
    engine: Engine | None
    """None where nobody asks for findings. The pipeline gives it the memory of the engine before it."""
    matcher: IdentityMatcher
    book: Book
    """The operator's fingerprints of Secrets; empty where they are not configured, or not there yet."""
    digest: str
    """Of all files that it was made from: the same for the same content."""
    applied: tuple[Resource, ...] = ()
    """What of it came from the API server."""

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
    rules = given_rules(settings, manifests) if findings else ()
    if previous is not None and (rules, _library(manifests)) == (previous.rules, _library(previous.manifests)):
        engine = previous.engine
    else:
        engine = _engine(settings, manifests, rules, applied) if findings else None
    book = read_book(settings.fingerprints_file)
    of_matcher = manifests.identity_mappings, book
    if previous is not None and of_matcher == (previous.manifests.identity_mappings, previous.book):
        matcher = previous.matcher
    else:
        matcher = _matcher(settings, manifests, redact, book, live=live)
    return Configuration(manifests, rules, engine, matcher, book, digest, applied)


# -- manifests and rules


def given_manifests(settings: Settings) -> Manifests:
    """The user's folder; empty without one. Raises UsageError for a wrong manifest."""
    return Manifests() if settings.config is None else load_folder(settings.config)


def rules_folder(settings: Settings) -> Path:
    """Where the rules come from that run beside the user's own: the shipped library, or the folder that replaces it."""
    return builtin_folder() / "rules" if settings.rules in _RULE_CHOICES else Path(settings.rules)


def given_rules(settings: Settings, manifests: Manifests) -> tuple[DetectionRule, ...]:
    """The shipped rules and the user's own, which replace those of the same name. Raises ManifestError."""
    folder = rules_folder(settings)
    shipped, problems = _shipped_rules(folder) if settings.rules in _RULE_CHOICES else _checked(folder)
    own = [one for one in manifests.resources if isinstance(one, DetectionRule)]
    if settings.config is not None and not all(map(_can_run, own)):
        # Only now is the folder read a second time: where in its file each condition stands was not kept.
        problems += _checked(settings.config)[1]
    if problems:
        raise ManifestError(list(dict.fromkeys(problems)))  # both folders may be one
    return tuple({rule.name: rule for rule in (*shipped, *own)}.values())


def build_rules(settings: Settings, manifests: Manifests) -> Engine:
    """The given rules, tuned by the user's PolicyLibrary, in force. Raises ManifestError for a wrong one."""
    return _engine(settings, manifests, given_rules(settings, manifests))


def _engine(
    settings: Settings, manifests: Manifests, rules: Iterable[DetectionRule], applied: tuple[Resource, ...] = ()
) -> Engine:
    library = _library(manifests)
    engine = Engine.load(
        rules,
        library,
        sensors=sensors(),
        maturities=_RULE_CHOICES.get(settings.rules, tuple(Maturity)),
    )
    # What the API server has is never a reason to start nothing: it is reported, and the rest works.
    elsewhere = {one.metadata.name for one in applied if isinstance(one, DetectionRule)}
    refused = {} if library in applied else {n: found for n, found in engine.refused.items() if n not in elsewhere}
    if refused:
        # Each rule alone was right: it is how the PolicyLibrary tunes it that is not.
        raise ManifestError(
            [
                _tuning_problem(settings, name, fault)
                for name, faults in refused.items()
                for fault in dict.fromkeys(faults)
            ]
        )
    return engine


def _tuning_problem(settings: Settings, name: str, fault: Fault) -> Problem:
    """Find the tuning of a rule in its file again; what the fault says is of the rule's own fields."""
    of_rule = fault.path[:2] != _TUNE[:2]
    message = f"{name}: {fault.field}: {fault.message}" if of_rule else fault.message
    for file in () if settings.config is None else files_below(settings.config):
        for document in read_documents(file):
            for path in document.lines:
                if path[:3] == _TUNE and path[4:] == ("name",) and _at(document.data, path) == name:
                    return Problem(document.path, document.line_of(path), dotted(path[:4]), message)
    return Problem(str(settings.config), 0, dotted(_TUNE), message)


def _at(data: Any, path: FieldPath) -> Any:
    for step in path:
        data = data[step]
    return data


def _library(manifests: Manifests) -> PolicyLibrary | None:
    return next((one for one in manifests.resources if isinstance(one, PolicyLibrary)), None)


def _can_run(rule: DetectionRule) -> bool:
    try:
        check_rule(rule, sensors=sensors())
    except RuleError:
        return False
    return True


def _checked(folder: Path) -> tuple[tuple[DetectionRule, ...], tuple[Problem, ...]]:
    return load_rules(folder, sensors=sensors())


_shipped_rules = cache(_checked)
"""The library travels with the program and does not change while it runs: its 134 rules take a second to read."""
_providers = cache(load_builtin_identities)


# -- identities


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
    replaced = None if settings.rules in _RULE_CHOICES else rules_folder(settings)
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
