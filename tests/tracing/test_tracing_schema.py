"""The TracingPolicy schema that the product carries: the same facts as the table, and what it says of a wrong shape."""

import copy
import json
from typing import Any

import pytest
import yaml

from keytrail.tracing.schema import newer_fields, shape_faults
from keytrail.tracing.schema_source import OUTPUT, compacted, expanded, facts_of, rows_of, written
from support.recordings import CORPUS, TESTS

TABLE = TESTS / "corpus" / "tetragon-tracingpolicy-fields.csv"
GOOD = yaml.safe_load("""
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: a}
spec: {kprobes: [{call: sys_read, args: [{index: 0, type: int}]}]}
""")


def test_schema_says_what_the_table_says() -> None:
    """Expanding the compact file gives every row of the resource's table, with type, enum, limits and release."""
    table = {row["path"]: facts_of(row) for row in rows_of(TABLE)}
    assert dict(expanded(json.loads(OUTPUT.read_text("utf-8")))) == table


def test_schema_file_is_what_its_generator_writes() -> None:
    """The committed file is the generator's own output."""
    assert OUTPUT.read_text("utf-8") == written(compacted(rows_of(TABLE)))


def test_policies_that_a_real_agent_loaded_have_the_right_shape() -> None:
    """The schema refuses none of the seventeen policies of the recording."""
    documents = list(yaml.safe_load_all((CORPUS / "sensors" / "policies.yaml").read_text()))
    assert len(documents) == 17
    assert [shape_faults(document) for document in documents] == [[]] * 17


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"kprobe": []}, "spec.kprobe", "unknown field, did you mean kprobes?"),
        ({"kprobes": {}}, "spec.kprobes", "expected a list, found a mapping"),
        ({"kprobes": [{"syscall": True}]}, "spec.kprobes[0].call", "is required"),
        ({"kprobes": [{"call": 7}]}, "spec.kprobes[0].call", "expected text, found the number 7"),
        ({"kprobes": [{"call": "a", "syscall": "no"}]}, "spec.kprobes[0].syscall", "expected true or false"),
        ({"kprobes": [{"call": "a", "args": [{"index": -1}]}]}, "spec.kprobes[0].args[0].index", "expected 0 or more"),
        ({"kprobes": [{"call": "a", "args": [{"index": True}]}]}, "spec.kprobes[0].args[0].index", "a whole number"),
        (
            {"kprobes": [{"call": "a", "args": [{"index": 0, "type": "socket_addr"}]}]},
            "spec.kprobes[0].args[0].type",
            "unknown value 'socket_addr', did you mean sockaddr?",
        ),
        (
            {"kprobes": [{"call": "a", "tags": ["x"] * 17}]},
            "spec.kprobes[0].tags",
            "expected at most 16 items, found 17",
        ),
        ({"podSelector": {"matchLabels": {"a": "-"}}}, "spec.podSelector.matchLabels.a", "a label's value, found '-'"),
    ],
)
def test_wrong_shape_names_the_field(change: dict[str, Any], field: str, message: str) -> None:
    """Each kind of shape fault names its field, what was expected and the nearest valid name."""
    faults = shape_faults({**GOOD, "spec": change})
    assert [(fault.field, message in fault.message) for fault in faults] == [(field, True)]


def test_metadata_takes_only_what_kubernetes_defines() -> None:
    """A misspelt field of the metadata is refused, as the agent's strict reading does."""
    data = {**GOOD, "metadata": {"name": "a", "anotations": {}}}
    assert [str(fault.message) for fault in shape_faults(data)] == ["unknown field, did you mean annotations?"]


def test_fields_that_an_old_agent_lacks_are_named() -> None:
    """A policy with data entries is known to need more than an agent 1.4."""
    data = copy.deepcopy(GOOD)
    assert newer_fields(data) == []
    data["spec"]["kprobes"][0]["ignore"] = {"callNotFound": True}
    assert newer_fields(data) == ["spec.kprobes[0].ignore"]
