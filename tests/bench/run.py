"""Throughput, latency, growth and memory, as ratios within one run where they can be: what `make bench` starts.

Out: a table on standard output, and with `--json FILE` every single measurement. Each round runs every contender once,
a ratio is taken inside its round, and what is printed is the median of the rounds with the smallest and the largest:
a machine's speed drifts by half within minutes, and only neighbours can be compared.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import growth
import latency
from peers import HERE, Cores, Peer, go_client, opened, run_script
from report import GROWTH, REFERENCE, put_into, table

RECORDING = HERE.parent.parent / "collector/src/keytrail/testing/recordings/policy-library"
LABELS = {
    "raw": "socket read, nothing looked at",
    "grpcio": "(a) grpcio's plain iterator, receive only",
    "receive": "(b) receive",
    "receive_grpcio": "(b) with grpcio reading",
    "decode": "(c) receive and decode",
    "whole": "(d) whole path, no output",
    "findings": "(d) findings only, all stable rules",
    "whole_grpcio": "(d) with grpcio reading",
    "export": "(e) whole path, all sent as OTLP",
}
IN_GO = {
    "go_parse": "grpc-go and protobuf-go, receive and parse",
    "go_print": "the same, each event printed as JSON",
}
"""Peers: where the components of the cluster tests are built, they run beside ours."""
PROCESSES = 75_000
SECTIONS = ("synthetic", "recorded", "stages", "detect", "latency", "growth", "memory")
_LONG_RUN_IDS = 10_000_000
Round = dict[str, dict[str, float]]


@contextmanager
def peers(corpus: str, events: int, cores: Cores) -> Iterator[tuple[Peer, Peer]]:
    """Start the sender and the receiver; stop them at the end."""
    on = ("--core", str(cores.others))
    sender = Peer("peers.py", "send", "--corpus", corpus, "--events", str(events), "--processes", str(PROCESSES), *on)
    try:
        receiver = Peer("peers.py", "receive", *on)
        try:
            yield sender, receiver
        finally:
            receiver.stop()
    finally:
        sender.stop()


def one_round(names: list[str], events: int, cores: Cores, sender: Peer, receiver: Peer) -> Round:
    """Run every contender once."""
    found: Round = {}
    for name in names:
        took = run_script(
            *("contenders.py", name, "--events", str(events), "--core", str(cores.client)),
            *("--socket", sender.address["socket"], "--otlp", receiver.address["otlp"], "--go-client", go_client()),
        )
        if name in IN_GO and took["events"] != events:
            raise SystemExit(f"{name}: {took['events']} of {events} events")
        cost = sender.answer()
        counted = receiver.ask()
        if counted["records"] != took["records"]:
            raise SystemExit(f"{name}: {took['records']} records were acknowledged, {counted['records']} arrived")
        found[name] = {
            "events_per_second": took["events"] / took["seconds"],
            "cpu_us_per_event": took["cpu"] / took["events"] * 1e6,
            "peak_mb": took["peak_mb"],
            "sender_busy": cost["cpu"] / cost["seconds"],
            "receiver_cpu_us_per_event": counted["cpu"] / events * 1e6,
        }
    return found


def throughput(corpus: str, events: int, rounds: int, cores: Cores) -> list[Round]:
    """Measure and print one corpus: `synthetic`, or the folder of a recording."""
    labels = LABELS | IN_GO if go_client() else LABELS
    names = list(labels)
    with peers(corpus, events, cores) as (sender, receiver):
        size = sender.address["bytes"] / events
        print(f"\n{Path(corpus).name} stream: {events:,} events of {size:,.0f} bytes on average, {rounds} rounds")
        found = [one_round(names, events, cores, sender, receiver) for _ in range(rounds)]
    columns = f"{'events/s':>10}{'CPU s/M':>9}{'peak MB':>9}{'rate / (a) (min-max)':>28}{'CPU / (a)':>11}{'sender':>8}"
    print(f"  {'':42}{columns}")
    for name in names:
        print(_row(name, labels[name], found))
    if not go_client():
        print("  (a client in Go was not measured: `make test-cluster` builds it, where there is Go)")
    return found


def _row(name: str, label: str, found: list[Round]) -> str:
    def all_of(measure: str) -> list[float]:
        return [one[name][measure] for one in found]

    def ratios(measure: str) -> list[float]:
        return [one[name][measure] / one[REFERENCE][measure] for one in found]

    rate, cpu = ratios("events_per_second"), ratios("cpu_us_per_event")
    spread = f"{median(rate):.2f} ({min(rate):.2f}-{max(rate):.2f})"
    return (
        f"  {label:42}{median(all_of('events_per_second')):>10,.0f}{median(all_of('cpu_us_per_event')):>9.1f}"
        f"{median(all_of('peak_mb')):>9.0f}{spread:>28}{median(cpu):>11.2f}{median(all_of('sender_busy')):>8.0%}"
    )


def stages(events: int, cores: Cores) -> dict[str, float]:
    """Print what each stage costs by itself."""
    share = ("--events", str(events), "--processes", str(PROCESSES))
    found: dict[str, float] = run_script("stages.py", *share, "--core", str(cores.client))
    costs = ", ".join(f"{name} {cost:.1f}" for name, cost in found.items())
    print(f"\n(f) stages alone, synthetic stream, us of CPU an event: {costs}")
    return found


def detection(events: int, passes: int, cores: Cores) -> dict[str, Any]:
    """Print what the stable rules cost beside decode, for each stream."""
    share = ("--events", str(events), "--processes", str(PROCESSES))
    found = run_script("detect.py", *share, "--passes", str(passes), "--core", str(cores.client))
    print("\n(g) all stable rules beside decode, us of the median event")
    for stream, cost in found.items():
        print(
            f"  {stream:42}{cost['decode']:>6.1f} decode{cost['detect']:>6.1f} detect{cost['ratio']:>6.2f} times; "
            f"of the sums {cost['ratio_of_sums']:.2f}"
        )
    return found


def memory(events: int, processes: int, cores: Cores, *, encode: bool) -> dict[str, Any]:
    """Print and return the deciding process's memory after a fifth of the events and after all of them."""
    marks, share = [events // 5, events], ["--events", str(events), "--processes", str(processes)]
    feed = [sys.executable, str(HERE / "memory.py"), "feed", *share, "--core", str(cores.others)]
    feeding = subprocess.Popen(feed, stdout=subprocess.PIPE)
    command = ["decide", "--marks", *map(str, marks), "--core", str(cores.client), *(["--encode"] if encode else [])]
    try:
        found = run_script("memory.py", *command, stdin=feeding.stdout)
    finally:
        feeding.kill()
        feeding.wait()
        opened(feeding.stdout).close()
    before, after = (found["resident"][str(mark)] for mark in marks)
    found["growth"] = after / before - 1
    holds = found["received"] == events and abs(found["growth"]) <= GROWTH
    print(
        f"\nmemory of the deciding process, {processes:,} exec ids: {before / 1e6:.1f} MB after {marks[0]:,} events, "
        f"{after / 1e6:.1f} MB after {marks[1]:,} ({found['growth']:+.1%}): "
        f"{'within' if holds else 'NOT within'} {GROWTH:.0%}"
    )
    found["holds"] = holds
    return found


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each corpus (default 3)")
    parser.add_argument("--events", type=int, default=100_000, help="for each contender and round (default 100000)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--write", type=Path, help="put the output into this page, between its marks")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="measure nothing else")
    parser.add_argument("--paced-seconds", type=float, default=5, help="of each pace in `latency` (default 5)")
    parser.add_argument("--halvings", type=int, default=5, help="in the search for the highest pace; 0: no search")
    parser.add_argument("--growth-events", type=int, default=2_000, help="in each pass of `growth` (default 2000)")
    parser.add_argument("--growth-passes", type=int, default=21, help="of each size (default 21)")
    parser.add_argument("--growth-ids", type=int, default=200_000, help="processes in its stream; 0 leaves that out")
    parser.add_argument(
        "--long-run", action="store_true", help=f"{_LONG_RUN_IDS:,} processes there: half an hour and more"
    )
    parser.add_argument("--memory-events", type=int, default=1_000_000, help="0 leaves the memory check out")
    parser.add_argument("--memory-processes", type=int, default=100_000, help="exec ids among them (default 100000)")
    parser.add_argument("--memory-encode", action="store_true", help="make OTLP records in the memory check, too")
    parser.add_argument("--only-synthetic", action="store_true", help="leave the recorded stream out")
    parser.add_argument("--only-memory", action="store_true", help="nothing but the memory check")
    return parser.parse_args()


