"""The CollectorStatus on a real API server: made once, owned by its Node, written when there is something to say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keytrail.domain.agent import AgentFacts
from keytrail.domain.collector_status import IdentityUse, NodePolicyStatus
from keytrail.domain.status import PolicyState
from keytrail.kube.api import Api
from keytrail.kube.places import NODES
from keytrail.kube.status import StatusWriter
from keytrail.kube.status_content import Picture
from keytrail.observe.snapshot import BackendPart, GapsPart, ReloadPart, Snapshot, StreamPart
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
SECONDS = 60.0
START_NS = 1_700_000_000_000_000_000
Json = dict[str, Any]


class Node:
    """A node whose collector is well, and a clock that a test moves."""

    def __init__(self, api: Api, name: str) -> None:
        self.name = name
        self.seconds = 0.0
        stream = StreamPart(
            connected=True, address="unix:///run/tetragon.sock", agent_version="v1.7.0", lag_seconds=0.2
        )
        backend = BackendPart(endpoint="http://collector:4317", reachable=True)
        self.snapshot = Snapshot(START_NS, START_NS, "1.2.3", {}, 250.0, stream, backend=backend, reload=ReloadPart())
        self.agent = AgentFacts("v1.7.0", captures_environment=True, captures_credentials=True)
        self.policies = (NodePolicyStatus(name="tcp-connect", state=PolicyState.LOADED),)
        self.findings = {"shell-in-container": 2}
        api.apply(NODES.at(name=name), {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}, manager="t")
        self.writer = self.new_writer(api)

    def new_writer(self, api: Api) -> StatusWriter:
        """The writer of a collector that has just started."""
        return StatusWriter(api, self.name, self.picture, clock=lambda: self.seconds, uniform=lambda: 0.5)

    def picture(self) -> Picture:
        """What the collector knows."""
        now = replace(self.snapshot, now_ns=START_NS + int(self.seconds * 1e9))
        identities = (
            IdentityUse(id="openai-prod", last_used="2026-11-22T14:06:35Z", workloads=("ml/Deployment/chat",)),
        )
        return Picture(now, self.agent, (), self.policies, identities, self.findings)

    def pass_time(self, seconds: float) -> int:
        """Look every five seconds for so long, as the thread does; return how often that wrote."""
        wrote = 0
        for _ in range(int(seconds / 5)):
            self.seconds += 5
            wrote += self.writer.look()
        return wrote


@pytest.fixture
def node(api: Api, request: pytest.FixtureRequest) -> Node:
    """A node of the test's own."""
    return Node(api, request.node.name.replace("_", "-").removeprefix("test-"))


def status(control_plane: ControlPlane, node: Node) -> Json:
    """What the API server has."""
    found: Json = control_plane.get("collectorstatus", node.name)
    return found


def conditions(found: Json) -> dict[str, tuple[str, str]]:
    """Status and reason by type."""
    return {one["type"]: (one["status"], one["reason"]) for one in found["status"]["conditions"]}


def test_it_says_how_the_node_is_doing(control_plane: ControlPlane, node: Node) -> None:
    """The first look makes the object; its columns, conditions and lists say what the collector knows."""
    assert node.pass_time(10) == 1
    found = status(control_plane, node)
    assert {one["status"] for one in found["status"]["conditions"]} == {"True"}
    assert found["status"]["policies"] == [{"name": "tcp-connect", "state": "Loaded"}]
    assert found["status"]["identities"][0]["workloads"] == ["ml/Deployment/chat"]
    assert found["status"]["rules"] == [{"name": "shell-in-container", "findings24h": 2}]
    line = control_plane.kubectl("get", "collectorstatuses", node.name, "--no-headers").split()
    assert line[:8] == [node.name, "1.2.3", "v1.7.0", "1/1", "100", "0", "1s", "Delivering"]


def test_it_goes_with_its_node(control_plane: ControlPlane, node: Node) -> None:
    """The Node owns it without holding up its own deletion; once the Node is gone, so is the object."""
    assert node.pass_time(10) == 1
    uid = control_plane.get("node", node.name)["metadata"]["uid"]
    assert status(control_plane, node)["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": uid, "blockOwnerDeletion": False}
    ]
    control_plane.kubectl("delete", "node", node.name)
    assert wait_until(
        lambda: node.name not in control_plane.kubectl("get", "collectorstatuses", "--output=name"), SECONDS
    )


def test_a_quiet_state_is_written_as_a_heartbeat_only(control_plane: ControlPlane, node: Node, api: Api) -> None:
    """In two hours without a change of state, while every figure changes, there are twelve or thirteen writes."""
    assert node.pass_time(10) == 1
    before, wrote = api.usage()["patch", "collectorstatuses/status"].requests, 0
    for step in range(120):
        node.snapshot = replace(node.snapshot, events_per_second=float(step * 100), gaps=GapsPart(lost={}))
        node.findings = {"shell-in-container": step}
        wrote += node.pass_time(60)
    assert 12 <= wrote <= 13
    assert api.usage()["patch", "collectorstatuses/status"].requests - before == wrote
    assert status(control_plane, node)["status"]["eventsPerSecond"] == 10_000


