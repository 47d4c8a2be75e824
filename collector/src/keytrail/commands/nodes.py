"""`keytrail nodes`: how the collector of each node is doing, and which node somebody should look at.

CollectorStatus objects come in; a table like kubectl's, or JSON, goes out, and an exit code for scripts.
"""

import argparse
import time
from collections.abc import Iterable
from typing import Any, Final

from keytrail.commands.cluster_access import (
    Json,
    add_cluster,
    age,
    cell,
    cluster_api,
    listed,
    own,
    say_json,
    seconds_of,
)
from keytrail.commands.options import add_command
from keytrail.commands.terminal import printable, say, table

_STALE_SECONDS: Final = 1_200.0
"""Two heartbeats: nobody knows how a node is doing that was silent for longer."""
_COLUMNS: Final = (
    ("VERSION", "version"),
    ("TETRAGON", "tetragonVersion"),
    ("POLICIES", "policiesLoaded"),
    ("EVENTS/S", "eventsPerSecond"),
    ("LOST", "lostEvents"),
    ("LAG", "lag"),
    ("BACKEND", "backend"),
)
Row = dict[str, Any]


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "nodes",
        "show how the collector of each node is doing; exit code 1 when one needs attention",
        "kubectl keytrail nodes",
    )
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the nodes: 0 all is well, 1 something needs attention."""
    now = time.time()
    with cluster_api(args) as api:
        rows = node_rows(listed(api, own("CollectorStatus")), now)
    if args.form == "json":
        say_json(rows)
    elif not rows:
        say("no collector has reported yet")
    else:
        head = ("NODE", *(title for title, _ in _COLUMNS), "SEEN", "ATTENTION")
        lines = [
            (
                cell(one["node"]),
                *(cell(one[name]) for _, name in _COLUMNS),
                cell(age(one["heartbeatTime"], now)),
                cell(",".join(one["attention"])),
            )
            for one in rows
        ]
        table([head, *lines])
        for one in rows:
            for message in one["messages"]:
                say(f"{printable(one['node'])}: {printable(message)}")
    return 1 if any(one["attention"] for one in rows) else 0


def node_rows(statuses: Iterable[Json], now: float) -> list[Row]:
    """Return what there is to say of each node, by its name."""
    return sorted((_row(one, now) for one in statuses), key=lambda row: str(row["node"]))


def _row(one: Json, now: float) -> Row:
    status = one.get("status") or {}
    heard = seconds_of(status.get("heartbeatTime"))
    conditions = [each for each in status.get("conditions") or () if each.get("status") == "False"]
    attention = [str(each.get("reason")) for each in conditions]
    if heard is None or now - heard > _STALE_SECONDS:
        attention.insert(0, "Silent")
    return {
        "node": str((one.get("metadata") or {}).get("name") or ""),
        **{name: status.get(name, "") for _, name in _COLUMNS},
        "heartbeatTime": str(status.get("heartbeatTime") or ""),
        "attention": attention,
        "messages": [f"{each.get('type')}: {each.get('message')}" for each in conditions],
    }
