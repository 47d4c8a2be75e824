"""Who has which address, on a real control plane: Deployments, Services and what its controllers make of them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keytrail.choices import Peers
from keytrail.cluster import Cluster
from keytrail.domain.peer import Peer, PeerKind
from keytrail.settings import Settings
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
SECONDS = 60.0
NAMESPACE, NODE = "peers", "peers-1"
Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def shop(control_plane: ControlPlane) -> Iterator[None]:
    """A Deployment of two pods behind a Service, another behind nothing; gone at the end."""
    control_plane.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    )
    control_plane.apply(*map(deployment, ("web", "worker")), service("web"))
    for name in ("web", "worker"):
        control_plane.kubectl("rollout", "status", f"deployment/{name}", f"--namespace={NAMESPACE}", "--timeout=50s")
    yield
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def deployment(name: str) -> Json:
    """Two pods of this node."""
    labels = {"app": name}
    pod = {"nodeName": NODE, "containers": [{"name": "app", "image": "example/app:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service(name: str) -> Json:
    """A Service before them, whose port is not theirs."""
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def addresses(control_plane: ControlPlane, app: str) -> dict[str, str]:
    """Addresses of a Deployment's pods, by their names."""
    found = control_plane.get("pods", f"--namespace={NAMESPACE}", f"--selector=app={app}")["items"]
    return {one["metadata"]["name"]: one["status"]["podIP"] for one in found}


def opened(control_plane: ControlPlane, peers: Peers, node: str = "peers-elsewhere") -> Cluster:
    """A collector's part in the cluster, on a node of its own."""
    return Cluster.open(Settings(kubeconfig=control_plane.kubeconfig, node_name=node, peers=peers), {}, None)


def finder(cluster: Cluster) -> Callable[[str, int], Peer | None]:
    """The look-up that the pipeline makes."""
    assert cluster.peers is not None
    return cluster.peers.find


def test_services_and_the_pods_behind_them(control_plane: ControlPlane) -> None:
    """By Service address, by pod address and port; a deleted Service is nobody's, and its pods go on without it."""
    control_plane.apply(service("web"))
    ip = control_plane.get("service", "web", f"--namespace={NAMESPACE}")["spec"]["clusterIP"]
    pods = addresses(control_plane, "web")
    with opened(control_plane, Peers.SERVICES) as cluster:
        find = finder(cluster)
        for name, address in pods.items():
            expected = Peer(PeerKind.POD, NAMESPACE, name, "web")
            assert wait_until(lambda a=address, e=expected: find(a, 8080) == e, SECONDS), find(address, 8080)
            assert find(address, 22) == Peer(PeerKind.POD, NAMESPACE, name)
        assert find(ip, 80) == Peer(PeerKind.SERVICE, NAMESPACE, "web")
        api = control_plane.get("service", "kubernetes", "--namespace=default")["spec"]["clusterIP"]
        assert find(api, 443) == Peer(PeerKind.API_SERVER, "default", "kubernetes")
        other = next(iter(addresses(control_plane, "worker").values()))
        assert find(other, 80) in (Peer(PeerKind.CLUSTER), Peer(PeerKind.UNKNOWN))
        control_plane.kubectl("delete", "service", "web", f"--namespace={NAMESPACE}")
        assert wait_until(lambda: find(ip, 80) in (Peer(PeerKind.CLUSTER), Peer(PeerKind.UNKNOWN)), SECONDS)
        address = next(iter(pods.values()))
        assert wait_until(lambda: (find(address, 8080) or Peer(PeerKind.POD)).service == "", SECONDS)


def test_pods_of_the_own_node_without_a_service(control_plane: ControlPlane) -> None:
    """They are known from the watch that the collector has anyway."""
    with opened(control_plane, Peers.SERVICES, NODE) as cluster:
        for name, address in addresses(control_plane, "worker").items():
            expected = Peer(PeerKind.POD, NAMESPACE, name)
            assert wait_until(lambda a=address, e=expected: finder(cluster)(a, 80) == e, SECONDS)


def test_every_pod_with_its_workload(control_plane: ControlPlane) -> None:
    """With `all`, pods of other nodes without a Service are known too, with their Deployment; deleted ones are not."""
    with opened(control_plane, Peers.ALL) as cluster:
        pods = addresses(control_plane, "worker")
        for name, address in pods.items():
            expected = Peer(PeerKind.POD, NAMESPACE, name, "", "Deployment", "worker")
            assert wait_until(lambda a=address, e=expected: finder(cluster)(a, 80) == e, SECONDS)
        states = [one.resource for one in cluster.part().watches]
        assert len(states) == len(set(states))  # each is a metric's attribute
        gone, address = next(iter(pods.items()))
        control_plane.kubectl("delete", "pod", gone, f"--namespace={NAMESPACE}", "--timeout=50s")
        assert wait_until(lambda: (finder(cluster)(address, 80) or Peer(PeerKind.NODE)).name != gone, SECONDS)


def test_nobody_is_watched_whom_nobody_asks_for(control_plane: ControlPlane) -> None:
    """With `none`, the API server is asked for neither Services nor nodes."""
    with opened(control_plane, Peers.NONE) as cluster:
        assert cluster.peers is None
        assert cluster.part().peers is None
        assert wait_until(lambda: cluster.watches()[0].connected, SECONDS)
        asked = {resource for _, resource in cluster.api.usage()}
        assert not asked & {"services", "endpointslices", "nodes"}


def test_what_is_known_of_peers_survives_the_api_server(control_plane: ControlPlane) -> None:
    """While it is away the last copy stays in force and the state says so; afterwards changes arrive again."""
    with opened(control_plane, Peers.SERVICES, NODE) as cluster:
        name, address = next(iter(addresses(control_plane, "worker").items()))
        expected = Peer(PeerKind.POD, NAMESPACE, name)
        assert wait_until(lambda: finder(cluster)(address, 80) == expected, SECONDS)
        assert wait_until(lambda: all(one.connected for one in cluster.part().watches[-3:]), SECONDS)
        control_plane.apiserver.stop()
        try:
            assert wait_until(lambda: not any(one.connected for one in cluster.part().watches), SECONDS)
            assert finder(cluster)(address, 80) == expected
            assert "cannot be reached" in cluster.part().watches[-1].reason
        finally:
            control_plane.apiserver.start()
        assert wait_until(lambda: all(one.connected for one in cluster.part().watches[-3:]), SECONDS)
        control_plane.apply(service("web"))
        found = control_plane.get("service", "web", f"--namespace={NAMESPACE}")["spec"]["clusterIP"]
        assert wait_until(lambda: finder(cluster)(found, 80) == Peer(PeerKind.SERVICE, NAMESPACE, "web"), SECONDS)
