"""One attribution for each process image: what its variables, command line, files and Pod spec say, strongest first.

The rules are those of the identity model: a mapped identity outranks an unmapped credential, stronger evidence
outranks weaker, then env beats file beats argv, a cluster-wide mapping beats a namespaced one, then priority, then
name, so that the same input always gives the same answer.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from keytrail.domain.agent import AgentFacts
from keytrail.domain.declared import NOTHING_DECLARED, SecretKey
from keytrail.domain.event import Event, EventKind
from keytrail.domain.fingerprint import Book
from keytrail.domain.identity import NO_IDENTITY, Attribution, Evidence, EvidenceKind, Unknown
from keytrail.domain.paths import plain_path
from keytrail.domain.placement import Placement
from keytrail.domain.process import Pod, Process
from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping
from keytrail.identify.fingerprint_evidence import fingerprint_evidence
from keytrail.identify.mapping_rules import Mapping, MappingRules
from keytrail.identify.pod_evidence import declared_evidence, file_evidence, is_undeclared, source_of
from keytrail.identify.ranking import ranked
from keytrail.identify.server_names import with_use

__all__ = ["IdentityMatcher", "Mapping"]

EnvironmentFallback = Callable[[Process], tuple[str, ...] | Unknown]
"""Names of a process's variables read from somewhere else than the event, or why they could not be had."""

_CACHED_ENVIRONMENTS = 8_192
_MOST_OPENED = 32
"""Files with credentials that are remembered of one process: one that reads them all needs no longer list."""
_READS: Final = frozenset({"read", "open", "map"})
_ASSIGNED = re.compile(r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_]{0,254})=\[redacted\]")
"""A variable that a command line gives a credential to: `export KEY=...`, `env KEY=...`, `-e KEY=...`."""
_BY_NAME = "named-value"
"""What redaction calls a value that only the name before it makes a credential."""

