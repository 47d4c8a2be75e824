"""`keytrail status` against a real server: the page, the exit code, and a server that is not what it should be."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from keytrail.commands import status as command
from keytrail.observe.http_server import OwnHttp
from keytrail.observe.status_page import status_document
from keytrail.observe.status_text import status_lines
from observe.pictures import Given, changed, healthy, troubled
from support.commands import Ran, keytrail


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KEYTRAIL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(command, "_ANSWER_SECONDS", 60.0)  # a slow machine is not what any of these is about


def status(server: OwnHttp, *options: str) -> Ran:
    """Run the command against a server."""
    return keytrail("status", "--address", f"127.0.0.1:{server.address[1]}", *options)


def test_a_healthy_collector_on_one_page(server: OwnHttp) -> None:
    """Everything that a person asks for is there with its numbers, and the exit code says that all is well."""
    ran = status(server)
    assert (ran.code, ran.err) == (0, "")
    first, since, *rest = ran.out.splitlines()
    assert first == f"keytrail 9.8.7 at 127.0.0.1:{server.address[1]}: ready"
    assert since == "since 2026-11-18T09:06:40Z, asked at 2026-11-18T11:06:40Z"
    assert [line.rstrip() for line in rest[:20]] == [
        "agent      connected since 2026-11-18T11:05:40Z, unix:/run/t.sock, read with http2",
        "           Tetragon v1.7.0, connected 2 times",
        "events     12.5 a second, the newest 0.2 s old",
        "           11 of at most 65536 wait",
        "           received 100 = decoded 90 + undecodable 2 + dropped 8",
        "           decoded: connect 20, exec 70",
        "           undecodable: malformed 2",
        "           dropped: duplicate_hook 5 (as intended), queue_full 3",
        "records    made 56 = exported 30 + queued 17 + suppressed 7 + dropped 2",
        "           6 of them recovered from an earlier run",
        "           suppressed: repeated 7",
        "           dropped: spool_evicted 2",
        "spool      3.0 MiB of at most 1.0 GiB, on disk",
        "           17 records wait, 1 not on disk yet, the oldest of 2026-11-18T11:05:10Z",
        "           by severity: high 16, critical 1",
        "backend    collector:4317: takes records",
        "           requests: accepted 9, retry 1",
        "           last success 2026-11-18T11:06:38Z",
        "           last error 2026-11-18T11:06:10Z: UNAVAILABLE: no",
        "gaps       none known",
    ]
    cluster = next(number for number, line in enumerate(rest) if line.startswith("cluster"))
    assert rest[cluster : cluster + 6] == [
        "cluster    https://10.96.0.1:443: 5 requests, 2.0 KiB received",
        "           pods of this node: 31 objects, last heard 2026-11-18T11:06:35Z",
        "           services: 12 objects",
        "           33 pods of this node known, 140 addresses of peers",
        "           2 events wait for their pod, 9 ever did",
        "           processes not fully known: forged 1",
    ]
    assert rest[rest.index("rules      2 in force") + 2 :][:3] == [
        "identities openai-prod carried last 2026-11-18T11:05:40Z by ml/Deployment/chat, ml/CronJob/report",
        "           stripe-prod carried last 2026-11-18T09:06:40Z",
        "           findings within 24 hours: shell-in-container 4",
    ]
    assert "           findings: key-elsewhere 1, shell-in-container 4" in rest
    assert "reload     as read last, read 2026-11-18T09:06:40Z" in rest


def test_what_needs_attention_is_said_first(server: OwnHttp, probe: Given) -> None:
    """Complaints stand at the top, gaps are listed newest first with what was lost, and the exit code is 1."""
    probe.snapshot_ = troubled()
    ran = status(server)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[2] == "  - events are decided on 9 s after they happened"
    gaps = [line[11:] for line in lines[lines.index(next(x for x in lines if x.startswith("gaps"))) :][:3]]
    assert gaps == [
        "2026-11-18T10:56:40Z to 2026-11-18T10:56:41Z late: an unknown number lost",
        "2026-11-18T10:56:40Z to 2026-11-18T10:56:49Z agent_away: an unknown number lost",
        "2026-11-18T10:56:40Z to 2026-11-18T10:56:42Z reader_slow: 150 lost, 40 of them found again",
    ]
    assert "no answer for events: shell-in-container 2, key-elsewhere 1" in ran.out
    assert "not as given: mine: spec.condition: no such field" in ran.out
    assert "           services: NOT watched (no answer in time) 0 objects" in ran.out
    assert "           not as given: DetectionRule mine: spec.condition: no such field" in ran.out


def test_a_rule_that_failed_long_ago_is_only_counted(server: OwnHttp, probe: Given) -> None:
    """One event that a rule had no answer for stays on the page, and is no fault to look at for more than an hour."""
    probe.snapshot_ = changed(healthy(), rules={"failures": {"shell-in-container": 1}})
    ran = status(server)
    assert (ran.code, "no answer for events: shell-in-container 1" in ran.out) == (0, True)


def test_a_collector_that_is_not_ready(server: OwnHttp, probe: Given) -> None:
    """Without an agent the page says NOT READY and why, with exit code 1."""
    probe.snapshot_ = changed(healthy(), stream={"connected": False, "reason": "refused: is Tetragon running?"})
    ran = status(server)
    assert ran.code == 1
    assert "NOT READY" in ran.out.splitlines()[0]
    assert "! not connected to the agent at unix:/run/t.sock: refused: is Tetragon running?" in ran.out


def test_what_the_agent_is_not_asked_for(server: OwnHttp, probe: Given) -> None:
    """Types of event that stay with the agent are no complaint, and can be seen."""
    probe.snapshot_ = changed(healthy(), stream={"left_out": ("PROCESS_LOADER", "PROCESS_USDT")})
    ran = status(server)
    assert ran.code == 0
    assert "not asked for PROCESS_LOADER, PROCESS_USDT, which nobody looks at" in ran.out


def test_json_is_the_document(server: OwnHttp, probe: Given) -> None:
    """--output json gives what /status serves, with the same exit codes."""
    ran = status(server, "--output", "json")
    assert (ran.code, json.loads(ran.out)["accounting"]) == (0, probe.snapshot_.accounting)
    probe.snapshot_ = troubled()
    assert status(server, "--output", "json").code == 1


def test_the_address_comes_from_the_settings(server: OwnHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --address the setting http_address decides; one that means every address is asked on loopback."""
    monkeypatch.setenv("KEYTRAIL_HTTP_ADDRESS", f"0.0.0.0:{server.address[1]}")
    assert keytrail("status").code == 0
    monkeypatch.setenv("KEYTRAIL_HTTP_ADDRESS", "off")
    ran = keytrail("status")
    assert (ran.code, "http_address is off" in ran.err) == (2, True)


