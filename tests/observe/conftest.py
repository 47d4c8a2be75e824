"""A server of the collector's own pages, one for each file of tests."""

from collections.abc import Iterator

import pytest

from keytrail.observe.http_server import OwnHttp
from observe.pictures import Given, healthy, pages


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Given, OwnHttp]]:
    """One server for all tests of this file."""
    with pages() as opened:
        yield opened


@pytest.fixture
def probe(running: tuple[Given, OwnHttp]) -> Given:
    """What it serves: a healthy collector, until the test says otherwise."""
    running[0].snapshot_ = healthy()
    return running[0]


@pytest.fixture
def server(running: tuple[Given, OwnHttp], probe: Given) -> OwnHttp:
    """The server, with the probe as the test has it."""
    assert probe is running[0]
    return running[1]
