"""The collector in Tetragon's own pod, which has one second to end: what was found is not lost with it.

The umbrella chart in a real cluster, with a stand-in of our own for Tetragon's chart; the collector's process from the
image, as that pod says; a fake agent that plays what a real one recorded; a backend that takes requests and never
answers.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from chart.rendering import CHART, CHARTS, ROOT, Helm
from cluster.image.building import built_image
from cluster.image.kubelet import Kubelet
from keytrail.delivery import SPOOL
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.scan import read_acks, read_piece, survey_lane
from keytrail.export.spool.segment import HEADER
from keytrail.kube.api import Api
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import Hang
from support.components.build import Unavailable
from support.components.child import Child, answers, free_ports
from support.components.control_plane import ControlPlane
from support.processes import wait_until
from support.recordings import messages

pytestmark = [pytest.mark.cluster("helm", "kubernetes", "kwok"), pytest.mark.timeout(1800)]
SECONDS = 120.0
NAMESPACE, NODE = "keytrail-sidecar", "sidecar-1"
UIDS = """SELECT attributes ->> '$."log.record.uid"' FROM records"""
Json = dict[str, Any]


@pytest.fixture
def umbrella(tmp_path: Path) -> Path:
    """The umbrella chart with its dependencies in place, as `helm dependency update` leaves them."""
    folder = tmp_path / "keytrail-with-tetragon"
    shutil.copytree(CHARTS / "keytrail-with-tetragon", folder)
    shutil.copytree(CHART, folder / "charts" / "keytrail")
    shutil.copytree(ROOT / "tests" / "chart" / "stand-in", folder / "charts" / "tetragon")
    return folder


class Sidecar:
    """The collector in the agent's pod: its process, its pages, and its spool on the node."""

    def __init__(self, child: Child, page: str, state: Path, grace: int) -> None:
        self.child = child
        self.grace = grace
        self._page = page
        self._spool = state / SPOOL

    def number(self, metric: str) -> int:
        """The sum of a metric's series."""
        text = requests.get(f"{self._page}/metrics", timeout=20).text
        return sum(int(float(value)) for value in re.findall(rf"(?m)^{metric}(?:\{{.*\}})? (\S+)$", text))

    def on_disk(self) -> set[str]:
        """Uids of all records that wait in the spool."""
        return {uid for lane in Lane for survey in survey_lane(self._spool, lane) for uid in _uids(survey.segment)}

    def last_written_ns(self) -> int:
        """When the spool's folder got its last record."""
        return max(path.stat().st_mtime_ns for path in self._spool.rglob("*.seg"))


def _uids(segment: Any) -> Iterator[str]:
    at, settled = len(HEADER), read_acks(segment)
    while at < segment.end:
        frames, at = read_piece(segment, at, segment.end)
        for frame in (frame for frame in frames if frame.sequence not in settled):
            for scope in ResourceLogs.FromString(frame.data).scope_logs:
                for record in scope.log_records:
                    yield {one.key: one.value.string_value for one in record.attributes}["log.record.uid"]


