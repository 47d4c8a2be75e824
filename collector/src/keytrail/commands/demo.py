"""`keytrail demo`: a recorded agent, the collector and an OTLP receiver in one process, and what came out on screen.

Everything is real but the kernel: recorded bytes go through gRPC on a unix socket into the collector, and what is
counted at the end was read from the receiver's database, not from the collector.
"""

import argparse
import os
import shlex
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytrail.commands.options import add_command
from keytrail.commands.replay import SHIPPED
from keytrail.commands.terminal import printable, say, table
from keytrail.domain.errors import KeytrailError

if TYPE_CHECKING:
    from keytrail.domain.event import Event
    from keytrail.domain.finding import Finding
    from keytrail.observe.accounting import Accounting
    from keytrail.testing.otlp_sink import OtlpSink

_RECORDINGS = ("seed-demo", "policy-library")
_PATIENCE = 60.0
_SHOWN_WIDTH = 120
_SHOWN_KINDS = ("exec", "connect")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "demo", "show Keytrail at work, with everything embedded", "keytrail demo --database records.sqlite"
    )
    parser.add_argument("--database", type=Path, metavar="FILE", help="keep the receiver's SQLite database there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the whole path over both recordings; exit code 1 when anything was lost."""
    with tempfile.TemporaryDirectory(prefix="keytrail-demo-") as folder:
        database = args.database or Path(folder) / "records.sqlite"
        return _demo(Path(folder), database)


def _demo(folder: Path, database: Path) -> int:
    from keytrail.app import Collector
    from keytrail.choices import OtlpRecords
    from keytrail.commands.live import open_stream
    from keytrail.delivery import Delivery
    from keytrail.export.terminal_line import resolve_color
    from keytrail.observe.accounting import Accounting
    from keytrail.observe.logs import set_up_logs
    from keytrail.records import Outputs
    from keytrail.settings_sources import load_settings
    from keytrail.testing.otlp_sink_cli import open_sink

    socket = f"unix://{folder}/tetragon.sock"
    say("Keytrail demo: a recorded Tetragon agent -> gRPC -> collector -> OTLP -> receiver, all in this process\n")
    set_up_logs("error", "text")
    accounting = Accounting()
    stop = threading.Event()
    with open_sink(database) as sink:
        settings = load_settings({"agent_address": socket, "otlp_records": list(OtlpRecords)}, {})
        otlp = Delivery(settings, accounting, {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint}, patient=False)
        shown = _Highlights(color=resolve_color("auto", sys.stdout, os.environ))
        found = _Found()
        outputs = Outputs((*otlp.events(), shown), (*otlp.findings(), found), otlp.gaps(), otlp)
        collector = Collector(settings, open_stream(settings, settings.event_filter()), outputs, accounting, live=True)
        running = threading.Thread(target=collector.run_live, args=(stop,), name="keytrail-demo")
        running.start()
        try:
            published, overflowed = _serve(socket, accounting, shown)
        finally:
            stop.set()
            running.join()
        accounting.on_exported(shown.written + found.written)
        return _report(sink, accounting, published, overflowed, database)


def _serve(socket: str, accounting: "Accounting", shown: "_Highlights") -> tuple[int, int]:
    """Play one agent after the other on the same socket; return events published and dropped by the agents."""
    from keytrail.source.recording import read_recording
    from keytrail.testing.fake_tetragon import FakeTetragon
    from keytrail.testing.fake_tetragon_agent import AgentProfile

    published = overflowed = 0
    for name in _RECORDINGS:
        path = SHIPPED / name
        say(f"-- agent of recording {name}: first use of each identity")
        shown.begin()
        with FakeTetragon(socket, profile=AgentProfile.of_recording(path)) as agent:
            if not agent.wait_for_listeners(timeout=_PATIENCE):
                raise KeytrailError("the collector did not connect to the recorded agent")
            published += agent.publish(read_recording(path))
            agent.wait_until_drained(timeout=_PATIENCE)
            _wait_for(accounting, published)
            overflowed += agent.overflowed
        say(f"   {shown.events} events, {shown.hidden} further ones with an identity not shown\n")
    return published, overflowed


def _wait_for(accounting: "Accounting", received: int) -> None:
    pause = threading.Event()
    for _ in range(int(_PATIENCE / 0.05)):
        if accounting.summary()["events"]["received"] >= received:
            return
        pause.wait(0.05)


class _Highlights:
    """An output that shows the first event of each identity, program and destination."""

    def __init__(self, *, color: bool) -> None:
        self._color = color
        self._seen: set[tuple[str, ...]] = set()
        self.events = self.hidden = self.written = 0

    def begin(self) -> None:
        """Start counting for another recording."""
        self.events = self.hidden = 0

    def write(self, event: "Event") -> None:
        """Show the event when it says something new."""
        from keytrail.export.terminal_line import terminal_line

        self.events += 1
        self.written += 1
        primary = event.process.attribution.primary if event.process.attribution is not None else None
        if primary is None:
            return
        network = event.details.network if event.kind == "connect" else None
        key = (primary.identity_id, event.process.binary, network.peer_address if network is not None else "")
        if event.kind not in _SHOWN_KINDS or key in self._seen:
            self.hidden += 1
            return
        self._seen.add(key)
        say("   " + terminal_line(event, color=self._color))

    def flush(self) -> None:
        """Nothing is kept."""
        sys.stdout.flush()

    def close(self, deadline: float) -> None:
        """Nothing to end."""


class _Found:
    """An output that shows each rule's first finding."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.written = 0

    def write(self, finding: "Finding") -> None:
        """Show the finding unless its rule has spoken before."""
        self.written += 1
        if finding.rule.name not in self._seen:
            self._seen.add(finding.rule.name)
            say(f"   ** {finding.severity} {finding.rule.name}: {printable(finding.message)[:_SHOWN_WIDTH]}")

    def flush(self) -> None:
        """Nothing is kept."""
        sys.stdout.flush()

    def close(self, deadline: float) -> None:
        """Nothing to end."""


_IDENTITIES = """
SELECT attributes ->> '$."keytrail.identity.id"' AS identity,
       coalesce(attributes ->> '$."keytrail.identity.provider"', ''),
       attributes ->> '$."keytrail.identity.strength"',
       count(DISTINCT attributes ->> '$."keytrail.process.exec_id"'),
       group_concat(DISTINCT attributes ->> '$."process.executable.name"'),
       coalesce(group_concat(DISTINCT attributes ->> '$."network.peer.address"'), '')
FROM records WHERE identity IS NOT NULL AND event_name = 'keytrail.event' GROUP BY identity ORDER BY 4 DESC, 1
"""
_KINDS = """
SELECT attributes ->> '$."keytrail.event.kind"', count(*) FROM records
WHERE event_name = 'keytrail.event' GROUP BY 1 ORDER BY 2 DESC
"""
_FINDINGS = """
SELECT severity_text, attributes ->> '$."security_rule.name"', count(*), min(body) FROM records
WHERE event_name = 'keytrail.finding' GROUP BY 2 ORDER BY severity_number DESC, 2
"""
_COUNT = "SELECT count(*) FROM records WHERE event_name = 'keytrail.event'"
_EXAMPLE = """SELECT body FROM records WHERE attributes ->> '$."keytrail.identity.id"' LIKE 'openai%'"""


def _report(sink: "OtlpSink", accounting: "Accounting", published: int, overflowed: int, database: Path) -> int:
    summary = accounting.summary()
    events, ((received,),) = summary["events"], sink.rows(_COUNT)
    say("-- what the OTLP receiver holds")
    table([("EVENTS", "COUNT"), *((str(kind), str(count)) for kind, count in sink.rows(_KINDS))], indent="   ")
    say()
    rows = [tuple(_cell(value) for value in row) for row in sink.rows(_IDENTITIES)]
    table([("IDENTITY", "PROVIDER", "STRENGTH", "PROCESSES", "PROGRAMS", "DESTINATIONS"), *rows], indent="   ")
    say()
    findings = [tuple(_cell(value) for value in row) for row in sink.rows(_FINDINGS)]
    table([("SEVERITY", "RULE", "FINDINGS", "FOR EXAMPLE"), *findings], indent="   ")
    intended = events["dropped"].get("duplicate_hook", 0)
    lost = published - received - intended
    say(f"\n   events sent by the agents {published}, received by the collector {events['received']},")
    say(f"   undecodable {events['undecodable']},")
    say(f"   same call reported by two policies (merged) {intended}, records in the receiver {received}, lost = {lost}")
    if overflowed:
        say(f"   the agents dropped {overflowed} events because they were read too slowly")
    say("\n-- look further")
    for line in _further(database):
        say("   " + line)
    return 0 if lost == 0 and overflowed == 0 else 1


def _cell(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - columns of a terminal


def _further(database: Path) -> list[str]:
    command = Path(sys.argv[0])
    here = str(command) if command.name == "keytrail" else "python -m keytrail"
    kept = database.parent.name.startswith("keytrail-demo-")
    return [
        f"{here} replay policy-library --output line --kind connect | head",
        f"{here} replay policy-library --output findings --rules all | head -3",
        f"{here} replay policy-library --output json --binary curl",
        f"{here} demo --database demo.sqlite"
        if kept
        else f"{here} otlp-sink --database {database} --query {shlex.quote(_EXAMPLE)}",
        f"{here} doctor",
    ]
