"""Helm and, for those that ask for it, an API server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chart.rendering import Helm
from support.components.control_plane import ControlPlane

Programs = Callable[[str], Path]


@pytest.fixture(scope="session")
def helm(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real Helm."""
    return Helm(programs("helm") / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def control_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for the tests of one file."""
    folder = tmp_path_factory.mktemp("control-plane")
    with ControlPlane(programs("kubernetes"), programs("kwok"), folder) as running:
        yield running
