"""What a run says in the end: each aim beside its figure, and the page that shows the run.

In: what `run.py` found, section by section, and what it printed. Out: rows, their table, a page with the new run. What
was not measured has no row. Must not measure.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

BEGIN, END = "<!-- a run: begin -->", "<!-- a run: end -->"
"""Marks of the place on a page that a run's output has."""
RATES = {
    "receive": ("receive", 10.0),
    "findings": ("whole path, findings only", 2.2),
    "export": ("whole path, all sent as OTLP, spool included", 1.1),
}
"""Contender: what it does, and times the rate of grpcio's plain iterator."""
REFERENCE = "grpcio"
RULES_TO_DECODE = 0.6
LATENCY_MS = {1_000: 1.0, 5_000: 2.0, 20_000: 10.0}
"""Events a second, and the 99th percentile from arrival to decision where nothing is gathered."""
ZERO_DROP = 30_000
CPU_PACE, CPU_CORES = 1_100, 0.08
PEAK_MB = 90.0
GROWTH = 0.05
COST_GROWTH = 1.1
"""Times the cost at the smallest size: what a noisy machine leaves of `does not grow`."""


class Row(NamedTuple):
    """One aim."""

    what: str
    aim: str
    figure: str
    met: bool


def rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Compare everything that was measured with its aim."""
    for section, stream in (("synthetic", "synthetic stream"), ("recorded", "recorded stream")):
        if section in found:
            yield from _rates(found[section], stream)
    for stream, cost in found.get("detect", {}).items():
        aim = f"at most {RULES_TO_DECODE} of decode"
        yield Row(
            f"stable rules, median event, {stream}", aim, f"{cost['ratio']:.2f}", cost["ratio"] <= RULES_TO_DECODE
        )
    if "latency" in found:
        yield from _paces(found["latency"])
    if "growth" in found:
        yield from _growth(found["growth"])
    if "memory" in found:
        grown = found["memory"]["growth"]
        yield Row(
            "memory, 100,000 exec ids again and again",
            f"flat within {GROWTH:.0%}",
            f"{grown:+.1%}",
            abs(grown) <= GROWTH,
        )


def _rates(rounds: list[dict[str, dict[str, float]]], stream: str) -> Iterator[Row]:
    for name, (what, aim) in RATES.items():
        times = median(one[name]["events_per_second"] / one[REFERENCE]["events_per_second"] for one in rounds)
        yield Row(f"{what}, {stream}", f"{aim:g} times (a)", f"{times:.2f}", times >= aim)


def _paces(found: Mapping[str, Any]) -> Iterator[Row]:
    for row in found["rows"]:
        how = f"{row['rate']:,} events/s, gathered {row['gather_ms']} ms"
        if row["rate"] == CPU_PACE:
            yield Row(f"CPU at {how}", f"{CPU_CORES} core", f"{row['cpu']:.3f}", row["cpu"] <= CPU_CORES)
        else:
            aim, p99 = LATENCY_MS[row["rate"]] + row["gather_ms"], row["p99"]
            shown = "events were lost" if p99 is None else f"{p99:.2f} ms"
            yield Row(f"p99 to the decision, {how}", f"{aim:g} ms", shown, p99 is not None and p99 <= aim)
    if "burst" in found:
        burst = found["burst"]
        yield Row("events/s of which none is lost", f"{ZERO_DROP:,}", f"{burst:,}", burst >= ZERO_DROP)


def _growth(found: Mapping[str, Any]) -> Iterator[Row]:
    for what, sizes in found.items():
        if what == "stream":
            continue
        first, last = sizes[0], sizes[-1]
        times = median(after / before for before, after in zip(first["us"], last["us"], strict=True))
        label = f"cost an event, {last['size']:,} for {first['size']:,} {what}"
        yield Row(label, f"at most {COST_GROWTH} times", f"{times:.2f}", times <= COST_GROWTH)
    stream = found.get("stream")
    if stream:
        ids = f"{stream['seen'] // 2:,} exec ids, each new"
        yield Row(f"memory over {ids}", f"flat within {GROWTH:.0%}", f"{stream['growth']:+.1%}", stream["holds"])
        for one in stream["peaks"]:
            label = f"peak memory, {one['processes']:,} processes, --output {one['output']}"
            yield Row(label, f"{PEAK_MB:g} MB", f"{one['peak_mb']:.1f}", one["peak_mb"] <= PEAK_MB)


def table(found: Mapping[str, Any]) -> str:
    """Write the rows one below the other."""
    lines = [f"  {row.what:66}{row.aim:>22}{row.figure:>18}  {'met' if row.met else 'NOT met'}" for row in rows(found)]
    return "\n".join(["", f"  {'aims':66}{'aim':>22}{'figure':>18}", *lines])


def put_into(page: Path, output: str) -> None:
    """Replace the run that a page shows, between its marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n```\n{output.strip()}\n```\n{END}{after}", encoding="utf-8")
