"""A configuration put in force between two batches: what rules remember, what processes carry, what is left alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event as Signal
from threading import Thread

from keytrail.app import Collector
from keytrail.configuration import Configuration, load_configuration
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.decode.table import ProcessTable
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Pipeline
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from reload.config_map import SUPPRESS, ConfigMap, mapping, rule
from support.synthetic import exec_event, kprobe_event, process

OPENAI = {"OPENAI_API_KEY": "sk-x"}


class Kept:
    """An output that keeps what it was given, at the moment it was given."""

    def __init__(self) -> None:
        self.identities: list[str] = []
        self.findings: list[tuple[str, str, int]] = []
        self.flushed = Signal()

    def write(self, record: Event | Finding) -> None:
        """Keep the primary identity of an event; rule, message and repeats of a finding."""
        if isinstance(record, Finding):
            self.findings.append((record.rule.name, record.message, record.suppressed))
            return
        attribution = record.process.attribution
        primary = None if attribution is None else attribution.primary
        unknown = None if attribution is None else attribution.unknown
        self.identities.append(primary.identity_id if primary is not None else str(unknown))

    def flush(self) -> None:
        """Tell that a batch is over."""
        self.flushed.set()

    def close(self, deadline: float) -> None:
        """Nothing to end."""


class World:
    """A pipeline over a ConfigMap."""

    def __init__(self, tmp_path: Path, *files: str) -> None:
        self.config = ConfigMap(tmp_path / "config", self._named(files))
        self.loaded = self._load(None)
        self.kept = Kept()
        self.accounting = Accounting()
        self.table = ProcessTable()
        self.pipeline = Pipeline(
            Decoder(Redactor().redact, self.table),
            self.loaded,
            Outputs((self.kept,), (self.kept,)),
            self.accounting,
        )

    @staticmethod
    def _named(files: Sequence[str]) -> dict[str, str]:
        return {f"{number}.yaml": text for number, text in enumerate(files)}

    def _load(self, previous: Configuration | None) -> Configuration:
        settings = Settings(config=self.config.folder, rules=str(self.config.folder))
        return load_configuration(settings, Redactor().redact, live=False, findings=True, previous=previous)

    def reload(self, *files: str) -> None:
        """Put other files in force, as the reloading thread does."""
        self.config.replace(self._named(files))
        self.loaded = self._load(self.loaded)
        self.pipeline.replace(self.loaded)

    def process(self, *messages: bytes, agent: AgentFacts | None = None) -> None:
        """One batch."""
        self.pipeline.process(Batch(messages, 1, agent))


def execs(*pids: int) -> list[bytes]:
    """Execs of one program."""
    return [exec_event(process(pid, binary="/bin/x")) for pid in pids]


def test_window_of_a_rule_survives_the_reload_of_another(tmp_path: Path) -> None:
    """A rule that did not change goes on suppressing and counting; the one that did starts anew, its repeats told."""
    world = World(tmp_path, rule("kept", more=SUPPRESS), rule("changed", more=SUPPRESS))
    world.process(*execs(2, 3, 4))
    world.reload(rule("kept", more=SUPPRESS), rule("changed", condition="process.pid > 2", more=SUPPRESS))
    world.process(*execs(5, 6))
    world.pipeline.finish()
    assert world.kept.findings == [
        ("kept", "seen", 0),
        ("changed", "seen", 0),
        ("changed", "seen", 2),
        ("changed", "seen", 0),
        ("kept", "seen", 4),
        ("changed", "seen", 1),
    ]
    records = world.accounting.summary()["records"]
    assert (records["made"], records["suppressed"]) == (5 + 6 + 7, {"over_budget": 0, "repeated": 7})


def test_rule_that_goes_tells_what_it_held_back(tmp_path: Path) -> None:
    """Repeats of a rule that is no longer there come out with the next event, under its name."""
    world = World(tmp_path, rule("gone", more=SUPPRESS))
    world.process(*execs(2, 3))
    world.reload(rule("other"))
    world.process(*execs(4))
    assert world.kept.findings == [("gone", "seen", 0), ("gone", "seen", 1), ("other", "seen", 0)]


def test_message_of_a_rule_that_decides_the_same_is_the_new_one(tmp_path: Path) -> None:
    """A changed text takes effect with the next finding, and opens no window again."""
    world = World(tmp_path, rule("one", message="before {process.pid}", more=SUPPRESS))
    world.process(*execs(2))
    world.reload(rule("one", message="after {process.pid}", more=SUPPRESS))
    world.process(*execs(3), exec_event(process(4, binary="/bin/y")))
    assert world.kept.findings == [("one", "before 2", 0), ("one", "after 4", 0)]


def test_known_processes_are_attributed_anew(tmp_path: Path) -> None:
    """A process that runs on carries the identity of the new mappings from its next event on, exited ones too."""
    world = World(tmp_path, rule("one"), mapping("before"))
    acting = process(7, environment=OPENAI)
    world.process(exec_event(acting), kprobe_event(acting, "tcp_connect"))
    world.reload(rule("one"), mapping("after"))
    world.process(kprobe_event(acting, "tcp_connect", nanos=1), kprobe_event(acting, "tcp_connect", nanos=2))
    world.reload(rule("one"))
    world.process(kprobe_event(acting, "tcp_connect", nanos=3))
    assert world.kept.identities == ["before", "before", "after", "after", "openai_api_key-present"]


def test_change_of_rules_alone_leaves_attributions(tmp_path: Path) -> None:
    """Thirty thousand processes are not looked at again for a rule."""
    world = World(tmp_path, rule("one"), mapping("mine"))
    world.process(exec_event(process(7, environment=OPENAI)))
    [known] = world.table
    attribution = known.attribution
    world.reload(rule("two"), mapping("mine"))
    world.process()
    assert known.attribution is attribution
    assert attribution is not None


def test_what_the_agent_withholds_is_known_to_new_mappings(tmp_path: Path) -> None:
    """New mappings judge by what the agent said at connection, which it will not say again."""
    world = World(tmp_path, rule("one"), mapping("mine"))
    world.process(agent=AgentFacts(captures_environment=True, environment_filter=("HOME",)))
    world.reload(rule("one"), mapping("other"))
    world.process(exec_event(process(7, environment={"HOME": "/"})))
    assert world.kept.identities == ["filtered"]


def test_several_before_a_batch_count_as_the_last(tmp_path: Path) -> None:
    """Configurations that no event met leave no trace: windows go from the one in force to the last one given."""
    world = World(tmp_path, rule("kept", more=SUPPRESS))
    world.process(*execs(2, 3))
    world.reload(rule("other"))
    world.reload(rule("kept", more=SUPPRESS), rule("second"))
    world.process(*execs(4))
    world.pipeline.finish()
    assert world.kept.findings == [("kept", "seen", 0), ("second", "seen", 0), ("kept", "seen", 2)]


def test_replacing_from_another_thread_between_batches_is_never_missed(tmp_path: Path) -> None:
    """However many configurations come while batches are decided on, the last one is in force at the end."""
    world = World(tmp_path, rule("one"), mapping("id-0"))
    made = [world.loaded]
    for number in range(1, 6):
        world.config.replace(world._named([rule("one"), mapping(f"id-{number}")]))
        made.append(world._load(made[-1]))
    acting = process(7, environment=OPENAI)

    def replace_all() -> None:
        for _ in range(200):
            for configuration in made:
                world.pipeline.replace(configuration)

    replacing = Thread(target=replace_all)
    replacing.start()
    nanos = 0
    while replacing.is_alive():
        world.process(
            kprobe_event(acting, "tcp_connect", nanos=nanos), kprobe_event(acting, "tcp_connect", nanos=nanos + 1)
        )
        nanos += 2
    replacing.join()
    world.process(kprobe_event(acting, "tcp_connect", nanos=nanos))
    assert world.kept.identities[-1] == "id-5"
    pairs = zip(world.kept.identities[:-1:2], world.kept.identities[1:-1:2], strict=True)
    assert all(first == second for first, second in pairs)


def test_quiet_stream_takes_it_over_at_once(tmp_path: Path) -> None:
    """A collector whose agent is silent goes by the new configuration at once, not at the next event."""
    config = ConfigMap(tmp_path / "config", {"rule.yaml": rule("one")})
    settings = Settings(config=config.folder, rules=str(config.folder))
    kept, source, stop = Kept(), _Silent(), Signal()
    collector = Collector(settings, source, Outputs((), (kept,)), Accounting(), live=True)
    running = Thread(target=collector.run_live, args=(stop,))
    running.start()
    try:
        assert kept.flushed.wait(60)
        kept.flushed.clear()
        collector.replace(load_configuration(settings, Redactor().redact, live=True, findings=True))
        assert kept.flushed.wait(60)
    finally:
        stop.set()
        running.join()


class _Silent:
    """A source that greets and says no more."""

    def __init__(self) -> None:
        self._closed = Signal()

    def batches(self) -> Iterator[Batch]:
        """The agent's facts alone."""
        yield Batch((), 1, AgentFacts())
        self._closed.wait()

    def close(self) -> None:
        """End."""
        self._closed.set()
