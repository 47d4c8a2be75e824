"""A control plane of its own for mappings, rules and fingerprints: no other operator works in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.components.control_plane import ControlPlane

Programs = Callable[[str], Path]


@pytest.fixture(scope="session")
def objects_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without anybody else's objects."""
    folder = tmp_path_factory.mktemp("objects-plane")
    with ControlPlane(programs("kubernetes"), programs("kwok"), folder) as running:
        yield running
