"""What every test shares: the two groups that do not run by default, how they are asked for, and real programs."""

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.components.build import COMPONENTS, BuildFailed, Unavailable, build

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

BUILT = pytest.StashKey[dict[str, Path | Unavailable | BuildFailed]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long` runs the tests that take minutes, `--cluster` those that need real components."""
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")
    parser.addoption(
        "--cluster", action="store_true", help="run the tests against real components instead of all others"
    )


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, and say so as deselected rather than skipped: nothing is missing on this machine.

    With `--dist loadgroup` the tests of a file run in one process, those of the rules even of a folder: what they share
    (decoded recordings, compiled rules) takes longer to make than to use.
    """
    for item in items:
        together = item.path.parent if item.path.parent.name == "rules" else item.path
        item.add_marker(pytest.mark.xdist_group(together.stem))
    cluster, long = config.getoption("--cluster"), config.getoption("--long")
    kept = [
        item
        for item in items
        if bool(item.get_closest_marker("cluster")) == cluster and (long or not item.get_closest_marker("long"))
    ]
    if len(kept) < len(items):
        staying = set(kept)
        config.hook.pytest_deselected(items=[item for item in items if item not in staying])
        items[:] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the selected tests name in `mark.cluster(...)`, before the first one's timeout begins."""
    names = {name: None for item in session.items for mark in item.iter_markers("cluster") for name in mark.args}
    built = session.config.stash[BUILT] = {}
    if session.config.getoption("collectonly"):
        return
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for name in names:
            try:
                built[name] = build(COMPONENTS[name])
            except (BuildFailed, Unavailable) as error:
                built[name] = error


@pytest.fixture(scope="session")
def programs(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Where a component's programs are, by its name. Skips where this machine cannot build, fails if that failed."""

    def folder(name: str) -> Path:
        found = pytestconfig.stash[BUILT].get(name)
        if isinstance(found, Unavailable):
            pytest.skip(str(found))
        if isinstance(found, BuildFailed):
            raise found
        assert found is not None, f"a test that uses {name} is marked cluster({name!r}): nothing is built inside a test"
        return found

    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where real components are required, as in CI, a test of them that would be skipped has failed."""
    report = yield
    required = os.environ.get("KEYTRAIL_REQUIRE_CLUSTER") == "1" and item.get_closest_marker("cluster")
    if report.skipped and required:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where real components are required: {report.longrepr}"
    return report