@pytest.fixture
def start(
    api: Api, control_plane: ControlPlane, programs: Callable[[str], Path], umbrella: Path, tmp_path: Path
) -> Iterator[Callable[[str, FakeTetragon], Sidecar]]:
    """Install the chart with a backend's endpoint and run the collector of its pod on the agent's node."""
    assert api  # our kinds are there: the chart brings none
    helm, plane = Helm(programs("helm") / "helm", tmp_path), control_plane
    access = ("--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE, "--wait", "--timeout", "3m")
    node = {"metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux"}}}
    plane.apply({"apiVersion": "v1", "kind": "Node", **node})
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    with ExitStack() as stack:
        try:
            image = stack.enter_context(built_image())
        except Unavailable as error:
            pytest.skip(str(error))

        def run(endpoint: str, agent: FakeTetragon) -> Sidecar:
            (port,) = free_ports(1)
            values = (
                f"global.keytrail.collector.otlp.endpoint={endpoint}",
                f"global.keytrail.collector.http.port={port}",
                f"global.keytrail.tetragon.metricsAddress={agent.metrics_address}",
                "global.keytrail.collector.otlp.records={findings,events}",
                "keytrail.crds.install=false",
                "keytrail.operator.enabled=false",
            )
            helm.run("install", "all", umbrella, *access, *(word for value in values for word in ("--set", value)))
            stack.callback(helm.run, "uninstall", "all", *access)
            pod = _pod(plane)
            state, page = tmp_path / "state", f"http://127.0.0.1:{port}"
            folders = {"/var/run/tetragon": tmp_path / "agent", "/var/lib/keytrail": state}
            kubelet = Kubelet(plane, image, tmp_path, folders)
            child = kubelet.start(pod, partial(answers, f"{page}/readyz"), only="keytrail")
            stack.callback(child.kill)
            return Sidecar(child, page, state, pod["spec"]["terminationGracePeriodSeconds"])

        yield run
    plane.kubectl("delete", "node", NODE)


def _pod(plane: ControlPlane) -> Json:
    """The agent's pod on the test's node."""
    found: list[Json] = []

    def runs() -> bool:
        pods = plane.get("pods", f"--namespace={NAMESPACE}", f"--field-selector=spec.nodeName={NODE}")["items"]
        found[:] = [each for each in pods if each["status"]["phase"] == "Running"]
        return len(found) == 1

    assert wait_until(runs, SECONDS), f"no pod on {NODE}"
    return found[0]


def test_findings_outlive_a_second_of_grace(
    start: Callable[[str, FakeTetragon], Sidecar], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the collector counts as queued is on disk when its pod's second is over, and the next one sends it."""
    socket = tmp_path / "agent" / "tetragon.sock"
    socket.parent.mkdir()
    (metrics,) = free_ports(1)
    with FakeTetragon(f"unix://{socket}", metrics_address=f"127.0.0.1:{metrics}") as agent:
        socket.chmod(0o660)
        with OtlpSink(http=None) as hanging:
            hanging.answer_by(lambda _: Hang(10 * SECONDS))
            endpoint = hanging.grpc_endpoint
            sidecar = start(endpoint, agent)
            assert sidecar.grace == 1
            assert agent.wait_for_listeners(timeout=SECONDS)
            sent = agent.publish(messages("sensors"), lossless=True)
            everything_is_judged = partial(_judged, sidecar, sent)
            assert wait_until(everything_is_judged, SECONDS), sidecar.child.log[-3000:]
            findings, queued = sidecar.number("keytrail_findings_total"), sidecar.number("keytrail_records_queued")
            told_ns = time.time_ns()
            sidecar.child.stop()
            assert hanging.requests()
        waiting = sidecar.on_disk()
        with capsys.disabled():
            sys.stdout.write(
                f"\nsidecar: {queued} records, {findings} of them findings, were on disk "
                f"{(sidecar.last_written_ns() - told_ns) / 1e6:.0f} ms after SIGTERM; killed after {sidecar.grace} s\n"
            )
        assert findings > 0
        assert len(waiting) >= queued >= findings
        with OtlpSink(grpc=endpoint.removeprefix("http://"), http=None) as backend:
            sidecar.child.start()
            arrived = partial(_arrived, backend, waiting)
            assert wait_until(arrived, SECONDS), sidecar.child.log[-3000:]
            sidecar.child.stop()


def _judged(sidecar: Sidecar, sent: int) -> bool:
    """Whether all events were decided on, and none waits for what the API server says of its pod."""
    ends = ("by_kind", "undecodable", "dropped")
    decided = sum(sidecar.number(f"keytrail_events_{end}_total") for end in ends)
    return decided >= sent and sidecar.number("keytrail_enrich_waiting") == 0


def _arrived(backend: OtlpSink, waiting: set[str]) -> bool:
    return waiting <= {uid for (uid,) in backend.rows(UIDS)}
