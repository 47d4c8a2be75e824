"""Throughput and memory, as ratios within one run: what `make bench` starts.

Out: a table on standard output, and with `--json FILE` every single measurement. Each round runs every contender once,
a ratio is taken inside its round, and what is printed is the median of the rounds with the smallest and the largest:
a machine's speed drifts by half within minutes, and only neighbours can be compared.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TextIO

HERE = Path(__file__).parent
RECORDING = HERE.parent.parent / "collector/src/keytrail/testing/recordings/policy-library"
REFERENCE = "grpcio"
LABELS = {
    "raw": "socket read, nothing looked at",
    "grpcio": "(a) grpcio's plain iterator, receive only",
    "receive": "(b) receive",
    "receive_grpcio": "(b) with grpcio reading",
    "decode": "(c) receive and decode",
    "whole": "(d) whole path, no output",
    "whole_grpcio": "(d) with grpcio reading",
    "export": "(e) whole path, all sent as OTLP",
}
PROCESSES = 75_000
TOLERANCE = 0.05
RULES_TO_DECODE = 0.6
"""What the rules may cost of what decode does, on the median event."""
_PATIENCE = 300
Round = dict[str, dict[str, float]]


class Cores:
    """Which core the contenders run on, and which one everybody else; the same one where there is no other."""

    def __init__(self) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.client, self.others = usable[0], usable[-1]

    def __str__(self) -> str:
        if self.client == self.others:
            return "one core for all: the sender takes part of what the contenders have"
        return f"contenders on core {self.client}, sender and receiver on core {self.others}"


class Peer:
    """A process that answers in JSON lines and ends with its standard input."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "peers.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self.answer()

    def answer(self) -> dict[str, Any]:
        """Return the next line."""
        answer: dict[str, Any] = json.loads(_pipe(self._process.stdout).readline())
        return answer

    def ask(self) -> dict[str, Any]:
        """Write a line and return the answer."""
        _pipe(self._process.stdin).write("\n")
        _pipe(self._process.stdin).flush()
        return self.answer()

    def stop(self) -> None:
        """End it and wait."""
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()


def _pipe(pipe: Any) -> TextIO:
    opened: TextIO = pipe
    return opened


@contextmanager
def peers(corpus: str, events: int, cores: Cores) -> Iterator[tuple[Peer, Peer]]:
    """Start the sender and the receiver; stop them at the end."""
    on = ("--core", str(cores.others))
    sender = Peer("send", "--corpus", corpus, "--events", str(events), "--processes", str(PROCESSES), *on)
    try:
        receiver = Peer("receive", *on)
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
        command = [
            *(sys.executable, str(HERE / "contenders.py"), name, "--events", str(events), "--core", str(cores.client)),
            *("--socket", sender.address["socket"], "--otlp", receiver.address["otlp"]),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_PATIENCE)
        took, cost = json.loads(done.stdout), sender.answer()
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
    names = list(LABELS)
    with peers(corpus, events, cores) as (sender, receiver):
        size = sender.address["bytes"] / events
        print(f"\n{Path(corpus).name} stream: {events:,} events of {size:,.0f} bytes on average, {rounds} rounds")
        found = [one_round(names, events, cores, sender, receiver) for _ in range(rounds)]
    columns = f"{'events/s':>10}{'CPU s/M':>9}{'peak MB':>9}{'rate / (a) (min-max)':>28}{'CPU / (a)':>11}{'sender':>8}"
    print(f"  {'':42}{columns}")
    for name in names:
        print(_row(name, found))
    return found


def _row(name: str, found: list[Round]) -> str:
    def all_of(measure: str) -> list[float]:
        return [one[name][measure] for one in found]

    def ratios(measure: str) -> list[float]:
        return [one[name][measure] / one[REFERENCE][measure] for one in found]

    rate, cpu = ratios("events_per_second"), ratios("cpu_us_per_event")
    spread = f"{median(rate):.2f} ({min(rate):.2f}-{max(rate):.2f})"
    return (
        f"  {LABELS[name]:42}{median(all_of('events_per_second')):>10,.0f}{median(all_of('cpu_us_per_event')):>9.1f}"
        f"{median(all_of('peak_mb')):>9.0f}{spread:>28}{median(cpu):>11.2f}{median(all_of('sender_busy')):>8.0%}"
    )


def verdicts(found: list[Round]) -> None:
    """Say whether the whole path is as fast as receiving alone with grpcio."""
    for name in ("whole", "export"):
        times = median(one[name]["events_per_second"] / one[REFERENCE]["events_per_second"] for one in found)
        print(f"  {LABELS[name]}: {'at least as fast as' if times >= 1 else 'SLOWER than'} (a), {times:.2f} times")