_Key = tuple[tuple[str, ...] | None, str, Placement | None, tuple[str, ...] | None]
"""All that the variables' part of an attribution depends on: names, namespace, what the spec gives, what began."""


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
        fingerprints: Book | None = None,
    ) -> None:
        self._rules = MappingRules(mappings, builtin)
        self._providers = frozenset(mapping.metadata.name for mapping in builtin)
        self._namespaced = any(isinstance(mapping, IdentityMapping) for mapping in mappings)
        self._looks_like_credential = looks_like_credential
        self._fallback = fallback
        self._fingerprints = fingerprints or Book()
        self._environment_filter: frozenset[str] = frozenset()
        self._wanted = frozenset(item.name for m in mappings for item in m.spec.evidence.env if item.name)
        self._patterned = any(item.pattern for m in mappings for item in m.spec.evidence.env)
        self._environments: dict[_Key, Attribution] = {}
        self._without = NO_IDENTITY
        """The answer when the variables that can be seen say nothing."""

    def learn(self, facts: AgentFacts) -> None:
        """Take over which variables the agent lets through: about the others nobody can say anything."""
        self._environment_filter = frozenset(facts.environment_filter)
        self._without = Attribution(unknown=Unknown.FILTERED) if self._withheld() else NO_IDENTITY
        self._environments.clear()

    def identify(self, event: Event) -> None:
        """See to it that the event's process has its attribution, with the file that the event shows being opened."""
        process = event.process
        if event.kind is EventKind.FILE:
            self._open(event, process)
        if process.attribution is None:
            process.attribution = self.attribute(process)

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
        by_environment = self._environment(names, process)
        others = self._arguments(process)
        if process.opened:
            others += [item for path, _ in process.opened for item in self._file(path, process)]
        if process.fingerprints:
            others += fingerprint_evidence(process, self._fingerprints, self._rules)
        if process.reached:
            namespace = process.pod.namespace if process.pod is not None else ""
            used = with_use([*by_environment.evidence, *others], process.reached, namespace, self._rules)
            if any(item.kind is EvidenceKind.SERVER_NAME for item in used):
                return ranked(used)
        if others:
            return ranked([*by_environment.evidence, *others])
        return by_environment if unknown is None else Attribution(by_environment.evidence, unknown)

    # -- variables, and what the Pod's spec says of them

    def _environment(self, names: tuple[str, ...] | None, process: Process) -> Attribution:
        """What variables and the Pod's spec say; the same object for all processes with the same ones."""
        pod, placement = process.pod, process.placement
        if pod is None or placement is None or placement.declared is None:
            placement = None
            if not names:
                return self._without
        namespace = pod.namespace if pod is not None and (self._namespaced or placement is not None) else ""
        given = process.origin.environment if process.origin is not None and placement is not None else None
        key = (names, namespace, placement, given)
        known = self._environments.get(key)
        if known is None:
            evidence = list(self._variables(key))
            if pod is not None and placement is not None:
                evidence += self._declared(pod, placement, evidence)
            known = ranked(evidence, self._without.unknown) if evidence else self._without
            if len(self._environments) >= _CACHED_ENVIRONMENTS:
                self._environments.clear()
            self._environments[key] = known
        return known

    def _variables(self, key: _Key) -> Iterable[Evidence]:
        names, namespace, placement, given = key
        declared = None if placement is None else placement.declared
        for name in names or ():
            if declared is None:
                yield from self._variable(name, namespace)
            else:
                secret = source_of(name, namespace, declared, given, self._rules)
                found = self._variable(name, namespace, secret, by_name=name in declared.variables)
                if is_undeclared(name, declared, given):
                    found = [replace(item, undeclared=True) for item in found]
                yield from found

    def _variable(
        self, name: str, namespace: str, secret: SecretKey | None = None, *, by_name: bool = False
    ) -> list[Evidence]:
        """Evidence that a variable is; `by_name`: the spec takes this very variable from the Secret.

        Of a Secret that the spec takes as a whole nobody knows the keys: PATH will not be one of them.
        """
        default = f"{name.lower()}-present" if secret is None else secret.identity_id
        looks = self._looks_like_credential is not None and self._looks_like_credential(name)
        found = self._rules.of_variable(name, namespace, secret, certain=by_name or looks)
        if found:
            return [
                replace(
                    item,
                    kind=EvidenceKind.ENV,
                    name=name,
                    identity_id=item.identity_id or default,
                    secret=secret,
                )
                for item in found
            ]
        if looks or (by_name and secret is not None):
            return [Evidence(EvidenceKind.ENV, name, default, secret=secret, mapped=secret is not None)]
        return []

    def _declared(self, pod: Pod, placement: Placement, seen: list[Evidence]) -> Iterable[Evidence]:
        keys = {item.secret for item in seen if item.secret is not None}
        return declared_evidence(pod, placement.declared or NOTHING_DECLARED, placement.roles, keys, self._rules)

    def _withheld(self) -> bool:
        """Whether the agent's filter hides variables that somebody asks about."""
        if not self._environment_filter:
            return False
        return self._patterned or not self._wanted or not self._wanted <= self._environment_filter

    # -- command line and files

    def _arguments(self, process: Process) -> list[Evidence]:
        arguments = process.arguments
        if not arguments and not process.argument_credentials:
            return []
        namespace = process.pod.namespace if process.pod is not None else ""
        found = self._rules.of_command_line(arguments.lower(), namespace)
        assigned = list(dict.fromkeys(_ASSIGNED.findall(arguments))) if process.argument_credentials else []
        for name in assigned:
            found += [replace(item, kind=EvidenceKind.ARGV) for item in self._variable(name, namespace)]
        for pattern in process.argument_credentials:
            if not (assigned and pattern == _BY_NAME):
                provider = pattern.partition("-")[0]
                known = provider if provider in self._providers else ""
                found.append(Evidence(EvidenceKind.ARGV, pattern, f"argv-{pattern}", provider=known, mapped=False))
        return found

    def _open(self, event: Event, process: Process) -> None:
        """Remember a file that the process opened, when it holds a credential; the attribution is then made anew."""
        placement = process.placement
        mounted = placement is not None and placement.declared is not None and placement.declared.mounts
        if not (mounted or self._rules.reads_files) or len(process.opened) >= _MOST_OPENED:
            return
        file = event.file
        if file is None or file.access not in _READS or (event.returned or 0) < 0:
            return
        path = plain_path(file.path)
        if all(path != known for known, _ in process.opened) and self._file(path, process):
            process.opened += ((path, event.time_ns),)
            process.attribution = None

    def _file(self, path: str, process: Process) -> list[Evidence]:
        placement = process.placement
        declared, roles = (None, ()) if placement is None else (placement.declared, placement.roles)
        return file_evidence(path, process.pod, declared, roles, self._rules)
