"""Each thing to see in a recording can be pointed at in the records: the lines and fields that show it."""

import json

import pytest

from rules.pointing import Record, records_by_window
from rules.what_to_see import WHAT_TO_SEE
from support.recordings import CORPUS, labels

EXPECTED = {
    window["name"]: window["what_to_see"]
    for window in json.loads((CORPUS / "policy-library" / "expectations.json").read_text())["windows"]
}


def test_nothing_to_see_is_left_out() -> None:
    """Every statement of every window, word for word, has something in the table that shows it."""
    assert {window: list(statements) for window, statements in WHAT_TO_SEE.items()} == EXPECTED
    assert all(checks for statements in WHAT_TO_SEE.values() for checks in statements.values())


@pytest.mark.parametrize("window", EXPECTED)
def test_what_to_see_is_in_the_records(window: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each statement of a window is shown by lines of that window, which a table names."""
    records = records_by_window("policy-library")[window]
    with capsys.disabled():
        for statement, checks in WHAT_TO_SEE[window].items():
            print(f"\n{window}: {statement}")  # noqa: T201 - the table
            for check in checks:
                for pointer in check(records)[:2] or ["no such line, as stated"]:
                    print(f"    {pointer}")  # noqa: T201 - the table


def in_pod(records: list[Record], namespace: str, pod: str, container: str) -> bool:
    """Whether an event line names the container."""
    wanted = {"pod.namespace": namespace, "pod.name": pod, "pod.container": container}
    return any(wanted.items() <= one.fields.items() for one in records)


@pytest.mark.parametrize("recording", ["kubernetes", "kubernetes-late"])
def test_pods_and_names_of_a_cluster_are_in_the_records(recording: str) -> None:
    """Each window's pods and containers, TLS server names and keys, as its labels state them, stand in its lines."""
    seen = records_by_window(recording)
    stated = 0
    for window in labels(recording)["windows"]:
        records = seen[window["name"]]
        for one in window.get("identity") or []:
            assert in_pod(records, one["namespace"], one["pod"], one["container"]), (window["name"], one)
            stated += 1
        for name in filter(None, (window.get("sni") or "").split(", ")):
            assert any(one.fields.get("payload.server_name") == name for one in records), (window["name"], name)
            stated += 1
        if key := window.get("key"):
            assert any(key["var"] in {one.fields.get("identity.key"), *_evidence(one)} for one in records), window[
                "name"
            ]
            stated += 1
    assert stated >= 5


def _evidence(record: Record) -> set[str]:
    return {one["name"] for one in record.fields.get("identity.evidence", [])}


def test_hooks_of_each_sensor_are_in_the_records() -> None:
    """Each window of recording sensors has an event line of every hooked function that its label expects."""
    seen = records_by_window("sensors")
    for window in labels("sensors")["windows"]:
        functions = {one.source.function for one in seen[window["name"]] if one.form == "event"}
        expected = {one.rpartition(":")[2].removeprefix("__x64_sys_") for one in window.get("expected", [])}
        assert expected <= functions, window["name"]
