"""Files that change under a running collector: noticed, judged, put in force or refused."""

import logging
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from keytrail.aside import AsideError
from keytrail.configuration import Configuration, load_configuration
from keytrail.decode.redact import Redactor
from keytrail.kube.backoff import Backoff
from keytrail.reload import Reloader, Result
from keytrail.settings_sources import load_settings
from reload.config_map import ConfigMap, mapping, rule
from support.processes import wait_until

GOOD = {"rule.yaml": rule("one"), "mapping.yaml": mapping("before")}
WRONG = GOOD | {"rule.yaml": rule("one", condition="process.nmae == 'x'")}


class World:
    """A settings file, a ConfigMap and a Reloader over both; what it put in force is in `given`."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = ConfigMap(tmp_path / "config", GOOD)
        self.file = tmp_path / "settings.yaml"
        self.file.write_text("log_level: info\n")
        self.given: list[Configuration] = []
        self.changed = threading.Event()
        flags = {"config": self.config.folder, "rules": str(self.config.folder)}
        settings = load_settings(flags, {}, self.file)
        load = partial(load_configuration, settings, Redactor().redact, live=False, findings=True)
        self.loaded = load()
        self.reloader = Reloader(
            settings,
            lambda: load_settings(flags, {}, self.file),
            self.file,
            loaded=self.loaded,
            load=load,
            replace=self._replace,
            every_seconds=0.05,
            now=lambda: 1000.0,
        )

    def _replace(self, configuration: Configuration) -> None:
        self.given.append(configuration)
        self.changed.set()

    def look_twice(self) -> None:
        """Two looks that agree."""
        self.reloader.look()
        self.reloader.look()


def running(configuration: Configuration) -> list[str]:
    """Names of the rules that run."""
    assert configuration.engine is not None
    return [one.name for one in configuration.engine.rules]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Everything good, looked at until nothing is new; the log's level as it was at the end."""
    logger = logging.getLogger("keytrail")
    level = logger.level
    made = World(tmp_path)
    made.look_twice()
    yield made
    logger.setLevel(level)


def test_nothing_is_put_in_force_that_is_already(world: World) -> None:
    """Neither looking at files that did not change nor writing the same again makes a new configuration."""
    world.config.replace(GOOD)
    world.look_twice()
    os.utime(world.file)
    world.look_twice()
    assert world.given == []
    assert world.reloader.state().generation == 1


def test_changed_configmap_is_put_in_force_once(world: World) -> None:
    """After a swap of `..data` the new mapping is in force, and stays the one object until the next swap."""
    world.config.replace(GOOD | {"mapping.yaml": mapping("after")})
    world.look_twice()
    world.look_twice()
    [given] = world.given
    assert [one.spec.identity.id for one in given.manifests.identity_mappings] == ["after"]
    state = world.reloader.state()
    assert (state.generation, state.result, state.problems, state.loaded_at) == (2, Result.IN_FORCE, (), 1000.0)


def test_file_that_is_being_written_waits_for_two_looks_that_agree(world: World) -> None:
    """What differs from one look to the next is not judged: a rule written in pieces is never half in force."""
    (world.config.folder / "more.yaml").write_text("apiVersion: keytrail.io/v1alpha1\nkind: Detec")
    world.reloader.look()
    (world.config.folder / "more.yaml").write_text(rule("two"))
    world.reloader.look()
    assert (world.given, world.reloader.state().result) == ([], Result.IN_FORCE)
    world.reloader.look()
    [given] = world.given
    assert set(running(given)) == {"one", "two"}


def test_wrong_content_changes_nothing_and_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """All of a wrong folder stays out, good files included; the log names file, line and field, once a content."""
    world.config.replace(WRONG | {"mapping.yaml": mapping("after")})
    for _ in range(3):
        world.look_twice()
    os.utime(world.config.folder / "rule.yaml")
    world.look_twice()
    assert world.given == []
    state = world.reloader.state()
    assert (state.generation, state.result) == (1, Result.REFUSED)
    [problem] = state.problems
    assert problem.startswith(f"{world.config.folder}/rule.yaml:12: spec.condition: ")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f"not reloaded, the last good version stays in force: {problem}"
    ]


def test_mended_content_is_in_force_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Going back to what is in force ends the problem without a new generation; going on makes one."""
    caplog.set_level(logging.INFO, "keytrail")
    world.config.replace(WRONG)
    world.look_twice()
    world.config.replace(GOOD)
    world.look_twice()
    assert (world.reloader.state().result, world.reloader.state().problems) == (Result.IN_FORCE, ())
    assert "generation 1 is what stands on disk: 1 rules, 1 identity mappings" in caplog.messages
    world.config.replace(WRONG)
    world.look_twice()
    world.config.replace(GOOD | {"rule.yaml": rule("three")})
    world.look_twice()
    assert running(world.given[0]) == ["three"]
    assert world.reloader.state().generation == 2


def test_folder_that_goes_away_leaves_the_last_good_version(world: World) -> None:
    """An unmounted volume is a problem to tell, not a configuration without rules."""
    moved = world.config.folder.rename(world.config.folder.with_name("moved"))
    world.look_twice()
    assert (world.given, world.reloader.state().result) == ([], Result.REFUSED)
    moved.rename(world.config.folder)
    world.look_twice()
    assert world.reloader.state().result is Result.IN_FORCE


def test_log_level_is_taken_over_and_other_settings_need_a_restart(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The settings file is read again: its log level counts at once; what else changed is named, once."""
    world.file.write_text("log_level: debug\nqueue_capacity: 17\n")
    world.look_twice()
    assert logging.getLogger("keytrail").level == logging.DEBUG
    assert world.reloader.state().needs_restart == ("queue_capacity",)
    world.config.replace(GOOD | {"mapping.yaml": mapping("after")})
    world.look_twice()
    assert caplog.messages.count("needs a restart: queue_capacity") == 1
    assert len(world.given) == 1


