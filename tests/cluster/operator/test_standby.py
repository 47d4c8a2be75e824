"""Two replicas: one acts, the other takes over when it is gone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.operator.release import NAMESPACE, Release
from support.components.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster("kubernetes", "kwok", "helm"), pytest.mark.timeout(300)]

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/keytrail-operator"


def test_the_second_takes_over(
    operator_plane: ControlPlane, programs: Callable[[str], Path], tmp_path: Path, release: Release
) -> None:
    """While the first lives the second writes nothing; killed, it is followed when its Lease ran out, ended at once."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    helm = programs("helm") / "helm"
    with (
        Release(operator_plane, helm, tmp_path / "a", "operator.replicas=2") as first,
        Release(operator_plane, helm, tmp_path / "b", "operator.replicas=2") as second,
    ):
        first.install_tetragon()
        first.start("--leader-elect", "--identity=first")
        first.wait(lambda: len(first.policies()) > 10, "the first acts")
        second.start("--leader-elect", "--identity=second")
        assert second.metrics()["keytrail_operator_runs_total"] == 0
        assert first.process is not None
        first.process.kill()
        second.wait(lambda: holder(release) == "second", "the Lease ran out")
        assert second.library()
        second.tune(mode="off")
        second.wait(lambda: not second.policies(), "the second acts")
        first.start("--leader-elect", "--identity=first")
        second.stop()  # lets the Lease go
        first.tune(mode="listed", policies=[{"name": "dns"}])
        first.wait(lambda: list(first.sensors()) == ["dns"], "the first again")
        assert holder(release) == "first"


def holder(release: Release) -> str:
    """Who has the Lease."""
    found = release.admin.get(LEASE)
    return "" if found is None else str(found["spec"].get("holderIdentity", ""))
