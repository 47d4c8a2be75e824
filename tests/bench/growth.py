"""What an event costs as a node and its configuration grow, and whether memory stays where it is.

In: the name of what grows, or events on standard input from `memory.py feed`. Out: as JSON, for each size microseconds
of the deciding thread's CPU an event, pass by pass; or memory and cost after each fifth of the stream. All sizes take
the same events in turn in one process, so that their ratios are of neighbours; the path is the collector's own, with
all stable rules and findings that nobody keeps.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

from contenders import Forget
from memory import resident
from peak import peak
from peers import HERE, Cores, opened, run_script
from report import GROWTH, PEAK_MB
from synthetic import events

from keytrail.app import Collector, freeze_heap
from keytrail.domain.objects import Resource
from keytrail.domain.pod_facts import CONTAINER_ID_DIGITS, ContainerFacts, PodFacts
from keytrail.domain.resources import API_VERSION, KINDS
from keytrail.domain.shape import read
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.index import PodIndex
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Pipeline
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from keytrail.source.stdin import StdinSource

LABELS = {
    "processes": "processes seen before",
    "rules": "rules of other kinds of events",
    "mappings": "identity mappings",
    "pods": "pods on the node",
}
SIZES = {
    "processes": (1_000, 32_000, 200_000),
    "rules": (0, 130),
    "mappings": (10, 100, 1_000),
    "pods": (10, 50, 250),
}
_OTHER_KINDS = ("file", "listen", "module", "mount", "privilege")
"""Kinds of events that do not occur in the stream."""
_FIRST_PID = 1_000
_TOGETHER = 256
_FAMILIAR = 2_000
"""Events before the first pass where it is not processes that grow."""
_FIFTHS = 5
_SECONDS_AN_EVENT = 0.0005
"""Far more than one takes: for how long the long run may go on."""
Prepare = Callable[[bytes], bytes]


class _NoSource:
    """A pipeline is given its batches here."""

    def batches(self) -> Iterator[Batch]:
        """Nothing comes by itself."""
        return iter(())

    def close(self) -> None:
        """Do nothing."""


def _pipeline(resources: tuple[Resource, ...] = (), pods: Sequence[PodFacts] = ()) -> Pipeline:
    enricher = None
    if pods:
        index = PodIndex()
        index.replace(pods)
        enricher = Enricher(index)
    outputs = Outputs(findings=(Forget(),))
    collector = Collector(
        Settings(), _NoSource(), outputs, Accounting(), live=True, enricher=enricher, applied=lambda: resources
    )
    return collector.pipeline


@dataclass
class Candidate:
    """A pipeline of one size."""

    size: int
    pipeline: Pipeline
    prepare: Prepare = bytes
    """What makes an event one of a node of that size; it is not measured."""
    costs: list[float] = field(default_factory=list)

    def take(self, messages: Iterable[bytes]) -> float:
        """Decide on events; microseconds of this thread's CPU for each."""
        made = [self.prepare(raw) for raw in messages]
        spent = 0
        for start in range(0, len(made), _TOGETHER):
            batch = Batch(made[start : start + _TOGETHER], 0)
            since = time.thread_time_ns()
            self.pipeline.process(batch)
            spent += time.thread_time_ns() - since
        return spent / 1e3 / max(1, len(made))


def candidates(what: str, sizes: Sequence[int]) -> list[Candidate]:
    """Make a pipeline for each size of what grows."""
    if what == "rules":
        return [Candidate(size, _pipeline(tuple(map(_rule, range(size))))) for size in sizes]
    if what == "mappings":
        return [Candidate(size, _pipeline(tuple(map(_mapping, range(size))))) for size in sizes]
    if what == "pods":
        return [Candidate(size, _pipeline(pods=list(map(_pod, range(size)))), _in_pod_of(size)) for size in sizes]
    return [Candidate(size, _pipeline()) for size in sizes]


