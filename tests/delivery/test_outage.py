"""An outage of an hour, from findings to the backend: real rules, real records, `Delivery` as the collector has it."""

import resource
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

from keytrail import delivery
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.delivery import SPOOL, Delivery
from keytrail.detect import Engine
from keytrail.detect.library import load_rules
from keytrail.domain.finding import Finding
from keytrail.export.record_uid import finding_digest
from keytrail.export.spool.durable import Spool
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import builtin_folder, load_builtin_identities
from keytrail.observe.accounting import Accounting
from keytrail.settings import Settings
from reload.config_map import rule
from support.recordings import decode_each, messages
from support.uid_receiver import UidReceiver

DISK_SECONDS = 60.0
SYNC_EVERY = 5000
"""Findings: they come faster here than in an hour, and what no disk has kept up with would have to go."""


def recorded(*names: str) -> Iterator[DecodedEvent]:
    """Attributed events of recordings."""
    decoder = Decoder(Redactor().redact)
    matcher = IdentityMatcher((), load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    for name in names:
        for event in decode_each(decoder, messages(name)):
            if event.process.attribution is None:
                event.process.attribution = matcher.attribute(event.process)
            yield event


def findings(rules: Path, *names: str) -> list[Finding]:
    """What the rules of a folder find in recordings."""
    loaded, problems = load_rules(rules)
    assert not problems
    engine = Engine.load(loaded)
    return [found for event in recorded(*names) for found in engine.detect(event)]


def at_another_time(finding: Finding, number: int) -> Finding:
    """A finding of its own: the same thing happened once more, with another uid."""
    event = copy(finding.event)
    event.time_ns += number * 2_000_000  # 500 a second
    return replace(finding, event=event)


class Outage:
    """A collector's delivery that is restarted, what went in, and the most that it took on disk."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._settings = Settings(state_dir=folder)
        self._environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        self.uids = 0
        """All uids together, by exclusive or: a set of them would be most of the memory that is measured."""
        self.most_bytes = 0
        self.start()

    def start(self) -> None:
        """Begin, or begin again on what is there."""
        self._delivery = Delivery(self._settings, Accounting(), self._environ, patient=False)
        self._delivery.start()
        (self._output,) = self._delivery.findings()

    def find(self, made: list[Finding], numbers: range) -> None:
        """Write a finding for each number."""
        for number in numbers:
            finding = at_another_time(made[number % len(made)], number)
            self.uids ^= int.from_bytes(finding_digest(finding), "big")
            self._output.write(finding)
            if number % SYNC_EVERY == SYNC_EVERY - 1:
                assert self.spool.sync(60)
                self.most_bytes = max(self.most_bytes, self.spool.state().bytes)

    def stop(self) -> None:
        """End as on SIGTERM, but with all the time that a disk may need."""
        self._delivery.close(1.0 + DISK_SECONDS)

    @property
    def spool(self) -> Spool:
        """Where findings wait."""
        return self._delivery.spool


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [20_000, pytest.param(1_800_000, marks=pytest.mark.long)])
def test_outage_of_an_hour(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 findings a second for 60 minutes wait through a restart within the default bound, and each arrives."""
    monkeypatch.setattr(delivery, "_CLOSE_SECONDS", DISK_SECONDS)
    if count < 1_800_000:  # all shipped rules take longer to load than everything else here
        (tmp_path / "rule.yaml").write_text(rule("any-exec", message="{process.binary} started"))
        made = findings(tmp_path / "rule.yaml", "seed-demo")
    else:
        made = findings(builtin_folder() / "rules", "kubernetes", "policy-library")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with UidReceiver() as backend:
        outage = Outage(tmp_path, backend.endpoint)
        outage.find(made, range(count // 2))
        outage.stop()
        assert outage.spool.state().dropped == {}
        outage.start()
        outage.find(made, range(count // 2, count))
        assert outage.spool.sync(60)
        state = outage.spool.state()
        files = sum(path.stat().st_size for path in (tmp_path / SPOOL).rglob("*") if path.is_file())
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        assert (state.recovered, state.queued, dict(state.dropped)) == (count // 2, count, {})
        assert not backend.records
        backend.start()
        assert backend.wait_for(count, 60)
        outage.stop()
        end = outage.spool.state()
    seconds = backend.last_at - backend.first_at
    with capsys.disabled():
        print(  # noqa: T201 - the answer to a question of the design
            f"\n{count} findings: at most {outage.most_bytes} bytes on disk ({files} when the backend came back), "
            f"memory grew by {grown} MiB; drained in {seconds:.1f} s, {count / seconds:.0f} a second, in "
            f"{backend.requests} requests, {backend.records - count} records twice"
        )
    together = 0
    for uid in backend.uids:
        together ^= uid
    assert (len(backend.uids), together) == (count, outage.uids)
    assert (end.exported, end.queued, dict(end.dropped)) == (count, 0, {})
    assert outage.most_bytes <= Settings().spool_bytes
    assert grown < 250
