"""The table of aims and the page that shows a run."""

from pathlib import Path
from typing import Any

from bench.report import BEGIN, END, put_into, rows, table


def measured(times: float, cpu: float) -> dict[str, Any]:
    """Make what a run found: rates as times the reference's, and a core's share at the pace of the CPU's aim."""
    one = {name: {"events_per_second": times} for name in ("receive", "findings", "export")}
    row = {"rate": 1_100, "gather_ms": 0, "cpu": cpu, "p99": 0.5}
    lost = {"rate": 5_000, "gather_ms": 5, "cpu": 0.2, "p99": None}
    return {
        "synthetic": [{"grpcio": {"events_per_second": 1.0}, **one}],
        "latency": {"rows": [row, lost]},
        "growth": {"pods": [{"size": 10, "us": [20.0]}, {"size": 250, "us": [21.0]}]},
    }


def test_each_aim_has_its_row() -> None:
    """A figure is judged by its own aim, a pace at which events were lost meets none."""
    found = {row.what: row.met for row in rows(measured(3.0, 0.09))}
    assert found == {
        "receive, synthetic stream": False,
        "whole path, findings only, synthetic stream": True,
        "whole path, all sent as OTLP, spool included, synthetic stream": True,
        "CPU at 1,100 events/s, gathered 0 ms": False,
        "p99 to the decision, 5,000 events/s, gathered 5 ms": False,
        "cost an event, 250 for 10 pods": True,
    }
    assert "0.090  NOT met" in table(measured(3.0, 0.09))
    assert "NOT met" not in table({"growth": measured(3.0, 0.09)["growth"]})


def test_a_page_shows_the_last_run(tmp_path: Path) -> None:
    """The run between the marks is replaced, and nothing around it."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for output in ("first", "second\n"):
        put_into(page, output)
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n```\nsecond\n```\n{END}\nafter\n"
