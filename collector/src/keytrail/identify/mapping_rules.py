"""Mappings in; out what each of their evidence items looks for, and how what several of them found becomes evidence.

Compiled once for each set of mappings. Used by `matcher`; must not know a process.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import re2

from keytrail.domain.allowed import is_host
from keytrail.domain.declared import SecretKey
from keytrail.domain.filters import compile_pattern
from keytrail.domain.identity import Evidence, EvidenceKind, Strength
from keytrail.domain.paths import path_expression
from keytrail.domain.resources import Allowed, ClusterIdentityMapping, IdentityMapping

Mapping = ClusterIdentityMapping | IdentityMapping
_CACHED_PATHS = 4_096
_SEARCHED_TOGETHER = 16
"""Words from which on RE2 is quicker: a call of it costs as much as looking for a dozen, one by one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One evidence item of one mapping."""

    template: Evidence
    namespace: str
    builtin: bool
    matches: Callable[[str], bool]
    """For a Secret: whether the mapping means this key."""
    word: str = ""
    """What to look for on a command line; empty for all other items."""


class MappingRules:
    """The evidence items of all mappings, each where it can be found quickly."""

    def __init__(self, mappings: Iterable[Mapping], builtin: Iterable[ClusterIdentityMapping]) -> None:
        self._env_names: dict[str, list[Rule]] = {}
        self._env_patterns: list[Rule] = []
        self._argv: list[Rule] = []
        self._secrets: dict[tuple[str, str], list[Rule]] = {}
        self._service_accounts: dict[tuple[str, str], list[Rule]] = {}
        self._files: list[Rule] = []
        self._hosts: list[Rule] = []
        self._paths: dict[str, list[Rule]] = {}
        """What `_files` says of paths: those that a node's processes open are few and many times the same."""
        for provider in builtin:
            self._enter(provider, builtin=True)
        for mapping in mappings:
            self._enter(mapping, builtin=False)
        self._has_word = _any_of({rule.word for rule in self._argv})
        self.reads_files = bool(self._files)

    def of_variable(self, name: str, namespace: str, secret: SecretKey | None, *, certain: bool) -> list[Evidence]:
        """Evidence that a variable is, which comes from that key of a Secret, as far as is known.

        Where the Secret may well not have the key (not `certain`), only mappings that name the key mean it.
        """
        rules = [*self._env_names.get(name, ()), *(rule for rule in self._env_patterns if rule.matches(name))]
        of_key = [rule for rule in self._of_key(secret) if certain or rule.matches is not _any_text]
        return choose(_for(namespace, [*rules, *of_key]))

    def of_secret(self, secret: SecretKey) -> list[Evidence]:
        """Evidence that a Secret's key is."""
        return choose(_for(secret.namespace, self._of_key(secret)))

    def of_service_account(self, namespace: str, name: str) -> list[Evidence]:
        """Evidence that a ServiceAccount is."""
        return choose(_for(namespace, self._service_accounts.get((namespace, name), [])))

    def of_file(self, path: str, namespace: str, secret: SecretKey | None) -> list[Evidence]:
        """Evidence that an opened file is, which shows that key of a Secret, as far as is known."""
        rules = self._paths.get(path)
        if rules is None:
            rules = [rule for rule in self._files if rule.matches(path)]
            if len(self._paths) >= _CACHED_PATHS:
                self._paths.clear()
            self._paths[path] = rules
        return choose(_for(namespace, [*rules, *self._of_key(secret)]))

    def of_host(self, host: str, namespace: str) -> list[Evidence]:
        """Whose credentials a host takes: what a mapping or a provider says of all its evidence."""
        return [rule.template for rule in _for(namespace, self._hosts) if rule.matches(host)]

    def of_command_line(self, lowered: str, namespace: str) -> list[Evidence]:
        """Evidence that the words of a command line are; most have none, and are looked through once."""
        if not self._has_word(lowered):
            return []
        return choose(_for(namespace, [rule for rule in self._argv if rule.matches(lowered)]))

    def _of_key(self, secret: SecretKey | None) -> list[Rule]:
        if secret is None:
            return []
        rules = self._secrets.get((secret.namespace, secret.name), [])
        return [rule for rule in rules if not secret.key or rule.matches(secret.key)]

    def _enter(self, mapping: Mapping, *, builtin: bool) -> None:
        spec, own = mapping.spec, mapping.metadata.namespace
        name = mapping.metadata.name
        env = _template(mapping, builtin=builtin)
        make = partial(Rule, namespace=own, builtin=builtin)
        for item in spec.evidence.env:
            if item.name:
                self._env_names.setdefault(item.name, []).append(make(env, matches=item.name.__eq__))
            else:
                pattern = compile_pattern(item.pattern, f"{name}: spec.evidence.env.pattern")
                self._env_patterns.append(make(env, matches=_whole(pattern)))
        argv = replace(env, kind=EvidenceKind.ARGV, identity_id=env.identity_id or f"argv-{name}")
        for needle in spec.evidence.argv:
            word = needle.contains.lower()
            self._argv.append(make(argv, matches=partial(_contains, word), word=word))
        secret = replace(env, kind=EvidenceKind.SECRET, names_secret=True)
        for given in spec.evidence.secrets:
            means = frozenset(given.keys).__contains__ if given.keys else _any_text
            self._secrets.setdefault((given.namespace or own, given.name), []).append(make(secret, matches=means))
        account = replace(env, kind=EvidenceKind.SERVICE_ACCOUNT)
        for one in spec.evidence.service_accounts:
            self._service_accounts.setdefault((one.namespace or own, one.name), []).append(
                make(account, matches=_any_text)
            )
        file = replace(env, kind=EvidenceKind.FILE, identity_id=env.identity_id or f"file-{name}")
        for host in spec.evidence.server_names:
            self._hosts.append(make(env, matches=partial(is_host, host.lower())))
        for each in spec.evidence.files:
            self._files.append(make(file, matches=_whole(re2.compile(path_expression(each.path)))))


