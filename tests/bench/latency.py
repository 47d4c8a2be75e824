"""How long an event waits for its decision at a steady pace, what that pace costs, and the pace at which none is lost.

In: the socket of the paced sender of `peers.py`, which says when each event came into its queue. Out: when each was
decided. Both are times of CLOCK_MONOTONIC, which all processes of a machine share, and the n-th event that came in is
the n-th that is decided, so that events carry no number. Run as a program this is the collector; `run.py` calls
`measure`, which starts one for each pace.
"""

import argparse
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peers import Cores, Pace, Peer, go_client, run_script, say
from report import CPU_CORES, CPU_PACE, LATENCY_MS, ZERO_DROP

from keytrail.app import Collector
from keytrail.domain.drop import DropReason
from keytrail.domain.finding import Finding
from keytrail.loss.guard import OFF, LossGuard
from keytrail.observe.accounting import Accounting
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.address import Address
from keytrail.source.grpc_stream import GrpcSource, State, Transition

DEFAULT_GATHER_MS = Settings().gather_ms
_BLOCK = 80_000
"""Events that are sent over and over. The processes of half of them are more than the collector remembers, so that
each of these starts is one of a process that it does not know."""
_WARM_UP_NS = 1_000_000_000
_BEHIND_MS = 500.0
"""A collector that decides on the last event later than this after it came was not keeping up."""
_BOUNDS, _HALVINGS = (5_000, 85_000), 5
"""Of the search for the highest pace: 2,500 events a second apart in the end."""


class _Decisions:
    """An output of findings. It is flushed when all events of a batch were looked at and their findings handed over."""

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting
        self.decided = array("q")
        """Events by the end of each batch."""
        self.at_ns = array("q")
        self.cpu_ns = array("q")

    def write(self, _finding: Finding) -> None:
        """It is on its way."""

    def flush(self) -> None:
        """Note the time."""
        decided = self._accounting.received - self._accounting.events_dropped(DropReason.QUEUE_FULL)
        if decided != (self.decided[-1] if self.decided else 0):
            self.decided.append(decided)
            self.at_ns.append(time.monotonic_ns())
            self.cpu_ns.append(time.process_time_ns())

    def close(self, _seconds: float) -> None:
        """Nothing waits."""


def decide(path: Path, gather_ms: int) -> None:
    """Run the collector as `keytrail collect` does, with all stable rules, until the stream has ended."""

    def on_transition(change: Transition) -> None:
        if change.state is State.AWAY:
            source.close()

    source = GrpcSource(Address(path=path), gather_seconds=gather_ms / 1000, on_transition=on_transition)
    accounting = Accounting()
    decisions = _Decisions(accounting)
    outputs = Outputs(findings=(decisions,))
    guard = LossGuard(inbox_dropped=lambda: accounting.events_dropped(DropReason.QUEUE_FULL), metrics_address=OFF)
    Collector(Settings(), source, outputs, accounting, live=True, guard=guard).run_live(threading.Event())
    summary = accounting.summary()
    say(
        decided=list(decisions.decided),
        at_ns=list(decisions.at_ns),
        cpu_ns=list(decisions.cpu_ns),
        received=summary["events"]["received"],
        dropped=sum(summary["events"]["dropped"].values()),
        undecodable=summary["events"]["undecodable"],
        matched=summary["records"]["made"],
    )


class Probe(NamedTuple):
    """What one pace did to the collector. Times are in milliseconds, None where an event was lost inside."""

    rate: int
    gather_ms: int
    p50: float | None
    p99: float | None
    longest: float | None
    cpu: float
    """Of a core."""
    lost: int
    """Events that found the agent's queue full."""
    dropped: int
    """Events that found the collector's own queue full."""
    deepest: int
    """Most events in the agent's queue."""
    behind_ms: float
    """From the last event's arrival to the last decision."""
    matched: float
    """Share of events that a rule matches; most of them repeat others and make no finding of their own."""
    sender_busy: float

    @property
    def nothing_lost(self) -> bool:
        """Whether every event was decided on."""
        return not self.lost and not self.dropped

    @property
    def keeps_up(self) -> bool:
        """Whether it could have gone on like this."""
        return self.nothing_lost and self.behind_ms < _BEHIND_MS


def probe(sender: Peer, pace: Pace, gather_ms: int, cores: Cores) -> Probe:
    """Run a collector against the sender at one pace."""
    sender.tell(**pace._asdict())
    command = ("--socket", sender.address["socket"], "--gather-ms", str(gather_ms), "--core", str(cores.client))
    took = run_script("latency.py", *command)
    sent = sender.answer()
    came, decided, at_ns = sent["came"], took["decided"], took["at_ns"]
    if took["undecodable"] or took["received"] != len(came):
        raise SystemExit(f"{len(came)} events were sent, {took['received']} arrived")
    warm = came[0] + min(_WARM_UP_NS, int(pace.seconds * 5e8))
    waits = [] if took["dropped"] else sorted(_waits(came, decided, at_ns, warm))
    shares = [waits[int(len(waits) * share)] if waits else None for share in (0.5, 0.99)]
    first = next(place for place, at in enumerate(at_ns) if at >= warm)
    return Probe(
        rate=pace.rate,
        gather_ms=gather_ms,
        p50=shares[0],
        p99=shares[1],
        longest=waits[-1] if waits else None,
        cpu=(took["cpu_ns"][-1] - took["cpu_ns"][first]) / max(1, at_ns[-1] - at_ns[first]),
        lost=sent["dropped"],
        dropped=took["dropped"],
        deepest=sent["deepest"],
        behind_ms=(at_ns[-1] - came[-1]) / 1e6,
        matched=took["matched"] / took["received"],
        sender_busy=sent["busy"],
    )


