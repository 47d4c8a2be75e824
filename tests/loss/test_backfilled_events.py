"""Events of the agent's export file beside those of the stream: whose they are, what rules make of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from keytrail.configuration import Configuration, load_configuration
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
from support.synthetic import exec_event, kprobe_event, process

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
        self.folder = folder
        self.loaded: Configuration | None = None
        loaded = self.load(*rules)
        self.kept = Kept()
        decoder = Decoder(Redactor().redact, ProcessTable())
        self.accounting = Accounting()
        self.pipeline = Pipeline(decoder, loaded, Outputs((self.kept,), (self.kept,)), self.accounting)
        self.pipeline.process(Batch((), 1, AgentFacts(captures_environment=True)))

    def load(self, *rules: str) -> Configuration:
        """Write rules down and load them all."""
        for text in rules:
            (self.folder / f"{len(list(self.folder.iterdir()))}.yaml").write_text(text)
        settings = Settings(config=self.folder, rules=str(self.folder))
        redact, before = Redactor().redact, self.loaded
        self.loaded = load_configuration(settings, redact, live=False, findings=True, previous=before)
        return self.loaded

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


def test_rules_count_the_past_by_its_own_time(tmp_path: Path) -> None:
    """Minutes of the past are no single moment; what was within the window is found, though it comes late."""
    more = "  threshold: {count: 3, window: 10s, by: [process.binary]}\n"
    stream = Stream(tmp_path, rule("thrice", more=more))
    stream.live(started(300))
    stream.found(*(started(second) for second in (100, 120, 140, 160)))
    assert stream.kept.findings == []
    stream.found(*(started(second) for second in (200, 201, 202)))
    assert stream.kept.findings == [("thrice", 0)]


def test_the_past_neither_feeds_nor_ends_what_rules_remember_of_now(tmp_path: Path) -> None:
    """A gap of an hour ago is filled in between: counts go on, windows stay open, whatever was found."""
    thrice = rule("thrice", more="  threshold: {count: 3, window: 10s, by: [process.binary]}\n")
    quiet = rule("quiet", more="  suppress: {by: [process.binary], window: 10m}\n")
    stream = Stream(tmp_path, thrice, quiet)
    for live, past in ((9_000, 100), (9_001, 1_000)):
        stream.live(started(live))
        stream.found(started(past))
    assert stream.kept.findings == [("quiet", 0)] * 3  # of now, and twice of the past, which are not within ten minutes
    stream.live(started(9_002))
    assert stream.kept.findings[3:] == [("thrice", 0)]
    stream.pipeline.finish()
    assert stream.kept.findings[4:] == [("quiet", 2)]


@pytest.mark.parametrize("end", ["filled", "reloaded", "stopped"])
def test_repeats_of_the_past_are_summed_up_at_its_end(end: str, tmp_path: Path) -> None:
    """Nothing of the past moves its clock on any more: its windows end with it, and every repeat is accounted for."""
    stream = Stream(tmp_path, rule("quiet", more="  suppress: {by: [process.binary], window: 10m}\n"))
    stream.found(*(started(second) for second in (100, 101, 102)))
    stream.live(started(9_000))
    assert stream.kept.findings == [("quiet", 0), ("quiet", 0)]
    if end == "filled":
        stream.filled()
    elif end == "reloaded":
        stream.pipeline.replace(stream.load(rule("other", condition="process.pid == 0")))
        stream.live(started(9_001))
    else:
        stream.pipeline.finish()
    assert stream.kept.findings[2:] == [("quiet", 2)]
    records = stream.accounting.summary()["records"]
    assert records["made"] == records["queued"] + records["suppressed"]["repeated"]
    assert records["suppressed"]["repeated"] == (3 if end == "reloaded" else 2)
