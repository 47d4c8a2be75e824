"""Rules that another process compiles: the same ones, the same problems, and nothing of it left in the collector's."""

import marshal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from keytrail import __version__, aside, cluster, configuration
from keytrail.aside import AsideError, Task, run_aside, run_here
from keytrail.configuration import Configuration, load_configuration
from keytrail.decode.redact import Redactor
from keytrail.domain.errors import ManifestError
from keytrail.domain.rules import DetectionRule
from keytrail.manifests import load_folder
from keytrail.reload import Reloader
from keytrail.settings import Settings
from reload.config_map import ConfigMap, mapping, rule

LOADED = """
import sys
from pathlib import Path
from keytrail.app import load_configuration
from keytrail.settings import Settings
folder = Path(sys.argv[1])
made = load_configuration(Settings(config=folder, rules=str(folder)), lambda text: (text, ()), live=True, findings=True)
print(*(one.name for one in made.engine.rules), *(name for name in sys.modules if "cel_expr" in name))
"""


def given(tmp_path: Path, **changed: str) -> Settings:
    """Settings with one rule, which takes the place of the shipped ones."""
    config = ConfigMap(tmp_path / "config", {"rule.yaml": rule("one", **changed)})
    return Settings(config=config.folder, rules=str(config.folder), origins={})


def test_another_process_compiles_the_same(tmp_path: Path) -> None:
    """Rules, code and constants are those that this process would have made."""
    settings = given(tmp_path, condition='process.name.matches("^a|b$") && process.uid in [1, 2]')
    there, here = (run(Task.COMPILE_RULES, settings) for run in (run_aside, run_here))
    assert replace(there, code=b"") == replace(here, code=b"")
    # The bytes of the same code differ by what else of its process refers to the same texts.
    assert marshal.loads(there.code) == marshal.loads(here.code)  # noqa: S302 - both were just written by us


def test_what_is_wrong_comes_back_with_its_place(tmp_path: Path) -> None:
    """A rule that cannot run is told by file, line and field, as if it had been read here."""
    settings = given(tmp_path, condition="process.nmae == 'x'")
    with pytest.raises(ManifestError) as caught:
        load_configuration(settings, Redactor().redact, live=True, findings=True)
    [problem] = caught.value.problems
    assert (problem.path, problem.line, problem.field) == (f"{settings.config}/rule.yaml", 12, "spec.condition")
    assert str(caught.value) == str(problem)


def test_a_damaged_library_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped rule that cannot run is told by file and line, if it was to run; one that is off costs no look."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "one.yaml").write_text(rule("one", condition="process.nmae == 'x'"))
    monkeypatch.setattr(configuration, "builtin_folder", lambda: tmp_path)
    with pytest.raises(ManifestError) as caught:
        run_here(Task.COMPILE_RULES, Settings())
    [problem] = caught.value.problems
    assert (problem.path, problem.line, problem.field) == (f"{folder}/one.yaml", 12, "spec.condition")
    assert run_here(Task.COMPILE_RULES, Settings(rules="none")).rules == ()


def test_the_engine_of_cel_stays_out_of_a_collector(tmp_path: Path) -> None:
    """A process that has put rules in force has never loaded the CEL engine."""
    folder = str(given(tmp_path).config)
    done = subprocess.run([sys.executable, "-c", LOADED, folder], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["one"]


def test_without_another_process_it_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started, as at a limit of processes, the rules are compiled all the same."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert [one.name for one in run_aside(Task.COMPILE_RULES, given(tmp_path)).rules] == ["one"]


def test_a_process_that_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put in force when the other process ends without an answer, or has none in time."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AsideError, match="ended with 1"):
        run_aside(Task.COMPILE_RULES)
    program = tmp_path / "waits"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(aside, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(AsideError, match="no answer"):
        run_aside(Task.COMPILE_RULES)


def test_an_upgrade_under_a_running_collector_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another version reads nothing of ours and makes no rules: it is said, and what is in force stays."""
    settings, replaced = given(tmp_path), list[Configuration]()
    load = partial(load_configuration, settings, Redactor().redact, live=True, findings=True)
    reloader = Reloader(settings, lambda: settings, None, loaded=load(), load=load, replace=replaced.append)
    monkeypatch.setattr(aside, "__version__", "0.0.9")
    (tmp_path / "config" / "rule.yaml").write_text(rule("another"))
    reloader.look(asked=True)
    assert reloader.state().problems == (
        f"the installed Keytrail is {__version__}, this process runs 0.0.9: restart it",
    )
    assert replaced == []


def test_a_credential_of_ours_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is not given our environment, which may hold the backend's headers."""
    program = tmp_path / "tells"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    with pytest.raises(AsideError):
        run_aside(Task.COMPILE_RULES)
    told = (tmp_path / "environment").read_text()
    assert "PATH=" in told
    assert "secret" not in told


def test_rules_of_the_api_server_are_judged_aside_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule is told; what comes beside it later is no reason to judge it again."""
    folder = ConfigMap(tmp_path / "config", {"rule.yaml": rule("one", condition="nope"), "mapping.yaml": mapping("x")})
    one, other = sorted(load_folder(folder.folder).resources, key=lambda resource: isinstance(resource, DetectionRule))
    judge = cluster._Judge(Settings())
    assert judge([one]) == {}
    [[fault]] = judge([other]).values()
    assert (fault.path, "nope" in fault.message) == (("spec", "condition"), True)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    [[again]] = judge([one, other]).values()
    assert again == fault
