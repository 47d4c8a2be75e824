"""`keytrail collect` in a cluster: what is applied decides on the stream, and the node's status says so."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keytrail.domain import crds
from keytrail.kube.api import Api
from keytrail.kube.places import NODES
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from support.components.control_plane import ControlPlane
from support.processes import CollectorProcess, wait_until
from support.synthetic import START, exec_event, kprobe_event, process

pytestmark = [
    pytest.mark.cluster("kubernetes", "kwok"),
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("api"),
]
ROOT = Path(__file__).parents[2]
SECONDS = 60.0
IN_FORCE_SECONDS = 5.0
ACTING = process(7, environment={"TIMELY": "sk-x"})
PEERS = """SELECT attributes ->> '$."keytrail.peer.kind"', attributes ->> '$."keytrail.peer.namespace"',
    attributes ->> '$."keytrail.peer.name"' FROM records WHERE attributes ->> '$."keytrail.event.kind"' = 'connect'"""
KINDS = ("clusteridentitymappings", "identitymappings", "detectionrules", "policylibraries")
Json = dict[str, Any]


def identity(name: str) -> Json:
    """A mapping of the variable that the process carries."""
    spec = {"identity": {"kind": "api_key", "provider": name}, "evidence": {"env": [{"name": "TIMELY"}]}}
    return {"apiVersion": crds.API_VERSION, "kind": "ClusterIdentityMapping", "metadata": {"name": name}, "spec": spec}


def connects() -> Iterator[bytes]:
    """Connections of one process, each a second after the one before."""
    for number in itertools.count(1):
        event = GetEventsResponse.FromString(kprobe_event(ACTING, "tcp_connect"))
        event.time.seconds = START + number
        yield event.SerializeToString()


@contextmanager
def collecting(
    control_plane: ControlPlane, folder: Path, node: str, *output: str, **variables: str
) -> Iterator[tuple[FakeTetragon, CollectorProcess]]:
    """A collector of a node, with its agent."""
    address = f"unix://{folder}/tetragon.sock"
    environ = {
        "KEYTRAIL_KUBECONFIG": str(control_plane.kubeconfig),
        "KEYTRAIL_NODE_NAME": node,
        "KEYTRAIL_RULES": "none",
        "KEYTRAIL_HTTP_ADDRESS": "off",
        **variables,
    }
    options = (*(output or ("--output", "json")), "--agent", address)
    with FakeTetragon(address) as agent, CollectorProcess(folder, *options, environ=environ) as collector:
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        yield agent, collector


def test_an_applied_mapping_decides_on_the_stream(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Within five seconds of `kubectl apply` the next event of a process bears the identity that the mapping gives."""
    control_plane.kubectl("delete", "clusteridentitymappings", "--all")
    with collecting(control_plane, tmp_path, "collects-1") as (agent, collector):
        agent.publish([exec_event(ACTING)])
        events = connects()

        def now_is(expected: str) -> bool:
            agent.publish(itertools.islice(events, 1))
            whole = collector.out.rpartition("\n")[0].rpartition("\n")[2]
            return bool(whole) and str((json.loads(whole)["identity"] or {}).get("id")) == expected

        assert wait_until(lambda: now_is("None"), SECONDS), collector.err
        took = []
        for name in ("first", "second"):
            began = time.monotonic()
            control_plane.apply(identity(name))
            assert wait_until(lambda name=name: now_is(name), SECONDS), collector.err
            took.append(time.monotonic() - began)
            control_plane.kubectl("delete", "clusteridentitymapping", name)
            assert wait_until(lambda: now_is("None"), SECONDS), collector.err
        assert min(took) < IN_FORCE_SECONDS
        summary = collector.stop()
    assert summary["events"]["received"] == summary["events"]["decoded"]


