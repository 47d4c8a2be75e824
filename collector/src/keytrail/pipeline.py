"""The data path, top to bottom: batches in, records out, every message accounted for.

    raw -> decode -> filter -> merge twins -> enrich -> identify -> detect -> export

Runs in one thread over immutable snapshots that others replace, between two batches; a stage answers with its value or
a `Drop`, and this loop alone counts.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from keytrail.configuration import Configuration
from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.duplicates import HookMerger
from keytrail.detect import Engine
from keytrail.domain.agent import AgentFacts
from keytrail.domain.drop import DropReason, Undecodable
from keytrail.domain.event import Event, EventKind
from keytrail.domain.filters import EventMatcher
from keytrail.domain.finding import Finding
from keytrail.domain.gap import GapPhase
from keytrail.domain.identity import NO_IDENTITY
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.peers import Peers
from keytrail.manifests import Manifests
from keytrail.observe.accounting import Accounting
from keytrail.records import Outputs, Records
from keytrail.source.base import Batch

# Asked with every event: before Python 3.12 a member of an enum costs four times as much as a global.
_SEND, _FILE = EventKind.SEND, EventKind.FILE
_KIND, _BACKFILLED = attrgetter("kind"), attrgetter("backfilled")


class Watch(Protocol):
    """Who looks at the stream for signs of loss."""

    def batch(self, events: Sequence[Event], batch: Batch, /) -> None:
        """Take a batch with all its decoded events, before any filter."""
        ...


class Pipeline:
    """One collector's data path. `process` and `finish` must be called from one thread, `replace` from any."""

    def __init__(
        self,
        decoder: Decoder,
        configuration: Configuration,
        outputs: Outputs,
        accounting: Accounting,
        *,
        wanted: EventMatcher | None = None,
        enricher: Enricher | None = None,
        placed: EventMatcher | None = None,
        merger: HookMerger | None = None,
        watch: Watch | None = None,
        peers: Peers | None = None,
    ) -> None:
        """`wanted` is asked of events as they come, `placed` of those whose pod the enricher has looked for.

        `peers` knows who is at the other end of connections; by default only names that processes ask for.
        """
        self._decoder = decoder
        if enricher is not None:
            decoder.fingerprints.declared = enricher.variables_from_secrets
        decoder.fingerprints.use(configuration.book, configuration.wants_fingerprint)
        self._given = self._configuration = configuration
        self._identities = configuration.matcher
        self._rules = configuration.engine
        self._agent: AgentFacts | None = None
        self._records = Records(outputs, accounting)
        self._accounting = accounting
        self._wanted = wanted
        self._enricher = enricher
        self._placed = placed
        self._merger = merger
        self._watch = watch
        self._peers = Peers() if peers is None else peers
        self._looks_back = False
        """Events that were missed and found later may be among what comes next."""
        decoder.peer_of = self._peers.of

    def process(self, batch: Batch) -> None:
        """Take one batch all the way; afterwards both equations hold again and outputs were told to flush."""
        if self._given is not self._configuration:
            self._adopt(self._given)
        if batch.agent is not None:
            self._decoder.connect(batch.agent, batch.processes)
            self._identities.learn(batch.agent)
            self._agent = batch.agent
        if batch.too_large:
            self._accounting.lost_before_decode(batch.too_large, Undecodable.TOO_LARGE)
        if batch.malformed:
            self._accounting.lost_before_decode(batch.malformed, Undecodable.MALFORMED)
        self._decide(batch)
        if batch.gaps:
            if self._rules is not None and any(gap.phase is GapPhase.BACKFILLED for gap in batch.gaps):
                self._records.findings(self._rules.end_past())
            self._records.gaps(batch.gaps)
        self._records.flush()

    def replace(self, configuration: Configuration) -> None:
        """Decide by another configuration from the next batch on. For any thread; of several, the last one counts."""
        self._given = configuration

    def _adopt(self, configuration: Configuration) -> None:
        """Put a configuration in force. The slot it came in is only read, so that one that comes now is seen next."""
        before, self._configuration = self._configuration, configuration
        self._decoder.fingerprints.use(configuration.book, configuration.wants_fingerprint)
        if configuration.engine is not None and configuration.engine is not before.engine:
            # Windows and counts change with every event: in no other thread are they at rest to be handed on.
            if self._rules is not None:
                configuration.engine.continue_from(self._rules)
            self._rules = configuration.engine
        if configuration.matcher is not before.matcher:
            self._identities = configuration.matcher
            if self._agent is not None:
                self._identities.learn(self._agent)
            # Void, and concluded again at the next event of each: 2 ms for as many processes as a busy node has.
            for process in self._decoder.table:
                process.attribution = None

    @property
    def rules(self) -> Engine | None:
        """The rules in force, with their counters; None when no findings are asked for."""
        return self._rules

    @property
    def uncompared(self) -> int:
        """Values of environment variables that were not compared with Secrets, as there were too many."""
        return self._decoder.fingerprints.over_cap

    @property
    def manifests(self) -> Manifests:
        """The manifests in force."""
        return self._configuration.manifests

    @property
    def agent(self) -> AgentFacts | None:
        """What is known of the agent; None before its first answer."""
        return self._agent

    def finish(self) -> None:
        """End of the stream: repeats that were held back get their summaries."""
        if self._enricher is not None:
            self._judge(self._enricher.flush(), {}, {})
        if self._rules is not None:
            findings = self._rules.flush()
            self._records.count_held_back(self._rules)
            self._records.findings(findings)
        self._records.flush()

    def _decide(self, batch: Batch) -> None:
        undecodable: dict[str, int] = {}
        dropped: dict[str, int] = {}
        last_ns = self._decoder.last_ns
        decoded = self._decoded(batch, undecodable)
        if batch.backfilled:  # the clock of library loads, which have none of their own, stays that of the stream
            self._decoder.last_ns = last_ns
            self._looks_back = True
        events = decoded
        if (wanted := self._wanted) is not None:
            events = [event for event in events if wanted(event)]
            dropped[DropReason.FILTERED] = len(decoded) - len(events)
        if (merger := self._merger) is not None:
            once = [event for event in events if not (event.policy and merger.is_duplicate(event))]
            dropped[DropReason.DUPLICATE_HOOK] = len(events) - len(once)
            events = once
        if self._watch is not None:
            self._watch.batch(decoded, batch)
        if self._enricher is not None:
            events = self._enricher.process(events, time.monotonic_ns())
        self._judge(events, undecodable, dropped)

    def _decoded(self, batch: Batch, undecodable: dict[str, int]) -> list[Event]:
        """Decode, and count what cannot be."""
        decoded: list[Event] = []
        decode, add = self._decoder.decode_past if batch.backfilled else self._decoder.decode, decoded.append
        for raw in batch.messages:
            event = decode(raw)
            if isinstance(event, DecodedEvent):
                add(event)
            else:
                undecodable[event.reason] = undecodable.get(event.reason, 0) + 1
        return decoded

    def _judge(self, events: list[Event], undecodable: dict[str, int], dropped: dict[str, int]) -> None:
        """Attribute events, look at them, hand them on. They count as received now: so far they were on their way."""
        if self._placed is not None:
            kept = [event for event in events if self._placed(event)]
            dropped[DropReason.FILTERED] = dropped.get(DropReason.FILTERED, 0) + len(events) - len(kept)
            events = kept
        records = self._records
        records.expect(len(events))
        if self._looks_back:
            self._look_back_and_forth(events)
        else:
            self._look_at(events)
        if self._rules is not None:
            records.count_held_back(self._rules)
        self._accounting.events(Counter(map(_KIND, events)), undecodable, dropped)

    def _look_back_and_forth(self, events: Iterable[Event]) -> None:
        """Rules have a clock for what is missed and found later, and one for the stream."""
        for past, group in groupby(events, _BACKFILLED):
            if self._rules is not None:
                self._rules.turn(past=past)
            self._look_at(group)
        if self._rules is not None:
            self._rules.turn(past=False)
        self._looks_back = self._enricher is not None and self._enricher.waiting > 0  # perhaps of the past

    def _look_at(self, events: Iterable[Event]) -> None:
        records = self._records
        detect = self._rules.detect if self._rules is not None else _nothing
        identify, hear = self._identities.identify, self._peers.hear
        hand_over, takes_all = records.event, records.takes_all
        for event in events:
            kind = event.kind
            if kind is _SEND:
                hear(event)
            process = event.process
            if process.attribution is None or kind is _FILE:
                identify(event)
            if takes_all or (process.attribution or NO_IDENTITY).evidence:
                hand_over(event)
            if found := detect(event):
                records.findings(found)


def _nothing(_event: Event) -> Sequence[Finding]:
    return ()