def wanted(args: argparse.Namespace) -> set[str]:
    """Return the sections to measure."""
    sections = {"memory"} if args.only_memory else set(args.only)
    if args.only_synthetic:
        sections.discard("recorded")
    if not args.memory_events:
        sections.discard("memory")
    return sections


def measured(args: argparse.Namespace, cores: Cores) -> dict[str, Any]:
    """Measure and print section by section."""
    sections, found = wanted(args), dict[str, Any]()
    if "synthetic" in sections:
        found["synthetic"] = throughput("synthetic", args.events, args.rounds, cores)
    if "recorded" in sections:
        found["recorded"] = throughput(str(RECORDING), args.events, max(1, args.rounds // 2), cores)
    if "stages" in sections:
        found["stages"] = stages(min(args.events, 10_000), cores)
    if "detect" in sections:
        found["detect"] = detection(min(args.events, 10_000), args.rounds, cores)
    if "latency" in sections:
        found["latency"] = latency.measure(args.paced_seconds, args.halvings, cores)
    if "growth" in sections:
        ids = _LONG_RUN_IDS if args.long_run else args.growth_ids
        found["growth"] = growth.measure(args.growth_events, args.growth_passes, ids, cores)
    if "memory" in sections:
        found["memory"] = memory(args.memory_events, args.memory_processes, cores, encode=args.memory_encode)
    return found


class _Twice:
    """Standard output that also remembers."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        """Print and remember."""
        self.text += text
        return opened(sys.__stdout__).write(text)

    def flush(self) -> None:
        """Print now."""
        opened(sys.__stdout__).flush()


def main() -> int:
    """Measure, print; 1 when memory grew."""
    args, cores = options(), Cores()
    python = sys.version.split()[0]
    with redirect_stdout(_Twice()) as output:
        print(f"{cores}; Python {python}")
        found = {"cores": str(cores), "python": python, **measured(args, cores)}
        print(table(found))
    if args.write is not None:
        put_into(args.write, output.text)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    stays = (found.get("memory", {}), found.get("growth", {}).get("stream", {}))
    return 0 if all(one.get("holds", True) for one in stays) else 1


if __name__ == "__main__":
    sys.exit(main())