def compare(what: str, sizes: Sequence[int], count: int, passes: int) -> list[dict[str, Any]]:
    """Measure all sizes of one thing in turn, with `count` new events in each pass."""
    ones = candidates(what, sizes)
    before = max(sizes) if what == "processes" else 0
    measured = (before * 2 or _FAMILIAR) + passes * count
    stream = events(measured, measured)
    if what == "processes":
        _show_processes(ones, islice(stream, 0, before * 2, 2))  # every second event is a start
    else:
        familiar = list(islice(stream, _FAMILIAR))
        for one in ones:
            one.take(familiar)
    freeze_heap()
    for _ in range(passes):
        messages = list(islice(stream, count))
        for one in ones:
            one.costs.append(one.take(messages))
    return [{"size": one.size, "us": one.costs} for one in ones]


def _show_processes(ones: Sequence[Candidate], starts: Iterator[bytes]) -> None:
    seen = 0
    while messages := list(islice(starts, _TOGETHER)):
        for one in ones:
            one.take(messages[: max(0, one.size - seen)])
        seen += len(messages)


# -- what a node of some size has


def _resource(kind: str, name: str, spec: dict[str, Any]) -> Resource:
    data = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    made, faults = read(KINDS[kind], data)
    if made is None:
        raise SystemExit(f"{name}: {faults}")
    return made


def _rule(number: int) -> Resource:
    kind = _OTHER_KINDS[number % len(_OTHER_KINDS)]
    spec = {
        "title": f"Rule {number} of the benchmark",
        "description": "Looks at events that do not come.",
        "severity": "low",
        "maturity": "stable",
        "events": [kind],
        "condition": f'process.name == "tool-{number}" && process.arguments.contains("--{number}")',
        "message": "{process.name} did it",
    }
    return _resource("DetectionRule", f"bench-{number}", spec)


def _mapping(number: int) -> Resource:
    spec = {
        "identity": {"kind": "api_key", "provider": "benchmark", "owner": "team"},
        "evidence": {
            "env": [{"name": f"SERVICE_{number}_TOKEN"}],
            "argv": [{"contains": f"service-{number}.internal"}],
            "secrets": [{"namespace": "shop", "name": f"service-{number}", "keys": ["token"]}],
            "files": [{"path": f"/run/secrets/service-{number}/*"}],
            "serverNames": [f"service-{number}.internal"],
        },
        "allowed": {"workloads": [{"namespace": "shop", "kind": "Deployment", "name": f"service-{number}"}]},
    }
    return _resource("ClusterIdentityMapping", f"bench-{number}", spec)


def _container_id(number: int) -> str:
    return f"{number + 1:0{CONTAINER_ID_DIGITS}x}".ljust(64, "0")


def _pod(number: int) -> PodFacts:
    app = ContainerFacts("app", (_container_id(number),), "registry.example/shop/app:1.4.2", state="running")
    name, uid = f"app-{number}", f"00000000-1e81-4077-ab26-{number:012d}"
    return PodFacts("shop", name, uid, labels={"app": name}, service_account="app", containers=(app,))


def _in_pod_of(size: int) -> Prepare:
    """Move each process to one of so many pods, always the same one."""

    def moved(raw: bytes) -> bytes:
        message = GetEventsResponse.FromString(raw)
        process = getattr(message, str(message.WhichOneof("event"))).process
        pod = _pod(number := (process.pid.value - _FIRST_PID) % size)
        container_id = _container_id(number)
        process.docker = container_id[:CONTAINER_ID_DIGITS]
        process.pod.name, process.pod.uid = pod.name, pod.uid
        process.pod.container.id = f"containerd://{container_id}"
        serialized: bytes = message.SerializeToString()
        return serialized

    return moved


# -- one long stream


