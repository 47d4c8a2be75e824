"""Mappings, compiled once; one attribution for each process image.

The rules are those of the identity model: a mapped identity outranks an unmapped credential, stronger evidence
outranks weaker, then env beats file beats argv, a cluster-wide mapping beats a namespaced one, then priority, then
name, so that the same input always gives the same answer.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import re2

from keytrail.domain.agent import AgentFacts
from keytrail.domain.filters import compile_pattern
from keytrail.domain.identity import NO_IDENTITY, Attribution, Evidence, EvidenceKind, Strength, Unknown
from keytrail.domain.process import Process
from keytrail.domain.resources import Allowed, ClusterIdentityMapping, IdentityMapping

Mapping = ClusterIdentityMapping | IdentityMapping
EnvironmentFallback = Callable[[Process], tuple[str, ...] | Unknown]
"""Names of a process's variables read from somewhere else than the event, or why they could not be had."""

_KIND_ORDER = {kind: rank for rank, kind in enumerate((EvidenceKind.ENV, EvidenceKind.FILE, EvidenceKind.ARGV))}
_CACHED_ENVIRONMENTS = 8_192
_ASSIGNED = re.compile(r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_]{0,254})=\[redacted\]")
"""A variable that a command line gives a credential to: `export KEY=...`, `env KEY=...`, `-e KEY=...`."""
_BY_NAME = "named-value"
"""What redaction calls a value that only the name before it makes a credential."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """One evidence item of one mapping."""

    template: Evidence
    namespace: str
    builtin: bool
    matches: Callable[[str], bool]
    word: str = ""
    """What to look for on a command line; empty for a variable."""


class IdentityMatcher:
    """Attributes processes by a fixed set of mappings; a change of mappings makes a new matcher.

    `looks_like_credential` judges the names of variables that no mapping knows; None leaves them unreported.
    """

    def __init__(
        self,
        mappings: Sequence[Mapping] = (),
        builtin: Sequence[ClusterIdentityMapping] = (),
        *,
        looks_like_credential: Callable[[str], bool] | None = None,
        fallback: EnvironmentFallback | None = None,
    ) -> None:
        self._env_names: dict[str, list[_Rule]] = {}
        self._env_patterns: list[_Rule] = []
        self._argv: list[_Rule] = []
        self._words: set[str] = set()
        for provider in builtin:
            self._enter(provider, builtin=True)
        for mapping in mappings:
            self._enter(mapping, builtin=False)
        self._providers = frozenset(mapping.metadata.name for mapping in builtin)
        self._any_word = _any_of(self._words)
        self._namespaced = any(isinstance(mapping, IdentityMapping) for mapping in mappings)
        self._looks_like_credential = looks_like_credential
        self._fallback = fallback
        self._environment_filter: frozenset[str] = frozenset()
        self._wanted = frozenset(item.name for m in mappings for item in m.spec.evidence.env if item.name)
        self._patterned = any(item.pattern for m in mappings for item in m.spec.evidence.env)
        self._environments: dict[tuple[tuple[str, ...], str], Attribution] = {}
        self._without = NO_IDENTITY
        """The answer when the variables that can be seen say nothing."""

    def learn(self, facts: AgentFacts) -> None:
        """Take over which variables the agent lets through: about the others nobody can say anything."""
        self._environment_filter = frozenset(facts.environment_filter)
        self._without = Attribution(unknown=Unknown.FILTERED) if self._withheld() else NO_IDENTITY
        self._environments.clear()

    def attribute(self, process: Process) -> Attribution:
        """The identities that a process carries, strongest first, or why nobody could look."""
        unknown: Unknown | None = None
        names = process.environment
        if names is None:
            found = self._fallback(process) if self._fallback is not None else Unknown.NOT_CAPTURED
            if isinstance(found, Unknown):
                unknown = found
            else:
                names = process.environment = found
        by_environment, by_arguments = self._environment(names, process), self._arguments(process)
        if not by_arguments:
            return by_environment if unknown is None else Attribution(unknown=unknown)
        return _ranked([*by_environment.evidence, *by_arguments])

    # -- the two kinds of evidence a process brings along

    def _environment(self, names: tuple[str, ...] | None, process: Process) -> Attribution:
        """What the variables alone say; the same object for all processes with the same ones."""
        if not names:
            return self._without
        key = (names, process.pod.namespace if self._namespaced and process.pod is not None else "")
        known = self._environments.get(key)
        if known is None:
            evidence = [found for name in names for found in self._variable(name, key[1])]
            known = _ranked(evidence) if evidence else self._without
            if len(self._environments) >= _CACHED_ENVIRONMENTS:
                self._environments.clear()
            self._environments[key] = known
        return known

    def _variable(self, name: str, namespace: str) -> Iterable[Evidence]:
        rules = list(self._env_names.get(name, ()))
        rules += [rule for rule in self._env_patterns if rule.matches(name)]
        found = _choose([rule for rule in rules if rule.namespace in ("", namespace)])
        if found:
            return [
                replace(item, name=name, identity_id=item.identity_id or f"{name.lower()}-present") for item in found
            ]
        if self._looks_like_credential is not None and self._looks_like_credential(name):
            return [Evidence(EvidenceKind.ENV, name, f"{name.lower()}-present", mapped=False)]
        return ()

    def _arguments(self, process: Process) -> list[Evidence]:
        arguments = process.arguments
        if not arguments and not process.argument_credentials:
            return []
        namespace = process.pod.namespace if process.pod is not None else ""
        lowered = arguments.lower()
        found: list[Evidence] = []
        if self._any_word is not None and self._any_word.search(
            lowered
        ):  # one look for all words: most lines have none
            found = _choose(
                [rule for rule in self._argv if rule.matches(lowered) and rule.namespace in ("", namespace)]
            )
        assigned = list(dict.fromkeys(_ASSIGNED.findall(arguments))) if process.argument_credentials else []
        for name in assigned:
            found += [replace(item, kind=EvidenceKind.ARGV) for item in self._variable(name, namespace)]
        for pattern in process.argument_credentials:
            if not (assigned and pattern == _BY_NAME):
                provider = pattern.partition("-")[0]
                known = provider if provider in self._providers else ""
                found.append(Evidence(EvidenceKind.ARGV, pattern, f"argv-{pattern}", provider=known, mapped=False))
        return found

    def _withheld(self) -> bool:
        """Whether the agent's filter hides variables that somebody asks about."""
        if not self._environment_filter:
            return False
        return self._patterned or not self._wanted or not self._wanted <= self._environment_filter

    # -- compiling

    def _enter(self, mapping: Mapping, *, builtin: bool) -> None:
        spec, namespace = mapping.spec, mapping.metadata.namespace
        name = mapping.metadata.name
        identity_id = "" if builtin else spec.identity.id or name
        template = Evidence(
            EvidenceKind.ENV,
            name,
            f"{namespace}/{identity_id}" if namespace else identity_id,
            Strength.OBSERVED,
            "" if builtin else f"{namespace}/{name}" if namespace else name,
            spec.identity.provider,
            spec.identity.kind,
            spec.identity.owner,
            spec.priority,
            allowed=() if builtin else _expected_use(spec.allowed, namespace),
        )
        for item in spec.evidence.env:
            if item.name:
                self._env_names.setdefault(item.name, []).append(_Rule(template, namespace, builtin, item.name.__eq__))
            else:
                pattern = compile_pattern(item.pattern, f"{name}: spec.evidence.env.pattern")
                self._env_patterns.append(_Rule(template, namespace, builtin, _whole(pattern)))
        argv = replace(template, kind=EvidenceKind.ARGV, identity_id=template.identity_id or f"argv-{name}")
        for needle in spec.evidence.argv:
            word = needle.contains.lower()
            self._words.add(word)
            self._argv.append(_Rule(argv, namespace, builtin, partial(_contains, word), word))


