"""What the tests of delivery by whole collectors share: events that say which they are, and what is on disk of them."""

from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from keytrail.delivery import SPOOL
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.scan import read_acks, read_piece, survey_lane
from keytrail.export.spool.segment import HEADER
from keytrail.proto.tetragon.tetragon_pb2 import Pod
from support.processes import CollectorProcess
from support.synthetic import exec_event, process

SECONDS = 120.0
"""For what takes far less, on a machine that does other things too."""
PODS = 8
"""Workloads: events of one are sent in order, and the workloads are divided among the requests in flight."""
ARRIVED = """
SELECT id, attributes ->> '$."log.record.uid"', attributes ->> '$."process.pid"' FROM records
WHERE event_name = 'keytrail.event' AND id > ? ORDER BY id
"""


def numbered(number: int) -> bytes:
    """An event that says which one it is, by its process id."""
    pod = Pod(namespace="load", name=f"pod-{number % PODS}", uid=f"uid-{number % PODS}")
    return exec_event(process(number, binary="/bin/true", pod=pod))


def collector_of_events(folder: Path, agent: str, backend: str, state: Path, *more: str) -> CollectorProcess:
    """Run a collector that sends events; `more` are further options."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend, "KEYTRAIL_HTTP_ADDRESS": "off", "KEYTRAIL_RULES": "none"}
    options = ("--agent", agent, "--state-dir", str(state), "--otlp-records", "events")
    return CollectorProcess(folder, *options, *more, environ=environ)


def on_disk(state: Path) -> Iterator[tuple[str, int]]:
    """Uid and number of each event that is in a state folder and not settled."""
    for survey in (one for lane in Lane for one in survey_lane(state / SPOOL, lane)):
        segment, at = survey.segment, len(HEADER)
        settled = read_acks(segment)
        while at < segment.end:
            frames, at = read_piece(segment, at, segment.end)
            for frame in (frame for frame in frames if frame.sequence not in settled):
                yield from _events(frame.data)


def _events(data: bytes) -> Iterator[tuple[str, int]]:
    for scope in ResourceLogs.FromString(data).scope_logs:
        for record in scope.log_records:
            if record.event_name == "keytrail.event":
                attributes = {one.key: one.value for one in record.attributes}
                yield attributes["log.record.uid"].string_value, attributes["process.pid"].int_value