def _template(mapping: Mapping, *, builtin: bool) -> Evidence:
    identity, own = mapping.spec.identity, mapping.metadata.namespace
    return Evidence(
        EvidenceKind.ENV,
        mapping.metadata.name,
        "" if builtin else mapping.identity_id,
        Strength.OBSERVED,
        "" if builtin else mapping.name,
        identity.provider,
        identity.kind,
        identity.owner,
        mapping.spec.priority,
        allowed=() if builtin else _expected_use(mapping.spec.allowed, own),
    )


def _for(namespace: str, rules: Sequence[Rule]) -> list[Rule]:
    """Leave out what tenants of other namespaces say."""
    return [rule for rule in rules if rule.namespace in ("", namespace)]


def choose(rules: list[Rule]) -> list[Evidence]:
    """Mappings of the user replace the built-in ones, which lend them provider and kind; one evidence a mapping."""
    builtin = next((rule.template for rule in rules if rule.builtin), None)
    by_mapping: dict[str, Evidence] = {}
    for rule in rules:
        if not rule.builtin:
            made = _narrowed(rule, rules)
            by_mapping[made.mapping] = _merged(by_mapping.get(made.mapping, made), made)
    if not by_mapping:
        return [builtin] if builtin is not None else []
    users = list(by_mapping.values())
    if builtin is None:
        return users
    return [
        replace(
            found,
            provider=found.provider or builtin.provider,
            identity_kind=found.identity_kind or builtin.identity_kind,
        )
        for found in users
    ]


def _expected_use(allowed: Allowed, namespace: str) -> tuple[Allowed, ...]:
    """What a mapping expects, its own namespace filled in; empty when it leaves `allowed` out."""
    if allowed == Allowed():
        return ()
    own = tuple(replace(one, namespace=one.namespace or namespace) for one in allowed.workloads)
    return (replace(allowed, workloads=own),)


def _narrowed(rule: Rule, rules: list[Rule]) -> Evidence:
    """Add the expectations of the other scope, cluster or namespace, about the same variable or word.

    A tenant can narrow what a cluster mapping allows in its own namespace, and can never widen it: whichever of the two
    identities is looked at, both mappings must hold.
    """
    others = (
        one.template.allowed
        for one in rules
        if not one.builtin and bool(one.namespace) != bool(rule.namespace) and one.word == rule.word
    )
    return replace(rule.template, allowed=tuple(dict.fromkeys(chain(rule.template.allowed, *others))))


def _merged(first: Evidence, other: Evidence) -> Evidence:
    """Two items of one mapping that mean the same thing, such as a variable and the Secret that it comes from."""
    allowed = tuple(dict.fromkeys(first.allowed + other.allowed))
    return replace(first, allowed=allowed, names_secret=first.names_secret or other.names_secret)


def _any_of(words: set[str]) -> Callable[[str], bool]:
    """Whether one of the words is in a text: one after another while that is quicker than one search for all."""
    if len(words) > _SEARCHED_TOGETHER:
        expression = "|".join(map(re2.escape, sorted(words)))
        search = compile_pattern(expression, "spec.evidence.argv.contains").search
        return lambda text: search(text) is not None
    few = tuple(words)

    def has_one(text: str) -> bool:
        for word in few:  # noqa: SIM110 - `any` would make a generator, which costs as much as three of these words
            if word in text:
                return True
        return False

    return has_one


def _contains(needle: str, text: str) -> bool:
    return needle in text


def _any_text(_text: str) -> bool:
    return True


def _whole(pattern: Any) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None