def test_wrong_settings_do_not_keep_manifests_out(world: World) -> None:
    """A settings file that cannot be read keeps what was set and says where it is wrong; manifests are apart."""
    world.file.write_text("log_level: lowd\nredact_patterns: ['a(']\n")
    world.config.replace(GOOD | {"mapping.yaml": mapping("after")})
    world.look_twice()
    state = world.reloader.state()
    assert (len(world.given), state.generation, state.result) == (1, 2, Result.REFUSED)
    assert state.needs_restart == ()
    for problem, name in zip(state.problems, ("1: log_level", "2: redact_patterns[0]"), strict=True):
        assert problem.startswith(f"{world.file}:{name}: ")


def test_asked_for_it_looks_at_once_and_answers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A look that somebody asked for judges at the first sight, and says what it found though nothing changed."""
    caplog.set_level(logging.INFO, "keytrail")
    world.config.replace(GOOD | {"mapping.yaml": mapping("after")})
    assert world.reloader.look(asked=True)
    assert len(world.given) == 1
    assert world.reloader.look(asked=True)
    assert caplog.messages == [
        "reloaded as generation 2: 1 rules, 1 identity mappings",
        "generation 2 is what stands on disk: 1 rules, 1 identity mappings",
    ]


def test_files_that_change_while_they_are_read_are_read_again(tmp_path: Path) -> None:
    """What was loaded from files in motion is thrown away, whether it looked right or wrong."""
    world = World(tmp_path)
    world.look_twice()
    settings = load_settings({"config": world.config.folder, "rules": str(world.config.folder)}, {}, world.file)
    swaps = iter([WRONG, GOOD | {"mapping.yaml": mapping("last")}])

    def load_late(*, previous: Configuration) -> Configuration:
        files = next(swaps, None)
        if files is not None:
            world.config.replace(files)
        return load_configuration(settings, Redactor().redact, live=False, findings=True, previous=previous)

    reloader = Reloader(
        settings,
        lambda: settings,
        None,
        loaded=world.loaded,
        load=load_late,
        replace=world.given.append,
        every_seconds=0,
    )
    world.config.replace(GOOD | {"mapping.yaml": mapping("first")})
    settled = [reloader.look(asked=True) for _ in range(3)]
    assert settled == [False, False, True]
    assert [one.spec.identity.id for one in world.given[0].manifests.identity_mappings] == ["last"]
    assert len(world.given) == 1
    assert reloader.state().problems == ()


def test_thread_looks_by_itself_and_when_asked_and_ends(world: World) -> None:
    """Within `with` a change is found without asking and with; afterwards the thread is gone."""
    with world.reloader:
        world.config.replace(GOOD | {"mapping.yaml": mapping("after")})
        assert world.changed.wait(60)
        world.changed.clear()
        world.config.replace(GOOD | {"mapping.yaml": mapping("later")})
        world.reloader.look_now()
        assert world.changed.wait(60)
    assert wait_until(lambda: "keytrail-reload" not in {one.name for one in threading.enumerate()})


def test_what_failed_without_being_wrong_is_loaded_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Rules that could not be compiled for a while are in force afterwards though nothing changes; it is said once."""
    failures = [AsideError("compile_rules: the process for it ended with -9")] * 3
    load = world.reloader._load

    def load_late(*, previous: Configuration) -> Configuration:
        if failures:
            raise failures.pop()
        return load(previous=previous)

    world.reloader._load = load_late
    world.reloader._retries = Backoff(0.01, 0.05)
    world.reloader._every = 0  # so that nothing but the retries can help
    with world.reloader:
        assert wait_until(lambda: world.reloader._last is not None, 60)
        world.config.replace(GOOD | {"rule.yaml": rule("two")})
        world.reloader.look_now()
        assert world.changed.wait(60)
        assert wait_until(lambda: world.reloader.state().result is Result.IN_FORCE, 60)
    assert running(world.given[0]) == ["two"]
    assert sum("ended with -9" in message for message in caplog.messages) == 1
    assert world.reloader.state().refused == 1


def test_error_of_our_own_is_counted_and_looking_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody foresaw leaves its type in the log, not its text, and the thread alive."""
    failing = threading.Event()

    def fail_once(*, previous: Configuration) -> Configuration:
        if not failing.is_set():
            failing.set()
            raise RuntimeError("a secret")
        return previous

    settings = load_settings({"config": world.config.folder}, {}, None)
    reloader = Reloader(
        settings,
        lambda: settings,
        None,
        loaded=world.loaded,
        load=fail_once,
        replace=world.given.append,
        every_seconds=0.05,
    )
    world.config.replace(GOOD | {"mapping.yaml": mapping("after")})
    with reloader:
        assert failing.wait(60)
        world.config.replace(GOOD)
        assert wait_until(lambda: reloader.state().failures == 1)
        reloader.look_now()
    assert reloader.state().failures == 1
    assert "cannot reload (RuntimeError); the last good version stays in force" in caplog.messages
    assert "a secret" not in caplog.text
