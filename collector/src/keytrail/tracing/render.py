"""A shipped policy and its user's choices in, the manifest that an agent or the API server takes out.

Pure, so that the operator, the command line and a test render the same. An object's name may carry a hash of its spec:
an agent unloads and reloads a policy on any change of it and keeps nothing if the reload fails, so the operator never
changes one; it makes the next beside it and then deletes the first.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from keytrail.domain.errors import ManifestError, Problem
from keytrail.tracing.inspection import hooks_in
from keytrail.tracing.matching import NUMBERS, SOCKETS, is_rate_limit
from keytrail.tracing.parameters import ANNOTATION, given_problems, placed
from keytrail.tracing.policy import Policy

NAME_PREFIX = "keytrail-"
_HASH_CHARS = 10
"""40 bits: two specs of one policy meet by chance once in a million million."""
_COUNTED_IN_FULL = NUMBERS | SOCKETS | {"nop", "capability", "cap_inheritable", "cap_permitted", "cap_effective"}
"""Types that fit into the 40 bytes of an argument by which the agent tells repeats."""


def rendered(
    policy: Policy,
    parameters: Mapping[str, Any] | None = None,
    *,
    rate_limit: str = "",
    pod_selector: Mapping[str, Any] | None = None,
    hashed_name: bool = False,
    origin: str = "<parameters>",
) -> dict[str, Any]:
    """Return the manifest as plain data.

    `rate_limit` (30s, 5m, 1h) puts one on every selector, `pod_selector` is the resource's own, `hashed_name` names the
    object after its spec. Raises ManifestError with all that is wrong; `origin` says there where the values stand.
    """
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    problems = given_problems(policy.name, policy.parameters, given, origin)
    if rate_limit:
        problems += [Problem(origin, 0, "rateLimit", message) for message in _limit_problems(policy, rate_limit)]
    if pod_selector is not None and policy.data["spec"].get("loader"):
        problems.append(Problem(origin, 0, "podSelector", f"{policy.name} cannot be limited to some processes"))
    if problems:
        raise ManifestError(problems)
    made = placed(policy.data, policy.parameters, given)
    made["metadata"]["annotations"].pop(ANNOTATION, None)
    if rate_limit:
        _limit(made, rate_limit)
    if pod_selector is not None:
        made["spec"]["podSelector"] = copy.deepcopy(dict(pod_selector))
    if hashed_name:
        made["metadata"]["name"] = unique_name(policy.name, made["spec"])
    return made


def unique_name(name: str, spec: Mapping[str, Any]) -> str:
    """`tcp-connect` -> `keytrail-tcp-connect-0123456789`: the same spec always gets the same name."""
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{NAME_PREFIX}{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:_HASH_CHARS]}"


def _limit_problems(policy: Policy, rate_limit: str) -> list[str]:
    """Say why a rate limit would be wrong.

    The agent takes two calls for repeats when the first 40 bytes of each argument are equal. Two files below a long
    folder are then one, and so are a refused call and the granted one behind it, or two connections to one listener,
    whose difference is in what the function returns: the second, the one that mattered, would not be reported.
    """
    if not is_rate_limit(rate_limit):
        return [f"expected a time such as 30s, 5m or 1h, found {rate_limit!r}"]
    if policy.data["spec"].get("loader"):
        return [f"{policy.name} has no hook that takes one"]
    blinded = sorted({str(hook["call"]) for _, _, hook in hooks_in(policy.data) if _blinded(hook)})
    reason = "the agent compares 40 bytes of each argument and nothing of the result, so different calls would be one"
    return [f"{policy.name} takes none ({', '.join(blinded)}): {reason}"] if blinded else []


def _blinded(hook: Mapping[str, Any]) -> bool:
    long = any(arg["type"] not in _COUNTED_IN_FULL for arg in hook.get("args", []))
    return long or bool(hook.get("return"))


def _limit(made: dict[str, Any], rate_limit: str) -> None:
    for _, _, hook in hooks_in(made):
        selectors: Sequence[dict[str, Any]] = hook.get("selectors") or [{}]
        for selector in selectors:
            selector["matchActions"] = [{"action": "Post", "rateLimit": rate_limit}]
        hook["selectors"] = selectors  # type: ignore[index] # `made` is a copy of our own, to be changed
