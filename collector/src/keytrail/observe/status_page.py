"""A snapshot as the JSON document that /status serves and `keytrail status` reads.

Names are those of the snapshot; moments become text and lose the `_ns` of their names. Parts that the collector does
not have are left out. Fields may be added, none changes its meaning.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from keytrail.observe.health import degraded, not_ready, sick
from keytrail.observe.snapshot import Snapshot

_LAST_SECOND = 253_402_300_799
"""The last one of year 9999: later does not fit a date."""


def status_document(snapshot: Snapshot) -> dict[str, Any]:
    """Return everything as plain JSON values."""
    reasons = not_ready(snapshot)
    found: dict[str, Any] = _plain(asdict(snapshot))
    return {
        "healthy": not sick(snapshot),
        "ready": not reasons,
        "reasons": reasons,
        "degraded": degraded(snapshot),
        **found,
    }


def status_json(snapshot: Snapshot) -> str:
    """Return it as text: ASCII, and with it no raw control character."""
    return json.dumps(status_document(snapshot), indent=1) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(_field(str(name), inner) for name, inner in value.items() if inner is not None)
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _field(name: str, value: Any) -> tuple[str, Any]:
    if name == "lag_ns":
        return "lag_seconds", value / 1e9
    if name.endswith("_ns"):
        return name.removesuffix("_ns"), _moment(value)
    return name, _plain(value)


def _moment(time_ns: int) -> str:
    seconds = min(max(time_ns // 1_000_000_000, 0), _LAST_SECOND)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
