"""Decode turns values into fingerprints: of which variables, how many, and of which processes."""

import json
import logging
from pathlib import Path

import pytest

from keytrail.decode import memory
from keytrail.decode.fingerprints import MOST_IN_AN_HOUR, MOST_OF_A_PROCESS
from keytrail.decode.table import ProcessTable
from keytrail.domain.declared import SecretKey
from keytrail.domain.fingerprint import Book, ClusterKey
from keytrail.domain.process import Process
from support.fingerprints import KEY, OPENAI, VALUE, book, decoder, mapping, started

DIGEST = KEY.digest(VALUE.encode())
PUBLISHED = book({OPENAI: VALUE, SecretKey("ml", "openai", "DB_DSN"): VALUE})


def values(count: int, start: int = 0) -> list[str]:
    """Different strong values."""
    return [f"k{number:05d}Zq7Xw2Vb9Tn4Rm6Yp" for number in range(start, start + count)]


def test_variables_that_somebody_asks_about_are_fingerprinted() -> None:
    """By a mapping's name, a Secret's key, a telling name, the Pod's spec; no other variable is looked at."""
    by = decoder(PUBLISHED, mapping())
    by.fingerprints.declared = lambda _: ("OF_THE_SPEC",)
    names = ("LLM_ACCESS", "DB_DSN", "SERVICE_TOKEN", "OF_THE_SPEC", "NOTES", "PATH")
    found = started(by, dict.fromkeys(names, VALUE)).process.fingerprints
    assert found == tuple((name, DIGEST) for name in names[:4])


def test_weak_values_get_no_fingerprint() -> None:
    """Short and guessable values are not even hashed."""
    by = decoder(PUBLISHED)
    weak = {"A_TOKEN": "short", "B_TOKEN": "changeme-changeme-changeme", "C_TOKEN": ""}
    assert started(by, weak).process.fingerprints == ()


def test_without_a_key_nothing_is_computed() -> None:
    """Off by default, and off again when the file is gone."""
    by = decoder(Book())
    assert started(by, {"OPENAI_API_KEY": VALUE}).process.fingerprints == ()
    by.fingerprints.use(PUBLISHED, lambda _: True)
    assert started(by, {"OPENAI_API_KEY": VALUE}, pid=101).process.fingerprints
    by.fingerprints.use(Book(), lambda _: True)
    assert started(by, {"OPENAI_API_KEY": VALUE}, pid=102).process.fingerprints == ()


def test_a_new_key_counts_for_new_processes() -> None:
    """After a rotation new processes are fingerprinted by the key in use; older ones keep what they have."""
    by = decoder(PUBLISHED)
    first = started(by, {"OPENAI_API_KEY": VALUE})
    renewed = ClusterKey("2026-12-22T14:00:00Z", bytes(32))
    by.fingerprints.use(Book((renewed, KEY), PUBLISHED.secrets), lambda _: True)
    second = started(by, {"OPENAI_API_KEY": VALUE}, pid=101)
    assert first.process.fingerprints == (("OPENAI_API_KEY", DIGEST),)
    assert second.process.fingerprints == (("OPENAI_API_KEY", renewed.digest(VALUE.encode())),)


def test_a_survivor_and_a_fork_keep_fingerprints() -> None:
    """What is told without environment has that of its image before, or of its parent: with the fingerprints."""
    table = ProcessTable()
    one = Process("a", pid=1, binary="/app", arguments="serve", start_ns=5, environment=("OPENAI_API_KEY",))
    one.fingerprints = (("OPENAI_API_KEY", b"d" * 16),)
    table.add(one, announced=True)
    fork = Process("b", pid=2, binary="/app", arguments="serve", start_ns=6, parent_exec_id="a")
    again = Process("c", pid=1, binary="/app", arguments="serve", start_ns=5, flags="procFS")
    table.add(fork, announced=False)
    table.add(again, announced=True)
    assert fork.fingerprints == again.fingerprints == one.fingerprints


def test_guesses_are_few(caplog: pytest.LogCaptureFixture) -> None:
    """Sixteen variables of a process, 64 different values of a container in an hour; the rest is counted and said."""
    by = decoder(PUBLISHED)
    many = {f"A{number}_TOKEN": value for number, value in enumerate(values(40))}
    with caplog.at_level(logging.WARNING):
        assert len(started(by, many).process.fingerprints) == MOST_OF_A_PROCESS
        assert by.fingerprints.over_cap == 40 - MOST_OF_A_PROCESS
        for number, value in enumerate(values(200, start=100)):
            started(by, {"A_TOKEN": value}, pid=1000 + number)
    assert by.fingerprints.over_cap == 40 - MOST_OF_A_PROCESS + 200 - (MOST_IN_AN_HOUR - MOST_OF_A_PROCESS)
    assert len(caplog.records) == 1
    assert not any(value in caplog.text for value in values(300))
    assert started(by, {"A_TOKEN": values(1)[0]}, pid=2000).process.fingerprints, "one that was seen is no guess"
    assert started(by, {"A_TOKEN": VALUE}, pid=2001, container="c2").process.fingerprints, "another container"
    by.fingerprints.use(PUBLISHED, lambda _: True)
    assert not started(by, {"A_TOKEN": VALUE}, pid=2002).process.fingerprints, "a changed mapping gives no more guesses"
    assert started(by, {"A_TOKEN": VALUE}, pid=6000).process.fingerprints, "the next hour"


def test_fingerprints_are_not_kept_on_disk(tmp_path: Path) -> None:
    """What survives a restart holds names of variables, and neither values nor fingerprints."""
    by = decoder(PUBLISHED)
    event = started(by, {"OPENAI_API_KEY": VALUE})
    assert memory.save(tmp_path, "boot", [event.process]) == 1
    text = (tmp_path / memory.FILE_NAME).read_text()
    assert "OPENAI_API_KEY" in text
    assert VALUE not in text
    assert DIGEST is not None
    assert DIGEST.hex() not in text
    assert json.dumps(DIGEST.decode("latin-1"))[1:-1] not in text
