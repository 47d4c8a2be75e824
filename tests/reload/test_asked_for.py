"""What the agent is asked for follows from the configuration in force, and costs no finding."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from keytrail.app import Collector
from keytrail.choices import OtlpRecords, Output
from keytrail.configuration import load_configuration
from keytrail.decode.redact import Redactor
from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.domain.finding import Finding
from keytrail.export.finding_line import finding_line
from keytrail.manifests import builtin_folder
from keytrail.observe.accounting import Accounting
from keytrail.outputs import open_outputs
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from keytrail.source.request import events_request
from keytrail.testing.fake_tetragon_filters import EventFilter as AgentFilter
from reload.config_map import rule
from support.commands import keytrail
from support.recordings import messages

EXECUTION = frozenset({EventKind.EXEC, EventKind.EXIT})
ALWAYS = EXECUTION | {EventKind.FILE, EventKind.SEND}


class Stream:
    """Messages as a source."""

    def __init__(self, stream: Sequence[bytes]) -> None:
        self._messages = iter(stream)

    def batches(self) -> Iterator[Batch]:
        """Yield them."""
        while some := tuple(itertools.islice(self._messages, 256)):
            yield Batch(some, 0)

    def close(self) -> None:
        """Do nothing."""


class Findings:
    """An output that keeps lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, finding: Finding) -> None:
        """Keep one."""
        self.lines.append(finding_line(finding))

    def flush(self) -> None:
        """Do nothing."""

    def close(self, timeout: float) -> None:
        """Do nothing."""


def looked_at(settings: Settings, wanted: EventFilter | None = None) -> EventFilter:
    """What a collector of these settings looks at."""
    configuration = load_configuration(settings, Redactor().redact, live=False, findings=True)
    return configuration.looked_at(wanted or EventFilter())


def found(settings: Settings, stream: Sequence[bytes]) -> list[str]:
    """Findings about a stream."""
    kept = Findings()
    Collector(settings, Stream(stream), Outputs(findings=[kept]), Accounting(), live=False).run_through()
    return kept.lines


@pytest.fixture(scope="module")
def of_executions(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Give the shipped rules that look at executions and files, and at nothing else."""
    folder = tmp_path_factory.mktemp("rules")
    for path in (builtin_folder() / "rules").glob("*.yaml"):
        (document,) = yaml.safe_load_all(path.read_text())
        if set(document["spec"]["events"]) <= {"exec", "exit", "file"} and "sequence" not in document["spec"]:
            (folder / path.name).write_text(path.read_text())
    assert len(list(folder.iterdir())) > 20
    return Settings(rules=str(folder))


@pytest.mark.parametrize(
    "name", ["policy-library", *(pytest.param(name, marks=pytest.mark.long) for name in ("kubernetes", "sensors"))]
)
def test_what_stays_with_the_agent_costs_no_finding(of_executions: Settings, name: str) -> None:
    """The same findings, with the same identities, come of all events and of those that are asked for."""
    agent = AgentFilter(events_request(looked_at(of_executions)), ancestors=True)
    asked = [one for one in messages(name) if agent.passes(GetEventsResponse.FromString(one))]
    findings = found(of_executions, messages(name))
    assert findings
    assert found(of_executions, asked) == findings
    if name == "policy-library":
        assert len(asked) < 0.6 * len(messages(name))


def test_kinds_are_those_of_rules_and_identities(tmp_path: Path) -> None:
    """What rules look at, what tells identities, and what processes live by; the user's own filter goes before."""
    (tmp_path / "rule.yaml").write_text(rule("told", events="connect"))
    settings = Settings(rules=str(tmp_path))
    assert looked_at(settings).kinds == ALWAYS | {EventKind.CONNECT}
    assert looked_at(Settings(rules="none")).kinds == ALWAYS
    users = EventFilter(kinds=frozenset({EventKind.CONNECT, EventKind.LIBRARY}), namespaces=frozenset({"ml"}))
    assert looked_at(settings, users) == EventFilter(frozenset({EventKind.CONNECT}), frozenset({"ml"}))
    only = EventFilter(kinds=frozenset({EventKind.LIBRARY}))
    assert looked_at(settings, only) == only


def test_stable_rules_look_at_all_types() -> None:
    """With the shipped rules nothing can stay with the agent: the page on performance says so."""
    assert events_request(looked_at(Settings())).ByteSize() == 0


@pytest.mark.parametrize("outputs", [one for n in (1, 2) for one in itertools.combinations(Output, n)])
@pytest.mark.parametrize("records", [(OtlpRecords.EVENTS,), (OtlpRecords.FINDINGS,), tuple(OtlpRecords)])
def test_settings_know_whether_events_are_sent(outputs: tuple[Output, ...], records: tuple[OtlpRecords, ...]) -> None:
    """Commands that open no output say of the agent's stream what the collector does."""
    settings = Settings(output=outputs, otlp_records=records)
    opened = open_outputs(settings, Accounting(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    try:
        assert settings.sends_events == bool(opened.events)
    finally:
        opened.close(0.0)


def test_config_show_says_what_is_asked(tmp_path: Path) -> None:
    """The last line is for a person; whether events are sent decides before any rule."""
    (tmp_path / "rule.yaml").write_text(rule("told", events="connect"))
    withheld = "PROCESS_LOADER, PROCESS_UPROBE, PROCESS_USDT: they carry no kind of event that a rule looks at"

    def asked(*options: str) -> str:
        ran = keytrail("config", "show", *options)
        assert ran.code == 0, ran.err
        assert isinstance(yaml.safe_load(ran.out), dict)
        return ran.out.splitlines()[-1].removeprefix("# Asked of the agent: ")

    assert asked() == "every type of event"
    assert asked("--rules", str(tmp_path)) == f"all but {withheld}"
    everything = tmp_path / "settings.yaml"
    everything.write_text("output: [json]\n")
    assert asked("--rules", str(tmp_path), "--settings", str(everything)) == "every type of event"
    by_filter = asked("--kind", "exec", "--kind", "exit")
    assert by_filter.endswith("PROCESS_USDT: they carry no kind of event that the filter names")