def long_stream(count: int) -> dict[str, Any]:
    """Take so many events from standard input; memory and cost after each fifth of them."""
    pipeline = _pipeline()
    freeze_heap()
    fifths: list[dict[str, float]] = []
    seen, since = 0, (0, time.thread_time())
    for batch in StdinSource(sys.stdin.buffer).batches():
        pipeline.process(batch)
        seen += len(batch.messages)
        if seen >= (len(fifths) + 1) * count // _FIFTHS:
            events_before, cpu_before = since
            since = seen, time.thread_time()
            cost = (since[1] - cpu_before) / (seen - events_before) * 1e6
            fifths.append({"events": seen, "resident_mb": resident() / 1e6, "us": cost})
    return {"seen": seen, "fifths": fifths}


# -- the table


def measure(count: int, passes: int, ids: int, cores: Cores) -> dict[str, Any]:
    """Measure and print everything that grows; `ids` processes in the long stream, 0 leaves it out."""
    print(f"\n(i) the deciding thread's CPU an event, {passes} passes of {count:,} events in turn, all stable rules")
    print(f"  {'':42}{'size':>9}{'us':>8}{'to the first (min-max)':>26}")
    found: dict[str, Any] = {}
    for what, sizes in SIZES.items():
        options = ("--events", str(count), "--passes", str(passes), "--core", str(cores.client))
        rows = run_script("growth.py", what, *options)["rows"]
        found[what] = rows
        for row, size in zip(rows, sizes, strict=True):
            ratios = [cost / first for cost, first in zip(row["us"], rows[0]["us"], strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(f"  {LABELS[what]:42}{size:>9,}{median(row['us']):>8.1f}{spread:>26}")
    if ids:
        found["stream"] = {**_stream(ids, cores), "peaks": [_peak(cores, output) for output in ("findings", "otlp")]}
    return found


def _stream(ids: int, cores: Cores) -> dict[str, Any]:
    count = ids * 2  # a start and a connection for each
    feed = [str(HERE / "memory.py"), "feed", "--events", str(count), "--processes", str(ids)]
    feeding = subprocess.Popen([sys.executable, *feed, "--core", str(cores.others)], stdout=subprocess.PIPE)
    try:
        found = run_script(
            "growth.py",
            *("stream", "--events", str(count), "--core", str(cores.client)),
            patience=60 + count * _SECONDS_AN_EVENT,
            stdin=feeding.stdout,
        )
    finally:
        feeding.kill()
        feeding.wait()
        opened(feeding.stdout).close()
    first, last = found["fifths"][0], found["fifths"][-1]
    found["growth"] = last["resident_mb"] / first["resident_mb"] - 1
    capacity = Settings().process_capacity
    judged = ids // _FIFTHS >= capacity  # before, the table of processes was still filling
    found["holds"] = found["seen"] == count and (abs(found["growth"]) <= GROWTH or not judged)
    print(f"  one stream of {ids:,} exec ids, each new; {capacity:,} processes are remembered")
    for row in found["fifths"]:
        print(
            f"    after {row['events']:>12,} events{row['resident_mb']:>8.1f} MB resident{row['us']:>8.1f} us an event"
        )
    within = f"{'within' if found['holds'] else 'NOT within'} {GROWTH:.0%}" if judged else "too few to judge"
    print(f"    memory {found['growth']:+.1%}: {within}")
    return found


def _peak(cores: Cores, output: str) -> dict[str, Any]:
    found = peak(Settings().process_capacity, cores, output)
    aim = f"aim {PEAK_MB:g}: {'met' if found['peak_mb'] <= PEAK_MB else 'NOT met'}"
    print(f"  `keytrail collect --output {output}`: {found['idle_mb']:.1f} MB at most before the first event,")
    print(f"    {found['peak_mb']:.1f} MB with {found['processes']:,} processes, {aim}")
    return found


def main() -> None:
    """Measure one thing on one core, in a process whose heap may be frozen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=(*SIZES, "stream"))
    parser.add_argument("--events", type=int, required=True, help="in each pass, or in the stream")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--core", type=int, required=True, help="the only core to run on")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    if args.what == "stream":
        print(json.dumps(long_stream(args.events)))
    else:
        print(json.dumps({"rows": compare(args.what, SIZES[args.what], args.events, args.passes)}))


if __name__ == "__main__":
    main()