def test_the_status_of_the_node_is_written(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """A running collector tells its version, its agent's, and that the agent captures no environments."""
    for kind in KINDS:  # other tests have left wrong ones
        control_plane.kubectl("delete", f"{kind}.keytrail.io", "--all", "--all-namespaces")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "collects-2"}}
    api.apply(NODES.at(name="collects-2"), node, manager="test")
    with collecting(control_plane, tmp_path, "collects-2") as (_agent, collector):

        def found() -> Json:
            listed = control_plane.get("collectorstatuses")["items"]
            own = [one for one in listed if one["metadata"]["name"] == "collects-2"]
            return own[0].get("status", {}) if own else {}

        assert wait_until(lambda: bool(found().get("version")), SECONDS), collector.err
        said = {one["type"]: one["status"] for one in found()["conditions"]}
        assert said["ConfigurationAccepted"] == "True"
        assert set(said) >= {"AgentConnected", "EnvironmentCaptured", "BackendReachable"}
        collector.stop()
    assert collector.err.count("watching pods: ") == 1


def test_an_api_server_that_is_away_holds_nothing_up(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Started while the API server is down, the collector works on what it has, and takes what is applied later."""
    control_plane.apiserver.stop()
    try:
        with collecting(control_plane, tmp_path, "collects-3") as (agent, collector):
            agent.publish([exec_event(ACTING), *itertools.islice(connects(), 2)])
            assert wait_until(lambda: collector.lines() == 3, SECONDS), collector.err
            control_plane.apiserver.start()
            control_plane.apply(identity("after"))
            events = connects()

            def now_is(expected: str) -> bool:
                agent.publish(itertools.islice(events, 1))
                whole = collector.out.rpartition("\n")[0].rpartition("\n")[2]
                return str((json.loads(whole)["identity"] or {}).get("id")) == expected

            assert wait_until(lambda: now_is("after"), SECONDS), collector.err
            collector.stop()
    finally:
        if not control_plane.apiserver.running:
            control_plane.apiserver.start()
        control_plane.kubectl("delete", "clusteridentitymappings", "--all")


def test_a_record_says_whose_the_other_end_is(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A connection to a Service's address carries the Service, on the record that the backend gets."""
    metadata = {"name": "shop", "namespace": "default"}
    spec = {"ports": [{"port": 80}], "clusterIP": "10.96.77.7"}
    control_plane.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    socket = {"sock_arg": {"family": "AF_INET", "protocol": "IPPROTO_TCP", "daddr": "10.96.77.7", "dport": 80}}
    with OtlpSink(http=None) as sink:
        options = ("--otlp-records", "events", "--output", "otlp")
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint}
        with collecting(control_plane, tmp_path, "collects-5", *options, **environ) as (agent, collector):
            agent.publish([exec_event(ACTING), kprobe_event(ACTING, "tcp_connect", socket)])
            assert wait_until(lambda: bool(sink.rows(PEERS)), SECONDS), collector.err
            collector.stop()
        assert sink.rows(PEERS) == [("service", "default", "shop")]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_of_api_server_and_etcd_loses_nothing(control_plane: ControlPlane, tmp_path: Path, end: str) -> None:
    """What happens meanwhile is decided on by the last mappings; each event is written, and changes arrive again."""
    control_plane.kubectl("delete", "clusteridentitymappings", "--all")
    control_plane.apply(identity("kept"))
    with collecting(control_plane, tmp_path, f"collects-4-{end}") as (agent, collector):
        agent.publish([exec_event(ACTING)])
        published, events = itertools.count(2), connects()

        def last() -> str:
            agent.publish(itertools.islice(events, 1))
            number = next(published)
            assert wait_until(lambda: collector.lines() == number, SECONDS), collector.err
            return str((json.loads(collector.out.splitlines()[-1])["identity"] or {}).get("id"))

        assert wait_until(lambda: last() == "kept", SECONDS), collector.err
        try:
            for child in (control_plane.apiserver, control_plane.etcd):
                getattr(child, end)()
            assert {last() for _ in range(50)} == {"kept"}
        finally:
            control_plane.etcd.start()
            control_plane.apiserver.start()
        control_plane.kubectl("delete", "clusteridentitymapping", "kept")
        control_plane.apply(identity("later"))
        assert wait_until(lambda: last() == "later", SECONDS), collector.err
        summary = collector.stop()
    assert summary["events"]["received"] == summary["events"]["decoded"] == next(published) - 1
    control_plane.kubectl("delete", "clusteridentitymappings", "--all")