def test_nobody_there() -> None:
    """Where nobody listens, or the address is none, the exit code is 2 with a hint."""
    with socket.socket() as bound:  # and not listening: nobody else gets the port meanwhile
        bound.bind(("127.0.0.1", 0))
        ran = keytrail("status", "--address", f"127.0.0.1:{bound.getsockname()[1]}")
    assert (ran.code, "no collector answers" in ran.err) == (2, True)
    ran = keytrail("status", "--address", "nonsense")
    assert (ran.code, "expected host:port" in ran.err) == (2, True)


@pytest.mark.parametrize(
    "body", [b"not json", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'"\x1b[2J"'], ids=range(6)
)  # fmt: skip
def test_something_else_answers(body: bytes) -> None:
    """A server that is no collector is said to be none, whatever it sends."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        serving = threading.Thread(target=other.handle_request)
        serving.start()
        ran = keytrail("status", "--address", f"127.0.0.1:{other.server_port}")
        serving.join()
    assert (ran.code, "no keytrail collector" in ran.err) == (2, True)


def test_a_hostile_document_is_shown_harmlessly() -> None:
    """Wrong types, escape sequences and missing parts give a page without anything raw, never an error."""
    evil = "\x1b]0;x\x07\n\u202e"
    nothing: dict[str, object] = {}
    documents: list[dict[str, object]] = [
        nothing,
        dict.fromkeys(
            ("version", "stream", "accounting", "gaps", "rules", "cluster", "recent", "reasons", "degraded"), evil
        ),
        {
            "ready": True,
            "reasons": [evil, None, 3],
            "degraded": [[evil]],
            "stream": {"reason": evil, "lag_seconds": evil},
        },
        {"accounting": {"events": {"received": evil, "dropped": {evil: evil}}, "findings": {evil: {evil: evil}}}},
        {"gaps": {"recent": [{"cause": evil, "lost": evil}, evil]}, "rules": {"refused": {evil: [evil]}, "enabled": 3}},
        {
            "spool": {"bytes": evil, "by_lane": [evil]},
            "backend": {"endpoint": evil, "reachable": evil, "failed": [evil]},
        },
        {
            "usage": {"cpu_user_seconds": evil, "memory_bytes": -1},
            "reload": {"problems": [evil]},
            "inbox": {"events": None},
        },
    ]
    for document in documents:
        for line in status_lines(document, evil, 80):
            assert line.isprintable(), document


@pytest.mark.parametrize("width", [0, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Lines are wrapped, long words too; a terminal narrower than 30 columns is taken as one of 30."""
    document = status_document(changed(troubled(), stream={"address": "unix:/" + "long/" * 40}))
    lines = status_lines(document, "127.0.0.1:9464", width)
    assert max(map(len, lines)) <= max(width, 30)
