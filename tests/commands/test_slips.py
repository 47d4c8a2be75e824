"""Slips of a hand: each command names the next step, the nearest name first."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from support.commands import keytrail
from support.recordings import folder

SECONDS = 60.0
POLICY = Path(__file__).parents[2] / "policies" / "tracing" / "tcp-connect.yaml"
MAPPING = """apiVersion: keytrail.io/v1alpha1
kind: ClusterIdentityMapping
metadata: {{name: {}}}
spec: {{evidence: {{env: [{{name: {}}}]}}}}
"""
RULE = """apiVersion: keytrail.io/v1alpha1
kind: DetectionRule
metadata: {name: two-steps}
spec:
  title: A key is read, then a connection is made
  description: By the process or one that it started.
  severity: high
  maturity: stable
  events: [connect]
  condition: network.peer_port == 443
  sequence: {within: 1m, by: %s, steps: [{events: [file], condition: 'file.path == "/srv/key"'}]}
  message: "{process.binary} connected"
  tests:
    - name: by what it started
      events:
        - {event: {kind: file, at: 0}, process: {exec_id: a, binary: /bin/sh}, file: {path: /srv/key}}
        - {event: {at: 5}, process: {exec_id: b, binary: /bin/nc, parent_exec_id: a}, network: {peer_port: 443}}
      match: true
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A recorded agent that has none of the shipped policies."""
    where = f"unix://{tmp_path}/tetragon.sock"
    with FakeTetragon(where, profile=AgentProfile.of_recording(folder("policy-library"))):
        yield where


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("wach",), "keytrail: unknown value 'wach', did you mean watch? (`keytrail --help` tells more)"),
        (("rules", "chekc"), "keytrail rules: unknown value 'chekc', did you mean check?"),
        (("collect", "--ouput", "json"), "keytrail collect: unknown option --ouput, did you mean --output? (`keytrail"),
        (("replay", "x", "--output", "jsno"), "argument --output: unknown value 'jsno', did you mean json?"),
        (("doctor", "--zzz=sk-secret"), "keytrail doctor: unknown option --zzz (`keytrail doctor --help` tells more)"),
        (("collect", "--output", "findings,jsno"), "argument --output: unknown value 'jsno', did you mean json?"),
        (
            ("watch", "--output", "otlp"),
            "argument --output: unknown value 'otlp', expected one of line, json, findings",
        ),
        (("replay", "seed-demo", "--pace", "fast"), "expected a number from 0.001 on, found 'fast'"),
        (("record", ".", "--agent", "localhost:1"), ".: it is a folder, name a file in it"),
        (("fake-tetragon", "seed-demo", "--listen", "tetragon.sock"), "cannot listen there, expected unix:///path or"),
        (("fake-tetragon", "seed-demo", "--listen", "localhost:0", "--metrics", "foo"), "--metrics foo: "),
        (("config", "show", "--settings", str(POLICY)), "yaml:10: this is a manifest, and no settings: --config takes"),
        (("demo", "seed-demo"), "keytrail demo: 'seed-demo' is one word too many"),
        (
            ("replay", "x", "--rules", "stabel"),
            "--rules: expected stable, all, none or a folder of rules, and",
        ),
        (("replay", "x", "--rules", "stabel"), "no such folder, did you mean stable?"),
        (("policies", "load", "tcp-conect"), "tcp-conect: no file and no shipped policy, did you mean tcp-connect?"),
        (("policies", "load", "./tcp-connect"), "./tcp-connect: No such file or directory"),
        (("nodes", "--kubeconfig", "/nonexistent"), "there is no such file: --kubeconfig names another"),
    ],
)
def test_the_nearest_name(argv: tuple[str, ...], said: str) -> None:
    """What was mistyped is refused in one line, which repeats no value of an option that there is not."""
    ran = keytrail(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "sk-secret" not in ran.err
    assert ran.err.count("\n") == 1


def test_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only wants to look is told how to do without a backend."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    ran = keytrail("collect", "--agent", "unix:///nonexistent/x.sock")
    assert ran.code == 2
    assert "(--output findings writes them to standard output instead)" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user who may do nothing, and only root can become one")
def test_a_folder_for_root_alone(tmp_path: Path) -> None:
    """A path below a folder that may not be entered is wrong use, and no internal error."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "keytrail"]
    command = [*unprivileged, "replay", "seed-demo", "--config", closed / "x"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"keytrail: {closed}/x: Permission denied (is it for root alone?)\n"


def test_a_recording_of_no_agent(tmp_path: Path) -> None:
    """A recording that is empty because no agent was there is a failure."""
    file = tmp_path / "x.pb"
    ran = keytrail("record", file, "--seconds", "0.2", "--agent", f"unix://{tmp_path}/none.sock")
    assert ran.code == 1
    assert ran.out == f"{file}: 0 events, for no agent answered (`keytrail doctor` says why)\n"


def test_a_file_that_is_no_recording(tmp_path: Path) -> None:
    """What cannot be read is told of, and is a failure when it is all that there is."""
    file = tmp_path / "x.json"
    file.write_text('{"a": 1}\nnot JSON\n')
    ran = keytrail("replay", file)
    assert (ran.code, ran.out) == (1, "")
    assert f"{file}: 2 of 2 events cannot be read (malformed 2): is it a recording" in ran.err
    file.write_text('{"process_exec": {"process": {"binary": "/bin/ls"}}, "time": "2026-01-01T00:00:00Z"}\nnot JSON\n')
    ran = keytrail("replay", file)
    assert (ran.code, len(ran.records)) == (0, 1)
    assert "1 of 2 events cannot be read (malformed 1)" in ran.err


def test_a_mapping_that_matches_nothing(tmp_path: Path) -> None:
    """The replay of a recording names the mappings that tied no process, and not the others."""
    for name, variable in (("openai", "OPENAI_API_KEY"), ("openia", "OPENIA_API_KEY")):
        (tmp_path / f"{name}.yaml").write_text(MAPPING.format(name, variable))
    ran = keytrail("replay", "seed-demo", "--config", tmp_path)
    assert ran.code == 0
    assert ran.err == "keytrail: no process was tied to openia: docs/identities.md says what may be missing\n"


def test_policies_that_rules_wait_for(address: str, tmp_path: Path) -> None:
    """What is missing is named with the line that loads it, by names that work wherever Keytrail is installed."""
    for name, sensors in (("one", "[tcp-connect, environment]"), ("two", "[egress, tcp-connect]")):
        text = (
            (RULE % "tree")
            .replace("two-steps", name)
            .replace("maturity: stable", f"requires: {sensors}\n  maturity: stable")
        )
        (tmp_path / f"{name}.yaml").write_text(text)
    needed = ("policies", "needed", "--rules", tmp_path, "--agent", address)
    ran = keytrail(*needed)
    assert ran.code == 1
    assert [line.split("  ")[0] for line in ran.out.splitlines()] == [
        "POLICY",
        "egress",
        "tcp-connect",
        "to load what is missing: keytrail policies load tcp-connect",
        "egress means nothing without values of yours: docs/policies.md#egress",
    ]
    assert keytrail("policies", "load", "tcp-connect", "--agent", address).code == 0
    _, egress, connect, *_ = keytrail(*needed).out.splitlines()
    assert egress.split() == ["egress", "not", "loaded", "medium", "1.4", "1"]
    assert connect.split() == ["tcp-connect", "enabled", "medium", "1.4", "2"]


def test_policies_that_an_old_agent_does_not_take(tmp_path: Path) -> None:
    """What the agent is too old for is not in the line that loads the rest."""
    (tmp_path / "rule.yaml").write_text(
        (RULE % "tree").replace("  events:", "  requires: [tcp-connect, kernel-modules]\n  events:", 1)
    )
    where = f"unix://{tmp_path}/tetragon.sock"
    with FakeTetragon(where, release="1.6"):
        ran = keytrail("policies", "needed", "--rules", tmp_path, "--agent", where)
    assert ran.code == 1
    assert "policies load tcp-connect\n" in ran.out
    assert ran.out.endswith("need a newer Tetragon than v1.6.0: kernel-modules\n")


@pytest.mark.parametrize("by", ["tree", "command"])
def test_a_parent_by_its_id_alone(tmp_path: Path, by: str) -> None:
    """In a rule's test `parent_exec_id` is enough to say whose child a process is."""
    (tmp_path / "rule.yaml").write_text(RULE % by)
    ran = keytrail("rules", "test", tmp_path)
    assert (ran.code, ran.out) == (0, "1 passed, 0 failed\n")
