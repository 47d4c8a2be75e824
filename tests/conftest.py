"""What every test shares: the two groups that do not run by default, and how they are asked for."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long` runs the tests that take minutes."""
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, and say so as deselected rather than skipped: nothing is missing on this machine."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
