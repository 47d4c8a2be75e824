"""The TracingPolicies that rules wait for: `keytrail policies needed`, for hosts without an operator that loads them.

In flow the settings and the agent's list; out flow a table and the command that loads what is missing. Policies count
by their names: one of the user's own may make the same events under another. Talks to no agent.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keytrail.commands.terminal import printable, say, table

if TYPE_CHECKING:
    from keytrail.settings import Settings
    from keytrail.source.agent import PolicyStatus
    from keytrail.tracing import Policy


def show(settings: "Settings", there: "Iterable[PolicyStatus]", version: str) -> int:
    """Print them, and what to type to an agent of this version; exit code 1 when one is not loaded."""
    from keytrail.diagnosis import version_of
    from keytrail.tracing import sensors
    from keytrail.tracing.policy import COSTS

    waiting = _rules(settings)
    shipped = sorted(sensors().items(), key=lambda each: COSTS.index(each[1].cost))
    needed = {name: policy for name, policy in shipped if name in waiting}
    states = {_sensor(one.name): one.state for one in there}
    rows = [("POLICY", "STATE", "COST", "TETRAGON", "RULES")]
    for name, policy in needed.items():
        state = printable(states.get(name, "not loaded"))
        rows.append((name, state, policy.cost, policy.agent, str(waiting[name])))
    table(rows)
    missing = {name: policy for name, policy in needed.items() if name not in states}
    too_new = [name for name, policy in missing.items() if (0, 0) < version_of(version) < version_of(policy.agent)]
    unset = [name for name, policy in missing.items() if _wants_values(policy)]
    ready = [name for name in missing if name not in (*too_new, *unset)]
    if ready:
        say(f"to load what is missing: keytrail policies load {' '.join(ready)}")
    if too_new:
        say(f"need a newer Tetragon than {printable(version)}: {', '.join(too_new)}")
    for name in unset:
        say(f"{name} means nothing without values of yours: docs/policies.md#{name}")
    return 1 if missing else 0


def _rules(settings: "Settings") -> Counter[str]:
    """How many of the rules that run wait for each policy."""
    from keytrail.configuration import given_manifests
    from keytrail.ruleset import build_rules

    running = build_rules(settings, given_manifests(settings)).rules
    return Counter(name for one in running for name in one.rule.spec.requires)


def _sensor(name: str) -> str:
    """`tcp-connect` of an agent's policy of that name, and of the operator's keytrail-tcp-connect-HASH."""
    from keytrail.tracing.render import NAME_PREFIX

    return name.removeprefix(NAME_PREFIX).rpartition("-")[0] if name.startswith(NAME_PREFIX) else name


def _wants_values(policy: "Policy") -> bool:
    return any(parameter.required for parameter in policy.parameters.values())