def _waits(came: list[int], decided: list[int], at_ns: list[int], warm: int) -> Iterator[float]:
    batch = 0
    for number, since in enumerate(came):
        while decided[batch] <= number:
            batch += 1
        if since >= warm:
            yield (at_ns[batch] - since) / 1e6


def highest(passes: Callable[[int], bool], low: int, high: int, halvings: int) -> int:
    """Return the highest pace between two that passes, by bisection; 0 when the lowest does not."""
    if not passes(low):
        return 0
    for _ in range(halvings):
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def measure(seconds: float, halvings: int, cores: Cores) -> dict[str, Any]:
    """Measure and print; `halvings` 0 leaves out the search for the pace at which nothing is lost."""
    sender = Peer("peers.py", "pace", "--events", str(_BLOCK), "--core", str(cores.others))
    probes: dict[int, Probe] = {}

    def at(rate: int) -> Probe:
        if rate not in probes:
            probes[rate] = probe(sender, Pace(rate, seconds), DEFAULT_GATHER_MS, cores)
        return probes[rate]

    try:
        rows = [
            probe(sender, Pace(rate, seconds), gather_ms, cores)
            for gather_ms in (DEFAULT_GATHER_MS, 0)
            for rate in sorted((*LATENCY_MS, CPU_PACE))
        ]
        _print_rows(rows, seconds)
        found: dict[str, Any] = {"rows": [row._asdict() for row in rows], "in_go": _in_go(sender, seconds, cores)}
        if halvings:
            low, high = _BOUNDS
            steady = highest(lambda rate: at(rate).keeps_up, low, high, halvings)
            burst = highest(lambda rate: at(rate).nothing_lost, steady or low, high, halvings)
            met = "met" if burst >= ZERO_DROP else "NOT met"
            print(
                f"  nothing lost in {seconds:g} s at up to {burst:,} events/s, aim {ZERO_DROP:,}: {met}; "
                f"and nothing left behind at up to {steady:,}"
            )
            searched = [one._asdict() for _, one in sorted(probes.items())]
            found |= {"burst": burst, "steady": steady, "searched": searched}
    finally:
        sender.stop()
    return found


def _in_go(sender: Peer, seconds: float, cores: Cores) -> list[dict[str, Any]]:
    """Measure and print what the same paces cost a client in Go."""
    found = []
    for rate in sorted((*LATENCY_MS, CPU_PACE)) if go_client() else ():
        for name, what in (("go_parse", "receives and parses"), ("go_print", "prints each as JSON")):
            pace = Pace(rate, seconds)
            sender.tell(**pace._asdict())
            share = ("--socket", sender.address["socket"], "--core", str(cores.client), "--go-client", go_client())
            took = run_script("contenders.py", name, "--events", str(int(rate * seconds)), *share)
            lost, used = sender.answer()["dropped"], took["cpu"] / took["seconds"]
            print(f"  {rate:>10,} a client in Go that {what:<26}{used:>11.3f}{lost:>7,}")
            found.append({"rate": rate, "name": name, "cpu": used, "lost": lost})
    return found


def _print_rows(rows: list[Probe], seconds: float) -> None:
    print(
        f"\n(h) from an event's arrival to its decision, milliseconds; all stable rules, of which one matches "
        f"{rows[0].matched:.0%} of the events; {seconds:g} s each"
    )
    columns = f"{'p50':>9}{'p99':>9}{'longest':>9}{'CPU, cores':>12}{'lost':>7}{'sender':>8}"
    print(f"  {'events/s':>10}{'gathered':>10}{columns}")
    for row in rows:
        times = "".join(f"{'-' if one is None else f'{one:.2f}':>9}" for one in (row.p50, row.p99, row.longest))
        lost = f"{row.lost + row.dropped:>7,}"
        print(
            f"  {row.rate:>10,}{row.gather_ms:>7} ms{times}{row.cpu:>12.3f}{lost}{row.sender_busy:>8.0%}{_verdict(row)}"
        )


def _verdict(row: Probe) -> str:
    if row.rate == CPU_PACE:
        return f"  {row.cpu:.3f} of a core, aim {CPU_CORES}: {'met' if row.cpu <= CPU_CORES else 'NOT met'}"
    aim = LATENCY_MS[row.rate] + row.gather_ms
    return f"  p99 aim {aim:g}: {'met' if row.p99 is not None and row.p99 <= aim else 'NOT met'}"


def main() -> None:
    """Be the collector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where the sender is")
    parser.add_argument("--gather-ms", type=int, default=DEFAULT_GATHER_MS)
    parser.add_argument("--core", type=int, required=True, help="the only core to run on")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    decide(args.socket, args.gather_ms)


if __name__ == "__main__":
    main()
