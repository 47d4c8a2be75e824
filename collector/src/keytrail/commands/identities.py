"""`keytrail identities`: the machine identities of a cluster, who uses them, and which ones nobody does.

What the API server has of mappings and of each node's collector comes in; tables like kubectl's, or JSON, go out. As
`kubectl keytrail identities` it is a plugin of kubectl.
"""

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from keytrail.commands.cluster_access import (
    Json,
    add_cluster,
    age,
    cell,
    cluster_api,
    condition,
    listed,
    own,
    say_json,
    seconds_of,
)
from keytrail.commands.options import add_command
from keytrail.commands.terminal import say, table

if TYPE_CHECKING:
    from keytrail.domain.use import Use
    from keytrail.kube.api import Api

_DAY_SECONDS: Final = 86_400.0
_DAYS: Final = 30
_SHOWN_WORKLOADS: Final = 3
Row = dict[str, Any]


def add(commands: Any) -> None:
    """Declare the command and its actions."""
    parser = add_command(
        commands,
        "identities",
        "show the machine identities of a cluster and their use",
        "kubectl keytrail identities unused --days 90",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list the mappings and how they stand", "keytrail identities list")
    listing.add_argument("-n", "--namespace", default="", help="only the mappings of this namespace")
    usage = add_command(
        actions, "usage", "show who used which identity, exactly, as all nodes report it",
        "keytrail identities usage openai-prod",
    )  # fmt: skip
    usage.add_argument("ids", nargs="*", metavar="ID", help="only these identities")
    unused = add_command(
        actions, "unused", "list the mappings whose identity nobody used for a while", "keytrail identities unused"
    )
    unused.add_argument("--days", type=_days, default=_DAYS, help=f"for how long (default: {_DAYS})")
    for action, run in ((listing, run_list), (usage, run_usage), (unused, run_unused)):
        add_cluster(action)
        action.set_defaults(run=run)


def _days(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of days, found {text!r}")
    return int(text)


def run_list(args: argparse.Namespace) -> int:
    """Print the mappings."""
    with cluster_api(args) as api:
        rows = mapping_rows(_mappings(api, args.namespace))
    if args.form == "json":
        say_json(rows)
        return 0
    head = ("NAMESPACE", "NAME", "IDENTITY", "PROVIDER", "OWNER", "READY", "REASON", "WORKLOADS", "NODES", "USED")
    names = ("namespace", "name", "id", "provider", "owner", "ready", "reason", "workloads", "nodes")
    now = time.time()
    _print(head, [(*(cell(one[name]) for name in names), cell(age(one["lastUsed"], now))) for one in rows])
    return 0


def run_usage(args: argparse.Namespace) -> int:
    """Print the use of identities."""
    with cluster_api(args) as api:
        rows = usage_rows(_uses(api), mapping_rows(_mappings(api)), args.ids)
    if args.form == "json":
        say_json(rows)
        return 0
    now = time.time()
    lines = []
    for one in rows:
        shown = [*one["workloads"][:_SHOWN_WORKLOADS]]
        more = len(one["workloads"]) - len(shown)
        workloads = ",".join(map(cell, shown)) + (f" and {more} more" if more > 0 else "")
        lines.append(
            (cell(one["id"]), cell(one["mapping"]), str(len(one["nodes"])), cell(age(one["lastUsed"], now)), workloads)
        )
    _print(("IDENTITY", "MAPPING", "NODES", "USED", "WORKLOADS"), lines)
    return 0


def run_unused(args: argparse.Namespace) -> int:
    """Print the mappings that nobody used for so long."""
    now = time.time()
    with cluster_api(args) as api:
        rows = unused_rows(_mappings(api), _uses(api), now, args.days * _DAY_SECONDS)
    if args.form == "json":
        say_json(rows)
        return 0
    names = ("namespace", "name", "id", "owner")
    lines = [
        (*(cell(one[name]) for name in names), age(one["lastUsed"], now) or "never", cell(age(one["created"], now)))
        for one in rows
    ]
    _print(("NAMESPACE", "NAME", "IDENTITY", "OWNER", "USED", "AGE"), lines)
    return 0


# -- rows, from plain data


def mapping_rows(mappings: Iterable[Json]) -> list[Row]:
    """Return what there is to say of each mapping, by namespace and name."""
    rows = []
    for one in mappings:
        metadata, spec, status = one.get("metadata") or {}, one.get("spec") or {}, one.get("status") or {}
        identity = spec.get("identity") or {}
        namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
        id_ = str(identity.get("id") or name)
        ready, reason = condition(status, "Ready")
        rows.append(
            {
                "namespace": namespace,
                "name": name,
                "id": f"{namespace}/{id_}" if namespace else id_,
                "provider": str(identity.get("provider") or ""),
                "owner": str(identity.get("owner") or ""),
                "ready": ready or "Unknown",
                "reason": reason or "NotJudged",
                "workloads": status.get("workloadsUsing", 0),
                "nodes": status.get("nodesReporting", 0),
                "lastUsed": str(status.get("lastUsed") or ""),
                "created": str(metadata.get("creationTimestamp") or ""),
            }
        )
    return sorted(rows, key=lambda row: (row["namespace"], row["name"]))


def usage_rows(uses: "Mapping[str, Use]", mappings: Sequence[Row], ids: Sequence[str] = ()) -> list[Row]:
    """Return the use of each identity, the latest first; an identity that was asked for is there even without any."""
    named = {one["id"]: "/".join(filter(None, (one["namespace"], one["name"]))) for one in mappings}
    rows = [
        {
            "id": id_,
            "mapping": named.get(id_, ""),
            "lastUsed": use.last_used,
            "workloads": list(use.workloads),
            "nodes": list(use.nodes),
        }
        for id_, use in uses.items()
        if not ids or id_ in ids
    ]
    rows += [
        {"id": id_, "mapping": named.get(id_, ""), "lastUsed": "", "workloads": [], "nodes": []}
        for id_ in dict.fromkeys(ids)
        if id_ not in uses
    ]
    rows.sort(key=lambda row: str(row["id"]))
    return sorted(rows, key=lambda row: str(row["lastUsed"]), reverse=True)


def unused_rows(mappings: Iterable[Json], uses: "Mapping[str, Use]", now: float, seconds: float) -> list[Row]:
    """Return the mappings that are older than that and were not used since, those first that were never used."""
    found = []
    for row in mapping_rows(mappings):
        use = uses.get(row["id"])
        row["lastUsed"] = max(row["lastUsed"], "" if use is None else use.last_used)
        since = seconds_of(row["lastUsed"] or row["created"])
        if since is None or now - since >= seconds:
            found.append(row)
    return sorted(found, key=lambda row: str(row["lastUsed"]))


# -- asking


def _mappings(api: "Api", namespace: str = "") -> list[Json]:
    found = listed(api, own("IdentityMapping", namespace))
    return found if namespace else [*listed(api, own("ClusterIdentityMapping")), *found]


def _uses(api: "Api") -> "dict[str, Use]":
    from keytrail.domain.collector_status import CollectorState
    from keytrail.domain.shape import read
    from keytrail.domain.use import use_of_identities

    states = []
    for one in listed(api, own("CollectorStatus")):
        state, _ = read(CollectorState, one.get("status") or {})
        if state is not None:
            states.append((str(one["metadata"]["name"]), state))
    return use_of_identities(states)


def _print(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    if lines:
        table([head, *lines])
    else:
        say("nothing found")
