"""Findings as JSON lines and as OTLP records: the contract's keys, uids that repeat, nothing that acts on a terminal."""

# ruff: noqa: E501 - tables, read row by row

import json
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from keytrail.detect import Engine
from keytrail.detect.made_event import made_event
from keytrail.domain.event import EventKind
from keytrail.domain.finding import Finding
from keytrail.domain.rules import DetectionRule, Severity
from keytrail.domain.shape import read
from keytrail.export.finding_line import finding_line
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_finding import FINDING, FindingEncoder

SPEC: dict[str, Any] = {
    "title": "Shell in a container",
    "description": "d",
    "severity": "high",
    "maturity": "stable",
    "mitre": [{"tactic": "TA0002", "technique": "T1059.004"}],
    "references": ["https://attack.mitre.org/techniques/T1059/004/"],
    "events": ["connect"],
    "condition": "true",
    "message": "{process.name} ({process.arguments})",
    "suppress": {"by": ["process.binary"], "window": "1m"},
}
EVENT: dict[str, Any] = {
    "event": {"function": "tcp_connect", "node": "n1"},
    "process": {"binary": "/bin/sh", "arguments": "-c \u2028\x7f\x1b", "pid": 7, "exec_id": "x7", "cwd": "/", "uid": 0},
    "parent": {"binary": "/usr/sbin/sshd"},
    "pod": {"namespace": "shop", "name": "web-0", "uid": "u", "container": "app", "workload_kind": "Deployment", "workload": "web"},
    "network": {"family": "AF_INET", "protocol": "IPPROTO_TCP", "peer_address": "1.2.3.4", "peer_port": 443, "local_port": 40000},
    "payload": {"server_name": "api.openai.com"},
    "file": {"path": "/etc/shadow", "access": "read"},
    "credentials": {"uid": 1000, "euid": 0, "gid": 5, "egid": 5},
    "identity": {"id": "openai-prod", "kind": "api_key", "provider": "openai", "mapping": "m", "name": "OPENAI_API_KEY"},
    "args": [{"text": "what the process wrote"}],
}  # fmt: skip


def findings(*events: dict[str, Any], **changes: Any) -> list[Finding]:
    """What the rule says of events, and at the end."""
    rule, faults = read(DetectionRule, {"metadata": {"name": "shell"}, "spec": {**SPEC, **changes}})
    assert rule is not None, faults
    engine = Engine.load([rule])
    found = [finding for event in events for finding in engine.detect(made_event(event, EventKind.CONNECT))]
    return [*found, *engine.flush()]


def test_line() -> None:
    """Every part of the contract, in its order, and what a process wrote in none of them."""
    (finding,) = findings(EVENT)
    line = finding_line(finding)
    found = json.loads(line)
    assert line.isascii()
    assert line.isprintable()
    assert "what the process wrote" not in line
    assert list(found) == ["ts", "rule", "title", "severity", "maturity", "message", "uid", "event", "process", "identity", "credential", "pod", "network", "file", "version"]  # fmt: skip
    assert found["ts"] == "2026-09-21T14:13:20.000000000Z"
    assert found["event"] == {"kind": "connect", "function": "tcp_connect"}
    assert found["process"] == {
        "exec_id": "x7", "pid": 7, "uid": 0, "euid": 0, "gid": 5, "egid": 5, "binary": "/bin/sh",
        "arguments": "-c \u2028\x7f\x1b", "cwd": "/", "ancestors": ["/usr/sbin/sshd"],
    }  # fmt: skip
    assert found["identity"] == {
        "id": "openai-prod", "kind": "api_key", "provider": "openai", "mapping": "m", "strength": "observed",
        "evidence": [{"type": "env", "name": "OPENAI_API_KEY", "id": "openai-prod"}],
    }  # fmt: skip
    assert found["credential"] == {"source": "env", "name": "OPENAI_API_KEY"}
    assert found["network"] == {"peer_address": "1.2.3.4", "peer_port": 443, "local_port": 40000, "protocol": "tcp", "server_name": "api.openai.com"}  # fmt: skip
    assert found["file"] == {"path": "/etc/shadow", "access": "read"}
    assert found["pod"]["workload"] == "web"


def test_absent_parts_are_left_out() -> None:
    """A finding about next to nothing has no empty parts."""
    (finding,) = findings({"process": {"binary": "/bin/sh"}})
    assert {"identity", "credential", "pod", "network", "file", "suppressed", "count", "steps"}.isdisjoint(
        json.loads(finding_line(finding))
    )


def test_uid_repeats_and_tells_apart() -> None:
    """The same stream gives the same uids again; another event, rule, identity or summary has another."""
    twice = [
        [json.loads(finding_line(finding))["uid"] for finding in findings(EVENT, {**EVENT, "event": {"at": 1}})]
        for _ in range(2)
    ]
    assert twice[0] == twice[1]
    others = [
        findings(EVENT, condition="1 == 1"),
        findings({**EVENT, "identity": {"id": "other", "name": "OPENAI_API_KEY"}}),
        findings({**EVENT, "network": {"peer_address": "1.2.3.4", "peer_port": 444}}),
    ]
    uids = [*twice[0], *(json.loads(finding_line(found[0]))["uid"] for found in others)]
    assert len(set(uids)) == len(uids) == 5


def test_summary() -> None:
    """A summary is its finding again, at the window's end and with the number of repeats."""
    first, summary = findings(EVENT, {**EVENT, "event": {"at": 1}}, {**EVENT, "event": {"at": 70, "kind": "connect"}})[
        :2
    ]
    assert [json.loads(finding_line(one)).get("suppressed") for one in (first, summary)] == [None, 1]
    assert summary.time_ns - first.time_ns == 60 * 10**9


def test_otlp_record() -> None:
    """The record has the event's attributes, the rule's, its severity, and the name by which backends find it."""
    (finding,) = findings(EVENT)
    encoder = RecordEncoder({"service.name": "keytrail"}, lambda: 5)
    key, encoded = FindingEncoder(encoder).encode(finding)
    record = LogRecord.FromString(encoded)
    values = {pair.key: pair.value for pair in record.attributes}
    assert len(values) == len(record.attributes)
    assert (record.severity_number, record.severity_text, record.event_name) == (17, "HIGH", "keytrail.finding")
    assert record.body.string_value == finding.message
    assert record.time_unix_nano == finding.time_ns
    assert values["keytrail.record.kind"].string_value == "finding"
    assert values["log.record.uid"].string_value == json.loads(finding_line(finding))["uid"]
    assert values["security_rule.name"].string_value == "shell"
    assert values["network.peer.address"].string_value == "1.2.3.4"
    assert values["keytrail.identity.id"].string_value == "openai-prod"
    assert [one.string_value for one in values["keytrail.process.ancestors"].array_value.values] == ["/usr/sbin/sshd"]
    assert {name for name in values if name.startswith(("security_rule", "keytrail.threat"))} <= {
        name for name, *_ in FINDING.rows
    }
    assert b"shop" in key
    assert b"what the process wrote" not in encoded


def test_every_severity_has_its_number() -> None:
    """Info 9, low 10, medium 13, high 17, critical 21."""
    encoder = FindingEncoder(RecordEncoder({}, lambda: 5))
    numbers = [
        LogRecord.FromString(encoder.encode(findings(EVENT, severity=severity.value)[0])[1]).severity_number
        for severity in Severity
    ]
    assert numbers == [9, 10, 13, 17, 21]
