"""The manifests that shall be in the cluster: sensors and their tuning in, TracingPolicies or what is wrong out.

Each is named after its sensor and a hash of its spec, so that the same choice is the same object and another choice is
another one. Pure; `rollout` brings the cluster there without unloading a hook that is wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from keytrail.domain.errors import ManifestError
from keytrail.domain.policy_library import NamespaceSelection, PolicyTuning
from keytrail.tracing import Policy, rendered
from keytrail.tracing.parameters import Parameter
from keytrail_operator.decoding import MANAGED_LABEL, MANAGER
from keytrail_operator.reconcile.ranges import Ranges
from keytrail_operator.world import Owner, TracingPolicy

CLUSTER_RANGES: Final = "clusterCIDRs"
"""The parameter that is filled in here when it is left out or `auto`."""
_AUTO: Final = "auto"
_NAMESPACE_LABEL: Final = "k8s:io.kubernetes.pod.namespace"
"""What the agent calls a Pod's namespace in a podSelector."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What shall be for one sensor."""

    sensor: str
    body: Mapping[str, Any] | None = field(hash=False, repr=False)
    """The manifest; None when there is none: then what is loaded stays."""
    reason: str = ""
    """Why there is none, in one word."""
    problem: str = ""
    """Why there is none, for a person."""

    @property
    def name(self) -> str:
        """Of the object; empty when there is none."""
        return "" if self.body is None else str(self.body["metadata"]["name"])


def wants_ranges(policy: Policy, tuning: PolicyTuning | None) -> bool:
    """Whether the cluster's ranges are to be filled in."""
    if CLUSTER_RANGES not in policy.parameters:
        return False
    return tuning is None or tuning.parameters.get(CLUSTER_RANGES, _AUTO) == _AUTO


def desired(
    policy: Policy,
    tuning: PolicyTuning | None,
    ranges: Ranges,
    more: Mapping[str, Sequence[str]],
    owner: Owner | None,
) -> Desired:
    """Return the manifest for one sensor. `more` are values for parameters that the user left alone."""
    given = {**more, **(dict(tuning.parameters) if tuning is not None else {})}
    if wants_ranges(policy, tuning):
        if not ranges.networks:
            return Desired(policy.name, None, ranges.reason, ranges.message)
        given[CLUSTER_RANGES] = ranges.networks
    try:
        made = rendered(
            policy,
            given,
            rate_limit=tuning.rate_limit if tuning is not None else "",
            pod_selector=_selector(tuning.namespaces) if tuning is not None else None,
            hashed_name=True,
            origin=f"policy {policy.name}",
        )
    except ManifestError as error:
        return Desired(policy.name, None, "InvalidParameter", "; ".join(map(str, error.problems)))
    made["metadata"]["labels"][MANAGED_LABEL] = MANAGER
    if owner is not None:
        made["metadata"]["ownerReferences"] = [owner.reference()]
    return Desired(policy.name, made)


def _selector(namespaces: NamespaceSelection | None) -> dict[str, Any] | None:
    if namespaces is None:
        return None
    chosen = (("In", namespaces.include), ("NotIn", namespaces.exclude))
    found = [{"key": _NAMESPACE_LABEL, "operator": how, "values": sorted(names)} for how, names in chosen if names]
    return {"matchExpressions": found} if found else None


def ranges_in(policy: Policy, found: TracingPolicy) -> tuple[str, ...]:
    """Return the ranges that a policy in the cluster was made with, without the forms that rendering adds."""
    parameter: Parameter = policy.parameters[CLUSTER_RANGES]
    *path, last = parameter.at[0]
    value: Any = found.spec
    for step in path[1:]:  # the first is `spec`
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return ()
    # The last step is negative where items of the shipped list stay before the parameter's: -1 - N.
    kept = -1 - last if isinstance(last, int) and last < 0 else 0
    items = value[kept:] if isinstance(value, list) else ()
    return tuple(str(one) for one in items if not str(one).startswith("::ffff:"))


def covers(spec: Any, stored: Any) -> bool:
    """Whether what is stored has all that was asked for. The API server adds defaults of Tetragon's own."""
    if isinstance(spec, dict):
        return isinstance(stored, dict) and all(
            name in stored and covers(value, stored[name]) for name, value in spec.items()
        )
    if isinstance(spec, list):
        return isinstance(stored, list) and len(spec) == len(stored) and all(map(covers, spec, stored))
    return bool(spec == stored)
