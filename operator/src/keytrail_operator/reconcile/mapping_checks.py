"""What is wrong with one mapping beyond its shape: what it names, and what the cluster has.

In flow a mapping and what was observed, gathered once for all mappings of a run; out flow conditions whose messages say
what to do. Pure; `mappings` puts them together.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keytrail.domain.declared import SecretKey
from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping
from keytrail.domain.status import Condition, ConditionStatus
from keytrail_operator.reconcile.conditions import Said, false, true, unknown
from keytrail_operator.reconcile.fingerprints import Facts, Place
from keytrail_operator.reconcile.usage import is_fresh
from keytrail_operator.world import World

SECRETS: Final = "SecretsResolved"
CAPTURED: Final = "EnvCaptured"
_SHOWN: Final = 3
_FILTER: Final = re.compile(r"lets only these variables through: (.*)$")
"""How a collector's condition EnvironmentCaptured tells of the agent's filter."""
_LONGEST_CONDITION: Final = 1024
"""Cut off there, so that a list of names may go on."""
Given = ClusterIdentityMapping | IdentityMapping


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed beside the World, by those who ask other servers."""

    hosts: Mapping[str, bool] = field(default_factory=dict)
    """Whether a host name resolves; nothing about one of which nobody can say it."""
    secrets: Mapping[Place, Facts] = field(default_factory=dict)
    """By namespace and name; nothing about one that may not be read."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What all nodes and pods say, gathered once for all mappings."""

    fresh: int = 0
    """Nodes whose collector is heard of."""
    blind: int = 0
    """Nodes whose agent shows no environments."""
    mend: str = ""
    """What one of these says is to be done."""
    filters: Mapping[frozenset[str], int] = field(default_factory=dict)
    """Variables that agents let through, and on how many nodes."""
    unclear: int = 0
    """Nodes that do not say."""
    refusing: Mapping[str, int] = field(default_factory=dict)
    """What collectors say that they refuse, and on how many nodes."""
    missing: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    """By namespace and name of a Secret, by key (empty: the whole): a pod that waits for it."""


def picture_of(world: World, now: float) -> Picture:
    """Gather it."""
    fresh = [one.state for one in world.collectors.values() if one.state is not None and is_fresh(one, now)]
    blind = unclear = 0
    mend = ""
    filters: Counter[frozenset[str]] = Counter()
    refusing: Counter[str] = Counter()
    for state in fresh:
        by_type = {one.type: one for one in state.conditions}
        accepted = by_type.get("ConfigurationAccepted")
        if accepted is not None and accepted.status is ConditionStatus.FALSE:
            refusing[accepted.message] += 1
        captured = by_type.get("EnvironmentCaptured")
        if captured is None or captured.status is ConditionStatus.UNKNOWN:
            unclear += 1
        elif captured.status is ConditionStatus.FALSE:
            blind, mend = blind + 1, captured.message
        elif captured.reason == "CapturedInPart":
            names = _let_through(captured)
            filters[names] += 1
            unclear += not names
    missing: dict[tuple[str, str], dict[str, str]] = {}
    for pod in world.waiting:
        for one in pod.missing:
            missing.setdefault((one.namespace, one.name), {}).setdefault(one.key, f"{pod.namespace}/{pod.name}")
    known = {names: count for names, count in filters.items() if names}
    return Picture(len(fresh), blind, mend, known, unclear, dict(refusing), missing)


def _let_through(captured: Condition) -> frozenset[str]:
    """Return the names that a filter lets through; none when the list was cut off."""
    found = _FILTER.search(captured.message)
    if found is None or len(captured.message) >= _LONGEST_CONDITION:
        return frozenset()
    return frozenset(found[1].split(", "))


# -- conditions


def nodes_reporting(picture: Picture, kind: str, name: str) -> int:
    """How many nodes have a mapping in force: those that are heard of and do not say that they refuse it."""
    needle = f"{kind} {name}:"
    return picture.fresh - sum(count for message, count in picture.refusing.items() if needle in message)


