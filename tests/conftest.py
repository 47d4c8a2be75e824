"""What every test shares: the two groups that do not run by default, and how they are asked for."""

import os
from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long` runs the tests that take minutes, `--cluster` those that need real components."""
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")
    parser.addoption(
        "--cluster", action="store_true", help="run the tests against real components instead of all others"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, and say so as deselected rather than skipped: nothing is missing on this machine."""
    cluster, long = config.getoption("--cluster"), config.getoption("--long")
    kept = [
        item
        for item in items
        if bool(item.get_closest_marker("cluster")) == cluster and (long or not item.get_closest_marker("long"))
    ]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where real components are required, as in CI, a test of them that would be skipped has failed."""
    report = yield
    required = os.environ.get("KEYTRAIL_REQUIRE_CLUSTER") == "1" and item.get_closest_marker("cluster")
    if report.skipped and required:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where real components are required: {report.longrepr}"
    return report
