"""A control plane of its own for the operator's tests: there is one PolicyLibrary in a cluster, and one Tetragon."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.operator.release import NAMESPACE, POLICIES, SECONDS, Release
from support.components.control_plane import ControlPlane
from support.processes import wait_until

OWN = "/apis/keytrail.io/v1alpha1"
_KINDS = ("policylibraries", "detectionrules", "clusteridentitymappings", "collectorstatuses")
Programs = Callable[[str], Path]


@pytest.fixture(scope="session")
def operator_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane in which nobody else makes nodes or policies."""
    folder = tmp_path_factory.mktemp("operator-plane")
    with ControlPlane(programs("kubernetes"), programs("kwok"), folder) as running:
        yield running


@pytest.fixture
def release(operator_plane: ControlPlane, programs: Programs, tmp_path: Path) -> Iterator[Release]:
    """The operator's part of a release, not running yet; what it made is gone afterwards."""
    with Release(operator_plane, programs("helm") / "helm", tmp_path) as installed:
        yield installed
        installed.stop()
        namespaced = f"{OWN}/namespaces/{NAMESPACE}/identitymappings"
        for path in (POLICIES, namespaced, *(f"{OWN}/{kind}" for kind in _KINDS), "/api/v1/nodes"):
            installed.admin.ask("DELETE", path)
        assert wait_until(lambda: not installed.admin.get("/api/v1/nodes")["items"], SECONDS)
