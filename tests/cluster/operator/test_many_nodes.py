"""A thousand collectors' statuses: what they cost the operator, and how that grows from a hundred."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.operator.agents import Agents
from cluster.operator.release import SECONDS, Release
from support.processes import wait_until

pytestmark = [
    pytest.mark.cluster("kubernetes", "kwok", "helm"),
    pytest.mark.long,
    pytest.mark.timeout(900),
]

MOST_BYTES = 512 << 20
"""The chart's memory limit."""

NOW = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
USE: dict[str, Any] = {
    "identities": [
        {"id": f"identity-{n}", "lastUsed": NOW, "workloads": [f"ns-{n}/Deployment/app-{m}" for m in range(3)]}
        for n in range(20)
    ],
    "rules": [{"name": f"rule-{n}", "findings24h": n} for n in range(10)],
}
"""What a collector on a busy node tells beside its policies."""


def figures(release: Release) -> dict[str, float]:
    """Memory and CPU time of the operator, and what it asked for."""
    found = release.metrics()
    assert release.process is not None
    process = release.process._process
    assert process is not None
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    return {
        "memory": found["keytrail_operator_memory_bytes"],
        "peak": float(peak),
        "cpu": found["keytrail_operator_cpu_time_seconds_total"],
        "runs": found["keytrail_operator_runs_total"],
        "run time": found["keytrail_operator_run_time_seconds_total"],
        "requests": found["keytrail_operator_requests_total"],
        "writes": float(len(release.writes())),
    }


def report(agents: Agents, nodes: Iterable[str], policies: Iterable[str]) -> None:
    """Have collectors write their statuses, eight at a time."""
    names = sorted(policies)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda node: agents.report(node, names, **USE), nodes))


def test_a_thousand_nodes(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """100, then 1,000 nodes: all are counted, memory stays below the chart's limit, heartbeats cause no write."""
    release.install_tetragon()
    agents = Agents(release.admin, [f"n{number:04}" for number in range(1000)])
    release.start()
    release.wait(
        lambda: len(release.library().get("status", {}).get("policies", ())) == len(release.policies()) > 15, "policies"
    )
    names = release.policies()
    lines = []
    for count in (100, 1000):
        known = len(agents._said)
        added = agents.names[known:count]
        Agents(release.admin, added).make_nodes(lambda n, at=known: f"10.{128 + (n + at) // 256}.{(n + at) % 256}.0/24")
        before, began = figures(release), time.monotonic()
        report(agents, added, names)
        agents._said.update(dict.fromkeys(added, True))
        # Figures alone are written once a minute.
        assert wait_until(partial(all_told, release, count), 3 * SECONDS), counted(release)
        lines.append(line(f"{count} nodes reported first", before, figures(release), time.monotonic() - began))
        before, began = figures(release), time.monotonic()
        report(agents, agents.names[:count], names)
        runs = before["runs"]
        release.wait(lambda runs=runs: release.metrics()["keytrail_operator_runs_total"] > runs, "it looks")
        after = figures(release)
        lines.append(line(f"{count} heartbeats", before, after, time.monotonic() - began))
        assert after["writes"] == before["writes"]
        assert after["peak"] < MOST_BYTES
    with capsys.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201 - the figures are for the reader


def all_told(release: Release, count: int) -> bool:
    """Whether the library's whole status is about so many nodes."""
    return counted(release) == {count} and release.condition("TetragonInstalled")[2].startswith(f"{count} ")


def counted(release: Release) -> set[Any]:
    """How many nodes have each policy, as the library says."""
    return {one["nodesLoaded"] for one in release.library().get("status", {}).get("policies", ())}


def line(what: str, before: dict[str, float], after: dict[str, float], seconds: float) -> str:
    """One line of figures."""
    spent = {name: after[name] - before[name] for name in ("cpu", "runs", "run time", "requests", "writes")}
    memory = f"{after['memory'] / 2**20:.0f} MiB (peak {after['peak'] / 2**20:.0f})"
    rest = ", ".join(f"{name} {value:.3g}" for name, value in spent.items())
    return f"{what}: {seconds:.1f} s, memory {memory}, {rest}"
