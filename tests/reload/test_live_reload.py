"""`keytrail collect` on a running stream while its rules, mappings and settings change on disk."""

import itertools
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.testing.fake_tetragon import FakeTetragon
from reload.config_map import ConfigMap, mapping, rule
from support.processes import CollectorProcess, wait_until
from support.synthetic import START, exec_event, kprobe_event, loader_event, process

ACTING = process(7, environment={"OPENAI_API_KEY": "sk-x"})
PATIENCE = 120.0
STEP = 10


def version(number: int, *, condition: str = "process.pid > 1") -> dict[str, str]:
    """A rule and a mapping that both tell which version of them decided."""
    return {
        "rule.yaml": rule("told", events="connect", message="v{process.pid}-" + str(number), condition=condition),
        "mapping.yaml": mapping(f"v{number}"),
    }


def connects() -> Iterator[bytes]:
    """Connections of one process, each two seconds after the one before: a rule may speak sixty times a minute."""
    for number in itertools.count(1):
        event = GetEventsResponse.FromString(kprobe_event(ACTING, "tcp_connect"))
        event.time.seconds = START + 2 * number
        yield event.SerializeToString()


class Stream(threading.Thread):
    """Publishes connections, five hundred a second at most, until `stop`."""

    def __init__(self, agent: FakeTetragon) -> None:
        super().__init__(name="publisher")
        self._agent = agent
        self._ended = threading.Event()
        self._events = connects()
        self.published = 0

    def run(self) -> None:
        """Publish in small steps, so that each change meets a stream that flows."""
        while not self._ended.is_set():
            self.publish(STEP)
            self._ended.wait(0.02)

    def publish(self, count: int) -> None:
        """Publish so many more."""
        self.published += self._agent.publish(itertools.islice(self._events, count), lossless=True)

    def stop(self) -> None:
        """End after the step under way."""
        self._ended.set()
        self.join()


def log_line_seen(collector: CollectorProcess, text: str) -> bool:
    """Wait until the log says something."""
    return wait_until(lambda: text in collector.err, PATIENCE)


def hang_up(collector: CollectorProcess) -> None:
    """Ask it to look at its files."""
    collector.process.send_signal(signal.SIGHUP)


def versions_of(line: str) -> tuple[int, int]:
    """Which version of the rule and which of the mapping a finding is from."""
    found = json.loads(line)
    return int(found["message"].partition("-")[2]), int(found["identity"]["id"].removeprefix("v"))


def last_version(collector: CollectorProcess) -> int:
    """Which version of the rule the newest finding is from."""
    whole = collector.out.rpartition("\n")[0].rpartition("\n")[2]
    return versions_of(whole)[0] if whole else -1


def told(collector: CollectorProcess) -> list[str]:
    """Messages of the findings so far."""
    lines = [json.loads(line) for line in collector.out.rpartition("\n")[0].splitlines()]
    return [line["message"] for line in lines if "gap" not in line]


@pytest.mark.parametrize("changes", [4, pytest.param(20, marks=pytest.mark.long)])
def test_changes_under_a_flowing_stream_lose_and_reorder_nothing(tmp_path: Path, changes: int) -> None:
    """Each event is found once, in order, by rule and mapping of one version: the last good one at its time."""
    address, mistaken = f"unix://{tmp_path}/tetragon.sock", changes // 2  # then what was in force before stays
    config = ConfigMap(tmp_path / "config", version(0))
    options = ("--output", "findings", "--config", str(config.folder), "--rules", str(config.folder))
    seen_before: list[int] = []
    sent_after: list[int] = []
    with FakeTetragon(address) as agent, CollectorProcess(tmp_path, *options, "--agent", address) as collector:
        assert agent.wait_for_listeners(timeout=PATIENCE), collector.err
        agent.publish([exec_event(ACTING)])
        stream = Stream(agent)
        stream.start()
        try:
            for number in range(1, changes + 1):
                before = number - 2 if number == mistaken + 1 else number - 1
                assert wait_until(lambda before=before: last_version(collector) == before, PATIENCE), collector.err
                seen_before.append(collector.lines())
                wrong = number == mistaken
                config.replace(version(number, condition="process.nmae > 1" if wrong else "process.pid > 1"))
                hang_up(collector)
                told = "not reloaded" if wrong else f"reloaded as generation {number + 1 - (number > mistaken)}:"
                assert log_line_seen(collector, told), collector.err
                sent_after.append(stream.published + STEP)  # and the step that is under way
        finally:
            stream.stop()
        stream.publish(60)
        assert wait_until(lambda: collector.lines() == stream.published, PATIENCE), collector.err
        summary = collector.stop()
    lines = collector.out.splitlines()
    assert summary["events"]["received"] == summary["events"]["decoded"] == 1 + stream.published == 1 + len(lines)
    assert summary["records"]["made"] == summary["records"]["exported"] == len(lines)
    times = [json.loads(line)["ts"] for line in lines]
    assert times == sorted(set(times))
    versions = [versions_of(line) for line in lines]
    assert all(by_rule == by_mapping for by_rule, by_mapping in versions)
    deciding = [by_rule for by_rule, _ in versions]
    assert deciding == sorted(deciding)
    assert set(deciding) == set(range(changes + 1)) - {mistaken}
    for number, seen, sent in zip(range(1, changes + 1), seen_before, sent_after, strict=True):
        assert max(deciding[:seen]) < number
        assert min(deciding[sent:]) >= (number - 1 if number == mistaken else number)
    assert f"{config.folder}/rule.yaml:12: spec.condition: " in collector.err


