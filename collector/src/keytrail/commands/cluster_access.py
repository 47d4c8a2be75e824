"""How commands for administrators get at the API server, and how they show what it has.

In flow `--kubeconfig`, `--context` or the surroundings, as kubectl takes them; out flow objects as plain data. Knows no
kind.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keytrail.commands.terminal import printable, say

if TYPE_CHECKING:
    from keytrail.kube.api import Api
    from keytrail.kube.places import Place

Json = dict[str, Any]
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_TWO_OF_THEM: Final = 2
"""As kubectl does it: 119 seconds are `119s`, two hours and more are hours."""


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Where the API server is, and the form of the answer."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--kubeconfig", metavar="FILE", help="default: KUBECONFIG, then the Pod's own account, then ~/.kube/config"
    )
    group.add_argument("--context", default="", metavar="NAME", help="context in the kubeconfig (default: its current)")
    parser.add_argument("-o", "--output", dest="form", choices=("table", "json"), default="table", help="form")


@contextmanager
def cluster_api(args: argparse.Namespace) -> "Iterator[Api]":
    """Open the way to the API server. Raises SettingsError when there is none."""
    from keytrail.kube.api import Api

    api = Api.open(_kubeconfig(args.kubeconfig, os.environ), args.context, os.environ)
    try:
        yield api
    finally:
        api.close()


def _kubeconfig(given: str | None, environ: Mapping[str, str]) -> Path | None:
    from keytrail.kube.surroundings import in_pod

    if given:
        return Path(given)
    # kubectl takes a list of files there and joins them; of several that are there the first one counts here.
    named = [Path(one) for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if named:
        return next((one for one in named if one.is_file()), named[0])
    return None if in_pod(environ) else Path.home() / ".kube" / "config"


def listed(api: "Api", at: "Place") -> list[Json]:
    """Return all objects of a collection. Raises KubeError."""
    from keytrail.kube.json_stream import ListReader

    with api.stream("list", at) as stream:
        return list(ListReader(stream))


def own(kind: str, namespace: str = "") -> "Place":
    """Return the collection of one of our kinds."""
    from keytrail.domain.crds import GROUP, KINDS, VERSION
    from keytrail.kube.places import Kind

    return next(Kind(one.plural, GROUP, VERSION) for one in KINDS if one.name == kind).at(namespace)


def seconds_of(time: object) -> float | None:
    """Return a time of the API in seconds since the epoch; None for what is none."""
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None


def age(time: object, now: float) -> str:
    """Return how long ago a time is, as kubectl shows it; empty for none."""
    then = seconds_of(time)
    if then is None:
        return ""
    seconds = max(0, int(now - then))
    for length, unit in _UNITS:
        if seconds >= _TWO_OF_THEM * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def cell(value: object) -> str:
    """Return what a table shows: objects are written by whoever may write them."""
    return printable(str(value))[:63] if value not in (None, "") else "-"


def say_json(found: object) -> None:
    """Print plain data."""
    say(json.dumps(found, indent=1))


def condition(status: Json, type_: str) -> tuple[str, str]:
    """Return status and reason of a condition; empty ones when there is none."""
    conditions = status.get("conditions")
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, dict) and one.get("type") == type_:
            return str(one.get("status", "")), str(one.get("reason", ""))
    return "", ""
