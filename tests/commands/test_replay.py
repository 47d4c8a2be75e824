"""`keytrail replay`: the documented lines on real recordings, the accounting, the filters, bad input."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.commands import keytrail, replay
from support.recordings import STREAMS, folder, messages, window
from support.variants import with_long


def curls(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The execs of curl, in order."""
    return [
        record for record in records if record.get("event") == "process_exec" and record["binary"] == "/usr/bin/curl"
    ]


def of_window(recording: str, name: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records between a window's markers, found by the markers themselves: merged events shift positions."""
    lines = [json.dumps(record) for record in records]
    first = next(i for i, line in enumerate(lines) if f"tvm-window begin {name}" in line)
    last = max(i for i, line in enumerate(lines) if f"tvm-window end {name}" in line)
    assert window(recording, name)["stream_first"] <= first + 50
    return records[first:last]


def test_seed_demo_gives_the_documented_lines() -> None:
    """The first curl has the OpenAI identity, the second the unmapped credential, both in the contract's form."""
    records = replay("seed-demo").records
    first, second = curls(records)
    assert list(first)[:8] == ["ts", "category", "hostname", "event", "pid", "binary", "args", "parent"]
    assert first["ts"] == "2026-11-22T01:37:51.302709850Z"
    assert (first["category"], first["hostname"], first["event"]) == ("exec", "tvm", "process_exec")
    assert first["args"] == "-s http://127.0.0.1:8000/v1/models.json"
    assert first["parent"] == {"pid": 1941, "binary": "/usr/bin/python3"}
    assert first["identity"] | {} == {
        "type": "env", "key": "OPENAI_API_KEY", "present": True, "id": "openai_api_key-present",
        "provider": "openai", "kind": "api_key",
    }  # fmt: skip
    assert second["identity"] == {
        "type": "env", "key": "CLOSEDAI_API_KEY", "present": True, "id": "closedai_api_key-present", "mapped": False,
    }  # fmt: skip


def test_exits_are_other_lines() -> None:
    """An event that is neither exec nor kprobe is an `other` line that names its kind."""
    exits = [record for record in replay("seed-demo").records if record["category"] == "other"]
    assert len(exits) == 16
    assert {(record["event"], record["kind"], record["hostname"]) for record in exits} == {("other", "exit", "tvm")}


def test_connection_carries_network_and_the_identity_of_its_exec() -> None:
    """In window env-openai-curl the tcp_connect line has both addresses and the identity its exec line has."""
    records = of_window("policy-library", "env-openai-curl", replay("policy-library").records)
    (connect,) = [record for record in records if record.get("event") == "kprobe:tcp_connect"]
    (exec_,) = curls(records)
    assert connect["category"] == "kprobe"
    assert connect["identity"] == exec_["identity"]
    assert connect["identity"]["id"] == "openai_api_key-present"
    network = connect["network"]
    assert {name: network[name] for name in ("saddr", "daddr", "dport", "family", "protocol")} == {
        "saddr": "127.0.0.1", "daddr": "127.0.0.1", "dport": 8000, "family": "AF_INET", "protocol": "IPPROTO_TCP",
    }  # fmt: skip
    assert network["sport"] > 1024


def test_keyless_curl_is_identified_by_its_arguments() -> None:
    """In window sni-cli no variable is set, and the command line names OpenAI."""
    records = of_window("kubernetes", "sni-cli", replay("kubernetes").records)
    identities = [record["identity"] for record in curls(records) if "openai" in record["args"]]
    assert identities
    assert all(
        {"type": "argv", "name": "openai", "id": "argv-openai"}.items() <= identity.items() for identity in identities
    )


def test_default_flags_say_not_captured() -> None:
    """An agent that sends no environments gives `not_captured`, not `null`: nobody could look."""
    records = replay("seed-demo-default-flags").records
    assert [record["identity"] for record in curls(records)] == [{"type": "unknown", "reason": "not_captured"}] * 2


def test_users_mapping_names_the_identity(tmp_path: Path) -> None:
    """With a mapping in the folder, `id` is the mapping's, and provider and kind come from the built-in one."""
    (tmp_path / "openai.yaml").write_text(
        "apiVersion: keytrail.io/v1alpha1\nkind: ClusterIdentityMapping\nmetadata: {name: openai-prod}\n"
        "spec: {identity: {owner: team-ml}, evidence: {env: [{name: OPENAI_API_KEY}]}}\n"
    )
    first, _ = curls(replay("seed-demo", "--config", tmp_path).records)
    identity = first["identity"]
    assert (identity["id"], identity["mapping"], identity["strength"]) == ("openai-prod", "openai-prod", "observed")
    assert (identity["key"], identity["provider"]) == ("OPENAI_API_KEY", "openai")


@pytest.mark.parametrize("name", with_long(STREAMS, "event-flood"))
def test_every_recording_adds_up(name: str, tmp_path: Path) -> None:
    """No message of any recording is undecodable, and both accounting equations are exact."""
    summary_file = tmp_path / "summary.json"
    ran = replay(name, "--summary", summary_file)
    events, records = (json.loads(summary_file.read_text())[part] for part in ("events", "records"))
    assert ran.code == 0
    assert events["undecodable"] == 0
    assert events["received"] == len(messages(name)) == events["decoded"] + sum(events["dropped"].values())
    assert set(events["dropped"]) <= {"duplicate_hook"}
    assert sum(events["by_kind"].values()) == events["decoded"] == len(ran.records) == records["exported"]
    assert records["made"] == records["exported"] + records["queued"] + sum(records["dropped"].values())
    assert records["queued"] == 0


def test_filters_restrict_and_are_counted(tmp_path: Path) -> None:
    """Kind and binary together leave the connections of curl; all else is counted as filtered, not lost."""
    summary_file = tmp_path / "summary.json"
    ran = replay(
        "policy-library",
        "--kind",
        "connect",
        "--binary",
        "/curl$",
        "--policy-names",
        "obs-network",
        "--summary",
        summary_file,
    )
    assert {(record["event"], record["binary"]) for record in ran.records} == {("kprobe:tcp_connect", "/usr/bin/curl")}
    events = json.loads(summary_file.read_text())["events"]
    assert events["dropped"]["filtered"] == events["received"] - len(ran.records)


def test_namespace_and_pod_filters_use_pod_metadata() -> None:
    """Only events of the pods asked for are left."""
    ran = replay("kubernetes", "--namespace", "ml", "--pod", "^chat-api-")
    pods = {(record["pod"]["namespace"], record["pod"]["name"].rsplit("-", 2)[0]) for record in ran.records}
    assert pods == {("ml", "chat-api")}


def test_line_output_is_plain_text_without_a_terminal() -> None:
    """Piped line output has no colour and no control character, whatever the recording holds."""
    ran = replay("odd-input", "--output", "line")
    assert len(ran.out.splitlines()) == len(messages("odd-input"))
    assert all(" " <= char <= "~" or char == "\n" for char in ran.out)


def test_reader_that_leaves_ends_the_command(tmp_path: Path) -> None:
    """`| head` ends the replay with exit code 0 and no traceback, and what it did not read is counted."""
    summary_file = tmp_path / "summary.json"
    command = [sys.executable, "-m", "keytrail", "replay", str(folder("event-flood")), "--summary", str(summary_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"ts"')
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")
    records = json.loads(summary_file.read_text())["records"]
    assert records["dropped"]["output_closed"] > 0
    assert records["made"] == records["exported"] + records["dropped"]["output_closed"]


def test_standard_input_gives_the_same_lines() -> None:
    """Standard input is read like a file, but of the agent's flags nothing is known before the stream shows it."""
    stream = b"".join(_framed(message) for message in messages("policy-library"))
    command = [sys.executable, "-m", "keytrail", "replay", "-"]
    ran = subprocess.run(command, input=stream, capture_output=True, check=True)
    piped, expected = ran.stdout.decode().splitlines(), replay("policy-library").out.splitlines()
    differing = [(a, b) for a, b in zip(piped, expected, strict=True) if a != b]
    unknown = '"identity":{"type":"unknown","reason":"not_captured"}'
    assert [a.replace(unknown, '"identity":null') for a, _ in differing] == [b for _, b in differing]
    assert len(differing) < 60


def _framed(message: bytes) -> bytes:
    size, prefix = len(message), bytearray()
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    return bytes([*prefix, size]) + message


BAD = {
    "missing file": (["replay", "no-such-recording.pb"], 2, "no-such-recording.pb"),
    "missing manifests": (["replay", "seed-demo", "--config", "no-such-folder"], 2, "no-such-folder"),
    "unknown kind": (["replay", "seed-demo", "--kind", "conect"], 2, "connect"),
    "bad expression": (["replay", "seed-demo", "--binary", "("], 2, "("),
    "unknown output": (["replay", "seed-demo", "--output", "xml"], 2, "json"),
    "no backend": (["replay", "seed-demo", "--output", "otlp"], 2, "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "summary nowhere": (["replay", "seed-demo", "--summary", "no/such/folder/s.json"], 2, "no/such/folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_what_to_do(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each wrong call ends with its exit code and a message that names what is wrong or what is expected."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    argv, code, hint = BAD[case]
    ran = keytrail(*argv)
    assert ran.code == code
    assert hint in ran.err
    assert "Traceback" not in ran.err


def test_truncated_recording_delivers_what_is_whole_and_says_so(tmp_path: Path) -> None:
    """A recording that was cut gives its whole events, then exit code 1 and the place of the damage."""
    stream = b"".join(_framed(message) for message in messages("seed-demo"))
    cut = tmp_path / "cut.pb"
    cut.write_bytes(stream[:-10])
    ran = keytrail("replay", cut)
    assert ran.code == 1
    assert len(ran.records) == len(messages("seed-demo")) - 1
    assert "cut.pb" in ran.err


def test_undecodable_messages_are_counted_and_the_stream_goes_on(tmp_path: Path) -> None:
    """Bytes that are no message, and an event of an unknown type, are counted by reason; their neighbours arrive."""
    good = messages("seed-demo")
    unknown = b"\xfa\x3e\x02\x08\x01"  # field 1007, which no release has
    odd = tmp_path / "odd.pb"
    odd.write_bytes(b"".join(map(_framed, [good[0], b"\xff\xff\xff", good[1], unknown, good[2]])))
    ran = keytrail("replay", odd, "--summary", tmp_path / "s.json")
    events = json.loads((tmp_path / "s.json").read_text())["events"]
    assert len(ran.records) == 3
    assert events["undecodable_by_reason"] == {"malformed": 1, "unknown_event": 1}
    assert events["received"] == 5
