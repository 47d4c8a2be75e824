"""Events that came from the agent's export file, beside those of the stream: whose they are, and what rules make of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from keytrail.configuration import load_configuration
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.decode.table import ProcessTable
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Pipeline
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from reload.config_map import rule
from support.synthetic import START, exec_event, kprobe_event, process

KEY = {"OPENAI_API_KEY": "sk-x"}
SOCKET = {"sock_arg": {"family": "AF_INET", "protocol": "IPPROTO_TCP", "daddr": "192.0.2.1", "dport": 443}}


class Kept:
    """An output that keeps findings, and of events who acted."""

    def __init__(self) -> None:
        self.identities: list[str] = []
        self.findings: list[tuple[str, int]] = []

    def write(self, record: Event | Finding) -> None:
        """Keep the primary identity of an event; rule and repeats of a finding."""
        if isinstance(record, Finding):
            self.findings.append((record.rule.name, record.suppressed))
            return
        found = record.process.attribution
        assert found is not None
        self.identities.append(found.primary.identity_id if found.primary is not None else str(found.unknown))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self, deadline: float) -> None:
        """Nothing to end."""


class Stream:
    """A pipeline with a connected agent that captures environments."""

    def __init__(self, folder: Path, *rules: str) -> None:
        for number, text in enumerate(rules):
            (folder / f"{number}.yaml").write_text(text)
        settings = Settings(config=folder, rules=str(folder))
        loaded = load_configuration(settings, Redactor().redact, live=False, findings=True)
        self.kept = Kept()
        decoder = Decoder(Redactor().redact, ProcessTable())
        self.accounting = Accounting()
        self.pipeline = Pipeline(decoder, loaded, Outputs((self.kept,), (self.kept,)), self.accounting)
        self.pipeline.process(Batch((), 1, AgentFacts(captures_environment=True)))

    def live(self, *messages: bytes) -> None:
        """Events of the stream."""
        self.pipeline.process(Batch(messages, 1))

    def found(self, *messages: bytes) -> None:
        """Events that the stream missed."""
        self.pipeline.process(Batch(messages, 1, backfilled=True))

    def filled(self) -> None:
        """The file was searched."""
        gap = Gap(GapCause.AGENT_AWAY, 1, 2, phase=GapPhase.BACKFILLED)
        self.pipeline.process(Batch((), 1, gaps=(gap,)))


def connect(pid: int, environment: Mapping[str, str] | None = None, nanos: int = 0) -> bytes:
    """A connection."""
    return kprobe_event(process(pid, environment=environment, binary="/app"), "tcp_connect", SOCKET, nanos=nanos)


def started(pid: int) -> bytes:
    """An exec event as the file of an exporter has it that leaves environments out."""
    return exec_event(process(pid, binary="/app"))


@pytest.mark.parametrize("file_first", [False, True])
def test_a_file_without_environments_takes_no_identity_away(file_first: bool, tmp_path: Path) -> None:
    """What the stream tells of a process counts, whether the file had its exec before or afterwards."""
    stream = Stream(tmp_path, rule("any"))
    if file_first:
        stream.found(started(7))
        assert stream.kept.identities == ["not_captured"]
    else:
        stream.live(connect(7, KEY))
        stream.found(started(7))
    stream.live(connect(7, KEY, 2), connect(7, KEY, 3))
    assert stream.kept.identities[-2:] == ["openai_api_key-present"] * 2
