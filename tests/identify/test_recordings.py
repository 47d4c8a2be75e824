"""Identity on real events: every exec of every recording against an oracle of the test's own.

The oracle reads the agent's JSON export, not the stream, with nothing of the product: the names of variables that a
person reading the recordings' scripts calls credentials, and the command lines that name OpenAI or carry a key.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from support.commands import replay
from support.recordings import CORPUS, STREAMS, export_lines

CREDENTIAL_NAMES = {
    "OPENAI_API_KEY", "CLOSEDAI_API_KEY", "ANTHROPIC_API_KEY", "STRIPE_API_KEY", "DB_PASSWORD", "DATABASE_URL",
    # Not values but the places of a cloud role's token: they name an identity all the same.
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
}  # fmt: skip
ON_COMMAND_LINE = re.compile(
    r"Bearer \S|\bx-api-key: |-u \w+:\S|\bexport [A-Z_]+KEY=|\bsk[-_](test|live)|token=\S", re.IGNORECASE
)
NAMES_OPENAI = re.compile("openai", re.IGNORECASE)


def oracle(process: dict[str, Any]) -> set[str]:
    """Ids that an attribution may give this process; empty for none; `?` alone when nobody could look."""
    variables = process.get("environment_variables", [])
    names = {variable.get("Key", "") for variable in variables if variable.get("Value")}
    arguments = process.get("arguments", "")
    found = {f"{name.lower()}-present" for name in names & CREDENTIAL_NAMES}
    if found:
        return found
    if NAMES_OPENAI.search(arguments) and not re.search(r"\bsk-", arguments):
        return {"argv-openai"}
    if ON_COMMAND_LINE.search(arguments):
        return {"argv"}
    looked = bool(variables) or (process["flags"].startswith("execve") and process.get("cwd") != "<enomem>")
    return set() if looked else {"?"}


def found_id(identity: dict[str, Any] | None) -> str:
    """What the product said, in the oracle's words."""
    if identity is None:
        return ""
    if identity["type"] == "unknown":
        return "?"
    if identity["type"] == "argv" and identity["id"] != "argv-openai":
        return "argv"
    return str(identity["id"])


def compared(name: str) -> Iterator[tuple[str, set[str], str]]:
    """Each exec of a recording, by time and pid: expected ids and what was found."""
    expected = {
        (line["time"], line["process_exec"]["process"]["pid"]): oracle(line["process_exec"]["process"])
        for line in export_lines(name)
        if "process_exec" in line
    }
    for record in replay(name, "--kind", "exec").records:
        key = (record["ts"], record["pid"])
        wanted = expected.get(key, expected.get((_short(record["ts"]), record["pid"])))
        if wanted is not None:
            yield f"{record['binary']} {record['args']}"[:90], wanted, found_id(record["identity"])


def _short(timestamp: str) -> str:
    """The agent leaves out trailing zeros of a second's fraction."""
    return timestamp.rstrip("Z").rstrip("0").rstrip(".") + "Z"


def test_attribution_of_every_recorded_exec(capsys: pytest.CaptureFixture[str]) -> None:
    """Precision is 99 % and recall 95 % or better over all execs, most of which carry nothing; the table is printed."""
    rows, wrong = [], []
    total: Counter[str] = Counter()
    for name in STREAMS:
        if name == "seed-demo-default-flags" or not (CORPUS / name / "export.json.zst").exists():
            continue
        counts: Counter[str] = Counter()
        for what, wanted, found in compared(name):
            counts["execs"] += 1
            carries = bool(wanted) and wanted != {"?"}
            claims = found not in {"", "?"}
            counts["with"] += carries
            counts["hits"] += carries and found in wanted
            counts["claims"] += claims
            if (found not in wanted) if wanted else found:
                wrong.append(f"{name}: {what}: expected {sorted(wanted)}, found {found!r}")
        rows.append((name, counts))
        total += counts
    precision, recall = total["hits"] / total["claims"], total["hits"] / total["with"]
    with capsys.disabled():
        print("\nrecording             execs  with a credential  found  right")  # noqa: T201 - the table is the point
        for name, counts in [*rows, ("all", total)]:
            print(f"{name:<20} {counts['execs']:>6} {counts['with']:>18} {counts['claims']:>6} {counts['hits']:>6}")  # noqa: T201
        print(f"precision {precision:.4f}  recall {recall:.4f}")  # noqa: T201
    assert total["execs"] >= 200
    assert total["with"] >= 100
    assert total["execs"] - total["with"] >= total["with"]
    assert (precision >= 0.99, recall >= 0.95) == (True, True), json.dumps(wrong, indent=1)


def test_default_flags_know_nothing_and_say_so() -> None:
    """Without captured environments an exec is `not_captured` unless its command line tells; none is `null`."""
    found = Counter(
        found_id(record["identity"]) for record in replay("seed-demo-default-flags", "--kind", "exec").records
    )
    assert found == {"?": 15, "argv-openai": 2}