def test_a_change_of_state_is_written_soon_and_not_more_than_once_a_minute(
    control_plane: ControlPlane, node: Node
) -> None:
    """An agent that comes and goes every five seconds costs one write a minute at most; the last state is told."""
    assert node.pass_time(10) == 1
    first = status(control_plane, node)["status"]["conditions"]
    well = node.snapshot.stream
    assert well is not None
    away = replace(well, connected=False, reason="connection refused")
    wrote = 0
    for _ in range(60):
        for stream in (away, well):
            node.snapshot = replace(node.snapshot, stream=stream)
            wrote += node.pass_time(5)
    assert 0 < wrote <= 10
    node.snapshot = replace(node.snapshot, stream=away)
    assert node.pass_time(95) == 1
    found = status(control_plane, node)
    assert conditions(found)["AgentConnected"] == ("False", "NotConnected")
    message = next(one["message"] for one in found["status"]["conditions"] if one["type"] == "AgentConnected")
    assert "connection refused; start Tetragon on this node" in message
    since = {one["type"]: one["lastTransitionTime"] for one in found["status"]["conditions"]}
    earlier = {one["type"]: one["lastTransitionTime"] for one in first}
    assert since["AgentConnected"] > earlier["AgentConnected"]
    assert since["BackendReachable"] == earlier["BackendReachable"]


def test_what_is_missing_is_said_with_the_change_to_make(control_plane: ControlPlane, node: Node) -> None:
    """Each condition that is False names the flag, the setting or the object that has to change."""
    node.agent = AgentFacts("v1.7.0", captures_environment=False, captures_credentials=False)
    backend = BackendPart(endpoint="http://collector:4317", reachable=False, last_error="no route to host\x1b[2J")
    node.snapshot = replace(
        node.snapshot, backend=backend, reload=ReloadPart(successful=False, problems=("f.yaml:3: x",))
    )
    node.policies = (*node.policies, NodePolicyStatus(name="egress", state=PolicyState.FAILED, message="no such hook"))
    assert node.pass_time(10) == 1
    found = status(control_plane, node)["status"]
    said = {one["type"]: one["message"] for one in found["conditions"] if one["status"] == "False"}
    assert set(said) == {"EnvironmentCaptured", "CredentialsCaptured", "BackendReachable", "ConfigurationAccepted"}
    assert "enable-process-environment-variables to 'true'" in said["EnvironmentCaptured"]
    assert said["EnvironmentCaptured"].index("field-filters") < said["EnvironmentCaptured"].index("enable-process-env")
    assert "enable-process-cred to 'true'" in said["CredentialsCaptured"]
    assert "no route to host\\x1b[2J" in said["BackendReachable"]
    assert "f.yaml:3: x" in said["ConfigurationAccepted"]
    assert (found["policiesLoaded"], found["backend"]) == ("1/2", "Retrying")


def test_times_of_conditions_outlive_the_collector(control_plane: ControlPlane, api: Api, node: Node) -> None:
    """A collector that starts anew writes into the same object; what stayed true keeps the time since when it is."""
    assert node.pass_time(10) == 1
    before = status(control_plane, node)
    node.seconds = 7200.0
    node.writer = node.new_writer(api)
    assert node.pass_time(10) == 1
    after = status(control_plane, node)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["heartbeatTime"] > before["status"]["heartbeatTime"]
    assert after["status"]["conditions"] == before["status"]["conditions"]


def test_it_is_made_again_when_somebody_deletes_it(control_plane: ControlPlane, node: Node) -> None:
    """A write that finds nothing is followed by one that makes the object anew."""
    assert node.pass_time(10) == 1
    control_plane.kubectl("delete", "collectorstatus", node.name)
    assert node.pass_time(1200) >= 1
    assert conditions(status(control_plane, node))["AgentConnected"] == ("True", "Connected")


def test_trouble_is_said_once(
    control_plane: ControlPlane, api: Api, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a Node of that name nothing is written, the log says so once, and it is tried again all the same."""
    stranger = Node(api, "stranger")
    control_plane.kubectl("delete", "node", "stranger")
    assert stranger.pass_time(600) == 0
    assert caplog.text.count("cannot write the CollectorStatus of node stranger: ") == 1
    assert "cannot get nodes stranger" in caplog.text
    assert node.pass_time(10) == 1


def test_the_thread_writes_and_ends(control_plane: ControlPlane, api: Api) -> None:
    """Started, it writes by itself; closed, it ends at once and writes no more."""
    node = Node(api, "threaded")
    moments: Callable[[], float] = iter(range(0, 10_000, 30)).__next__
    writer = StatusWriter(api, node.name, node.picture, look_seconds=0.05, clock=moments)
    writer.start()
    assert wait_until(lambda: writer.writes > 0, SECONDS)
    writer.close(SECONDS)
    written = writer.writes
    assert not writer._thread.is_alive()
    assert writer.writes == written
    assert conditions(status(control_plane, node))["AgentConnected"] == ("True", "Connected")


def test_what_it_takes_is_what_a_role_may_give(control_plane: ControlPlane, node: Node) -> None:
    """Every request is one of: get, patch and create collectorstatuses, patch their status, get nodes."""
    assert node.pass_time(10) == 1
    asked = set()
    for line in control_plane.audit_log.read_text().splitlines():
        entry = json.loads(line)
        found = entry.get("objectRef", {})
        if found.get("name") == node.name and str(entry.get("userAgent", "")).startswith("keytrail/"):
            resource = "/".join(filter(None, (found.get("resource"), found.get("subresource"))))
            asked.add((entry["verb"], resource))
    assert asked == {
        ("get", "collectorstatuses"),
        ("patch", "collectorstatuses"),
        ("patch", "collectorstatuses/status"),
        ("get", "nodes"),
        ("patch", "nodes"),  # the test's own
    }
