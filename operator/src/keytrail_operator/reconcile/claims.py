"""Which mappings claim the same thing with equal right: all mappings in, what each of them shares with others out.

Of two mappings in one scope that name the same variable, Secret or ServiceAccount, the higher priority names the
identity; at equal priority only their names decide, which nobody meant. A cluster's mapping always outranks a
namespace's, and namespaces do not see each other, so that only mappings of one scope can be in each other's way. Claims
are found in an index, and patterns are tried on all names at once: a thousand mappings take milliseconds. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping
from keytrail_operator.world import Mapped

Given = ClusterIdentityMapping | IdentityMapping
_SHOWN: Final = 3
_Holders = dict[str, Mapped]
"""By uid."""
_Group = tuple[str, int]
"""Scope (a namespace, or empty for the cluster) and priority."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that mappings may claim."""

    what: str
    """For a person, such as `variable OPENAI_API_KEY`."""
    holders: tuple[Mapped, ...]
    """Those that claim it, in order of their names; several."""

    def others(self, than: Mapped) -> list[str]:
        """Names of the mappings that another identity claims it by."""
        own = identity_of(than)
        return [_name(one) for one in self.holders if identity_of(one) != own]


def identity_of(mapping: Mapped) -> str:
    """Return what records call the identity."""
    return "" if mapping.value is None else mapping.value.identity_id


def ambiguities(mappings: Sequence[Mapped]) -> Mapping[str, tuple[Claim, ...]]:
    """Return what each mapping shares with others, by its uid; nothing for one that has all to itself."""
    groups: dict[_Group, list[Mapped]] = {}
    for one in mappings:
        if one.value is not None:
            groups.setdefault((one.namespace, one.value.spec.priority), []).append(one)
    found: dict[str, list[Claim]] = {}
    for group in groups.values():
        for claim in _shared(group) if len(group) > 1 else ():
            for one in claim.holders if len(set(map(identity_of, claim.holders))) > 1 else ():
                found.setdefault(one.uid, []).append(claim)
    return {uid: tuple(claims) for uid, claims in found.items()}


def told(claims: Iterable[Claim], of: Mapped) -> str:
    """Return what is ambiguous, and what to do about it."""
    shared = list(claims)
    parts = []
    for claim in shared[:_SHOWN]:
        names = claim.others(of)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{claim.what} is claimed by {', '.join(names[:_SHOWN])}{more}, too")
    rest = f"; and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
    return f"{'; '.join(parts)}{rest}: give one of them a higher spec.priority, or name it in one of them only"


def _shared(group: Sequence[Mapped]) -> Iterator[Claim]:
    """Yield what several mappings of one scope and priority claim."""
    variables: dict[str, _Holders] = {}
    patterns: dict[str, _Holders] = {}
    accounts: dict[str, _Holders] = {}
    secrets: dict[str, dict[str, _Holders]] = {}
    for one in group:
        given: Any = one.value
        evidence = given.spec.evidence
        for item in evidence.env:
            _add(variables if item.name else patterns, item.name or item.pattern, one)
        for account in evidence.service_accounts:
            _add(accounts, f"{account.namespace or one.namespace}/{account.name}", one)
        for secret in evidence.secrets:
            keys = secrets.setdefault(f"{secret.namespace or one.namespace}/{secret.name}", {})
            for key in secret.keys or ("",):
                _add(keys, key, one)
    for name, matching in _matching(list(patterns), variables).items():
        for pattern in matching:
            for one in patterns[pattern].values():
                _add(variables, name, one)
    yield from _several("variable ", variables)
    yield from _several("the variables of pattern ", patterns)
    yield from _several("ServiceAccount ", accounts)
    for name, keys in secrets.items():
        whole = keys.pop("", {})  # whoever names no key claims each of them
        yield from _several(f"Secret {name} with key ", {key: keys[key] | whole for key in keys})
        yield from _several("Secret ", {name: whole})


def _matching(patterns: Sequence[str], names: Iterable[str]) -> dict[str, list[str]]:
    """Return which patterns each name matches, all of them tried in one pass."""
    if not patterns:
        return {}
    together = re2.Set.FullMatchSet()
    for pattern in patterns:
        together.Add(pattern)
    together.Compile()
    return {name: [patterns[index] for index in together.Match(name) or ()] for name in names}


def _several(what: str, claimed: Mapping[str, _Holders]) -> Iterator[Claim]:
    for name, holders in claimed.items():
        if len(holders) > 1:
            yield Claim(f"{what}{name}", tuple(sorted(holders.values(), key=_name)))


def _add(claimed: dict[str, _Holders], name: str, one: Mapped) -> None:
    claimed.setdefault(name, {})[one.uid] = one


def _name(one: Mapped) -> str:
    return f"{one.namespace}/{one.name}" if one.namespace else one.name