def test_quiet_stream_and_files_that_nobody_announces(tmp_path: Path) -> None:
    """Without a signal a change is found by looking; the log level follows its file; SIGTERM then ends it as ever."""
    address = f"unix://{tmp_path}/tetragon.sock"
    config = ConfigMap(tmp_path / "config", version(0))
    settings = tmp_path / "settings.yaml"
    settings.write_text("reload_seconds: 1\n")
    options = ("--settings", str(settings), "--config", str(config.folder), "--rules", str(config.folder))
    with (
        FakeTetragon(address) as agent,
        CollectorProcess(tmp_path, "--output", "findings", *options, "--agent", address) as collector,
    ):
        assert agent.wait_for_listeners(timeout=PATIENCE), collector.err
        settings.write_text("reload_seconds: 1\nlog_level: debug\nqueue_capacity: 100\n")
        config.replace(version(1))
        assert log_line_seen(collector, "reloaded as generation 2: 1 rules, 1 identity mappings"), collector.err
        assert log_line_seen(collector, "log level is debug now"), collector.err
        assert log_line_seen(collector, "needs a restart: queue_capacity"), collector.err
        agent.publish([exec_event(ACTING), *itertools.islice(connects(), 3)])
        assert wait_until(lambda: collector.lines() == 3, PATIENCE), collector.err
        collector.stop()
    assert [versions_of(line) for line in collector.out.splitlines()] == [(1, 1)] * 3


def test_a_rule_that_looks_at_more_gets_it_from_the_agent(tmp_path: Path) -> None:
    """What no rule looks at stays with the agent; a new rule's events come from then on, and the short gap is told."""
    address = f"unix://{tmp_path}/tetragon.sock"
    library = {"rule.yaml": rule("told", events="library", message="{file.path}")}
    config = ConfigMap(tmp_path / "config", version(0))
    options = ("--output", "findings", "--config", str(config.folder), "--rules", str(config.folder))
    loads = [loader_event(ACTING, f"/lib/{number}.so") for number in range(3)]
    with FakeTetragon(address) as agent, CollectorProcess(tmp_path, *options, "--agent", address) as collector:
        assert log_line_seen(collector, "without PROCESS_LOADER, PROCESS_UPROBE, PROCESS_USDT"), collector.err
        agent.publish([exec_event(ACTING), loads[0], *itertools.islice(connects(), 1)])
        assert wait_until(lambda: collector.lines() == 1, PATIENCE), collector.err
        config.replace(library)
        hang_up(collector)
        assert log_line_seen(collector, "(asked_anew): the configuration in force looks at PROCESS_LOADER"), (
            collector.err
        )
        assert log_line_seen(collector, "without PROCESS_UPROBE, PROCESS_USDT"), collector.err
        assert agent.wait_for_listeners(timeout=PATIENCE), collector.err
        agent.publish(loads[1:])
        assert wait_until(lambda: len(told(collector)) == 3, PATIENCE), collector.out
        summary = collector.stop()
    lines = [json.loads(line) for line in collector.out.splitlines()]
    (gap,) = [line["gap"] for line in lines if line.get("gap", {}).get("phase") == "closed"]
    assert gap["cause"] == "agent_away"
    assert gap["message"].endswith("no events from the agent: asked_anew")
    assert told(collector) == ["v7-0", "/lib/1.so", "/lib/2.so"]
    assert summary["events"]["received"] == 4