def stages(events: int, cores: Cores) -> dict[str, float]:
    """Print what each stage costs by itself."""
    command = [sys.executable, str(HERE / "stages.py"), "--events", str(events), "--processes", str(PROCESSES)]
    command += ["--core", str(cores.client)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_PATIENCE)
    found: dict[str, float] = json.loads(done.stdout)
    costs = ", ".join(f"{name} {cost:.1f}" for name, cost in found.items())
    print(f"\n(f) stages alone, synthetic stream, us of CPU an event: {costs}")
    return found


def detection(events: int, passes: int, cores: Cores) -> dict[str, Any]:
    """Print what the stable rules cost beside decode, for each stream."""
    command = [sys.executable, str(HERE / "detect.py"), "--events", str(events), "--processes", str(PROCESSES)]
    command += ["--passes", str(passes), "--core", str(cores.client)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_PATIENCE)
    found: dict[str, Any] = json.loads(done.stdout)
    print("\n(g) all stable rules beside decode, us of the median event")
    for stream, cost in found.items():
        within = f"{'within' if cost['ratio'] <= RULES_TO_DECODE else 'NOT within'} {RULES_TO_DECODE}"
        print(
            f"  {stream:42}{cost['decode']:>6.1f} decode{cost['detect']:>6.1f} detect{cost['ratio']:>6.2f} times, "
            f"{within}; of the sums {cost['ratio_of_sums']:.2f}"
        )
    return found


def memory(events: int, processes: int, cores: Cores, *, encode: bool) -> dict[str, Any]:
    """Print and return the deciding process's memory after a fifth of the events and after all of them."""
    marks = [events // 5, events]
    script, share = str(HERE / "memory.py"), ["--events", str(events), "--processes", str(processes)]
    feeding = subprocess.Popen(
        [sys.executable, script, "feed", *share, "--core", str(cores.others)], stdout=subprocess.PIPE
    )
    command = [sys.executable, script, "decide", "--marks", *map(str, marks), "--core", str(cores.client)]
    command += ["--encode"] if encode else []
    try:
        done = subprocess.run(command, check=True, stdin=feeding.stdout, stdout=subprocess.PIPE, timeout=_PATIENCE)
    finally:
        feeding.kill()
        feeding.wait()
        _pipe(feeding.stdout).close()
    found: dict[str, Any] = json.loads(done.stdout)
    before, after = (found["resident"][str(mark)] for mark in marks)
    found["growth"] = after / before - 1
    holds = found["received"] == events and abs(found["growth"]) <= TOLERANCE
    print(
        f"\nmemory of the deciding process, {processes:,} exec ids: {before / 1e6:.1f} MB after {marks[0]:,} events, "
        f"{after / 1e6:.1f} MB after {marks[1]:,} ({found['growth']:+.1%}): "
        f"{'within' if holds else 'NOT within'} {TOLERANCE:.0%}"
    )
    found["holds"] = holds
    return found


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each corpus (default 3)")
    parser.add_argument("--events", type=int, default=40_000, help="for each contender and round (default 40000)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--memory-events", type=int, default=1_000_000, help="0 leaves the memory check out")
    parser.add_argument("--memory-processes", type=int, default=100_000, help="exec ids among them (default 100000)")
    parser.add_argument("--memory-encode", action="store_true", help="make OTLP records in the memory check, too")
    parser.add_argument("--only-synthetic", action="store_true", help="leave the recorded stream out")
    parser.add_argument("--only-memory", action="store_true", help="nothing but the memory check")
    return parser.parse_args()


def main() -> int:
    """Measure, print; 1 when memory grew."""
    args, cores = options(), Cores()
    found: dict[str, Any] = {"cores": str(cores), "python": sys.version.split()[0]}
    print(f"{cores}; Python {found['python']}")
    if not args.only_memory:
        found["synthetic"] = throughput("synthetic", args.events, args.rounds, cores)
        verdicts(found["synthetic"])
    if not args.only_memory and not args.only_synthetic:
        rounds = max(1, args.rounds // 2)
        found["recorded"] = throughput(str(RECORDING), args.events // 2, rounds, cores)
        verdicts(found["recorded"])
    if not args.only_memory:
        found["stages"] = stages(min(args.events, 10_000), cores)
        found["detect"] = detection(min(args.events, 10_000), args.rounds, cores)
    if args.memory_events:
        found["memory"] = memory(args.memory_events, args.memory_processes, cores, encode=args.memory_encode)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found.get("memory", {}).get("holds", True) else 1


if __name__ == "__main__":
    sys.exit(main())