def _any_of(words: set[str]) -> Any:
    if not words:
        return None
    return compile_pattern("|".join(map(re2.escape, sorted(words))), "spec.evidence.argv.contains")


def _contains(needle: str, text: str) -> bool:
    return needle in text


def _whole(pattern: Any) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


def _choose(rules: list[_Rule]) -> list[Evidence]:
    """Mappings of the user replace the built-in ones, which lend them provider and kind; one evidence a mapping."""
    builtin = next((rule.template for rule in rules if rule.builtin), None)
    users = list(dict.fromkeys(_narrowed(rule, rules) for rule in rules if not rule.builtin))
    if not users:
        return [builtin] if builtin is not None else []
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


def _narrowed(rule: _Rule, rules: list[_Rule]) -> Evidence:
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


def _ranked(evidence: list[Evidence]) -> Attribution:
    cluster_wide = any(item.mapping and "/" not in item.mapping for item in evidence)
    named = {item.provider for item in evidence if item.kind is EvidenceKind.ARGV}
    return Attribution(tuple(sorted(evidence, key=lambda item: _rank(item, named, cluster_wide=cluster_wide))))


def _rank(item: Evidence, named: set[str], *, cluster_wide: bool) -> tuple[Any, ...]:
    """Sort key, best first.

    `named` are the providers on the command line: of several keys in an environment, `curl https://api.stripe.com`
    tells which one is meant. `cluster_wide`: a user's cluster-wide mapping is among the evidence.
    """
    return (
        not item.mapped,
        cluster_wide and "/" in item.mapping,  # a tenant can never rename a cluster identity
        -item.strength,
        _KIND_ORDER.get(item.kind, len(_KIND_ORDER)),
        not item.mapping,
        -item.priority,
        not item.provider or item.provider not in named,
        not item.provider,  # a key's own shape says more than the header that it came in
        item.identity_id,
        item.name,
    )
