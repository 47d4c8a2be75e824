"""The fingerprints' file through the pipeline: put in force between two batches, for processes old and new."""

from pathlib import Path

from keytrail.configuration import Configuration, load_configuration
from keytrail.decode.decoder import Decoder
from keytrail.decode.fingerprints import MOST_OF_A_PROCESS
from keytrail.decode.redact import Redactor
from keytrail.domain.event import Event
from keytrail.domain.fingerprint import write
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Pipeline
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from support.fingerprints import OPENAI, VALUE, book
from support.synthetic import exec_event, kprobe_event, process


class Kept:
    """An output that keeps the kind of the primary evidence."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def write(self, event: Event) -> None:
        """Keep it."""
        attribution = event.process.attribution
        primary = None if attribution is None else attribution.primary
        self.found.append("" if primary is None else str(primary.kind))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self, deadline: float) -> None:
        """Nothing to end."""


def test_what_is_over_the_cap_is_counted_for_all_to_see(tmp_path: Path) -> None:
    """Of forty values of one process all that were not compared are in the figure that the metrics show."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "f.json").write_bytes(write(book({OPENAI: VALUE})))
    settings = Settings(config=tmp_path / "manifests", fingerprints_file=tmp_path / "f.json", rules="none")
    loaded = load_configuration(settings, Redactor().redact, live=False, findings=False)
    pipeline = Pipeline(Decoder(Redactor().redact), loaded, Outputs(), Accounting())
    acting = process(
        100, binary="/usr/bin/app", environment={f"A{one}_TOKEN": f"{one:02d}{VALUE}" for one in range(40)}
    )
    pipeline.process(Batch((exec_event(acting),), 0))
    assert pipeline.uncompared == 40 - MOST_OF_A_PROCESS


def test_a_book_is_put_in_force_between_two_batches(tmp_path: Path) -> None:
    """A value is observed at first; once the operator published its fingerprint, it is verified; without, observed."""
    (tmp_path / "manifests").mkdir()
    settings = Settings(config=tmp_path / "manifests", fingerprints_file=tmp_path / "f.json", rules="none")

    def load(previous: Configuration | None = None) -> Configuration:
        return load_configuration(settings, Redactor().redact, live=False, findings=False, previous=previous)

    kept, loaded = Kept(), load()
    pipeline = Pipeline(Decoder(Redactor().redact), loaded, Outputs(events=(kept,)), Accounting())

    def seen(pid: int) -> str:
        acting = process(pid, binary="/usr/bin/app", environment={"SOME_TOKEN": VALUE})
        pipeline.process(Batch((exec_event(acting),), 0))
        return kept.found[-1]

    assert seen(100) == "env"
    (tmp_path / "f.json").write_bytes(write(book({OPENAI: VALUE})))
    loaded = load(loaded)
    pipeline.replace(loaded)
    assert seen(101) == "fingerprint"
    (tmp_path / "f.json").write_bytes(write(book({})))
    loaded = load(loaded)
    pipeline.replace(loaded)
    acting = process(101, binary="/usr/bin/app")
    pipeline.process(Batch((kprobe_event(acting, "tcp_connect", {"sock_arg": {"family": "AF_INET"}}),), 0))
    assert kept.found[-1] == "env"
    (tmp_path / "f.json").write_bytes(write(book({OPENAI: VALUE})))
    pipeline.replace(load(loaded))
    pipeline.process(Batch((kprobe_event(acting, "tcp_connect", {"sock_arg": {"family": "AF_INET"}}),), 0))
    assert kept.found[-1] == "fingerprint", "what was fingerprinted at exec counts as soon as the Secret is known"
