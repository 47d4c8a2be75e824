"""Real components for a test: each started by its fixture, which stops it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from keytrail.kube.api import Api
from support.components.backends_page import configuration
from support.components.collector import OtelCollector
from support.components.control_plane import ControlPlane
from support.components.loki import Loki

Programs = Callable[[str], Path]
CRDS = Path(__file__).parents[2] / "deploy" / "crds"


@pytest.fixture
def otel_collector(programs: Programs, tmp_path: Path) -> Iterator[Callable[..., OtelCollector]]:
    """Start an OpenTelemetry Collector of the test's own, with the exporters that it names beside the file."""
    with ExitStack() as stack:

        def start(exporters: Mapping[str, object] | None = None) -> OtelCollector:
            folder = tmp_path / "otelcol"
            folder.mkdir()
            return stack.enter_context(OtelCollector(programs("collector") / "otelcol", folder, exporters))

        yield start


@pytest.fixture(scope="session")
def loki(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """One Loki, set up as the documentation says, for all tests, each of which is a tenant of its own."""
    settings = configuration("ingester")
    with Loki(programs("loki") / "loki", tmp_path_factory.mktemp("loki"), settings) as running:
        yield running


@pytest.fixture(scope="session")
def control_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One Kubernetes control plane for all tests, each of which uses names of its own."""
    folder = tmp_path_factory.mktemp("control-plane")
    with ControlPlane(programs("kubernetes"), programs("kwok"), folder) as running:
        yield running


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """The administrator's way in, once the API server knows all our kinds."""
    found = Api.open(control_plane.kubeconfig, "", {})
    control_plane.kubectl("apply", f"--filename={CRDS}")
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=50s", f"--filename={CRDS}")
    yield found
    found.close()