def env_captured(picture: Picture, given: Given) -> Said:
    """Whether the agents show the variables that a mapping names."""
    items = given.spec.evidence.env
    if not items:
        return true(CAPTURED, "NoVariables", "the mapping names no variables")
    if not picture.fresh:
        return unknown(CAPTURED, "NoCollector", "no collector was heard of in the last twenty minutes")
    if picture.blind:
        return false(CAPTURED, "NotCaptured", f"on {picture.blind} of {picture.fresh} nodes: {picture.mend}")
    withheld = _withheld(picture, given)
    if withheld:
        return false(CAPTURED, "Withheld", withheld)
    if picture.unclear:
        return unknown(CAPTURED, "AgentDoesNotSay", f"{picture.unclear} of {picture.fresh} agents do not tell")
    return true(CAPTURED, "Captured", "the agents show the variables of all processes")


def _withheld(picture: Picture, given: Given) -> str:
    """Say what an agent's filter keeps back; empty when it is nothing."""
    items = given.spec.evidence.env
    for let_through, nodes in picture.filters.items():
        names = [item.name for item in items if item.name and item.name not in let_through]
        kept = names or [f"what matches {item.pattern}" for item in items if item.pattern]
        if kept:
            return (
                f"on {nodes} of {picture.fresh} nodes the agent's filter, which takes exact names only, withholds "
                f"{_listed(kept)}: add the names to filter-environment-variables in the ConfigMap tetragon-config, or "
                "empty it, and restart the DaemonSet tetragon"
            )
    return ""


def secrets_resolved(picture: Picture, seen: Seen, given: Given) -> Said:
    """Whether the Secrets that a mapping names exist, with their keys."""
    named = [(one.namespace or given.metadata.namespace, one) for one in given.spec.evidence.secrets]
    if not named:
        return true(SECRETS, "NoSecrets", "the mapping names no Secrets")
    unreadable = []
    for namespace, one in named:
        at = f"{namespace}/{one.name}"
        facts = seen.secrets.get((namespace, one.name))
        if facts is None:
            unreadable.append(at)
            waiting = picture.missing.get((namespace, one.name), {})
            for key in ("", *(one.keys or waiting)):
                if key in waiting:
                    return _absent(SecretKey(namespace, one.name, key), f"pod {waiting[key]} waits for it")
        elif not facts.exists:
            return _absent(SecretKey(namespace, one.name), "")
        elif lacking := [key for key in one.keys if key not in facts.keys]:
            return _absent(SecretKey(namespace, one.name, lacking[0]), "")
    if unreadable:
        return unknown(
            SECRETS,
            "NotPermitted",
            f"no pod waits for {_listed(unreadable)}, which the operator may not read: list it in the chart's value "
            "fingerprints.secrets to have it checked",
        )
    return true(SECRETS, "Resolved", "all Secrets and keys that the mapping names exist")


def _absent(secret: SecretKey, why: str) -> Said:
    at, because = f"{secret.namespace}/{secret.name}", f" ({why})" if why else ""
    if secret.key:
        message = f"Secret {at} has no key {secret.key}{because}: add it, or mend spec.evidence.secrets"
        return false(SECRETS, "KeyMissing", message)
    return false(SECRETS, "SecretMissing", f"there is no Secret {at}{because}: make it, or mend spec.evidence.secrets")


def names_nobody(world: World, seen: Seen, given: Given) -> Iterator[tuple[str, str]]:
    """Yield reason and message for ServiceAccounts and hosts that do not exist."""
    spec: Any = given.spec
    known = world.service_accounts
    if known is not None:
        accounts = [(one.namespace or given.metadata.namespace, one.name) for one in spec.evidence.service_accounts]
        lacking = [f"{namespace}/{name}" for namespace, name in accounts if (namespace, name) not in known]
        if lacking:
            yield (
                "ServiceAccountMissing",
                f"there is no ServiceAccount {_listed(lacking)}: make it, or mend spec.evidence.serviceAccounts",
            )
    unresolved = [host for host in hosts_of(given) if seen.hosts.get(host) is False]
    if unresolved:
        yield "HostUnknown", f"no such host in DNS: {_listed(unresolved)}: mend the name, or add it there"


def hosts_of(given: Given) -> list[str]:
    """Return the hosts that a mapping names; one with a wildcard is none that could be asked for."""
    spec = given.spec
    hosts = [*spec.evidence.server_names, *(one.host for one in spec.allowed.destinations)]
    return [host for host in dict.fromkeys(hosts) if host and not host.startswith("*")]


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
