"""What one stage costs by itself: the same events, no sockets, no threads.

In: a number of events. Out: as JSON, microseconds of CPU an event for parse alone, decode, identify, JSON line and OTLP
record, the best of several passes in turn: what disturbs a pass makes it longer, never shorter.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import ParamSpec, TypeVar

from synthetic import events

from keytrail.app import freeze_heap
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.drop import Drop
from keytrail.domain.event import Event
from keytrail.export.json_line import event_line
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_output import OtlpOutput, event_lane
from keytrail.export.spool.entries import Lane
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse

P = ParamSpec("P")
T = TypeVar("T")
_TOGETHER = 512


class Discard:
    """Where encoded records go when only their encoding is measured."""

    def append(self, lane: Lane, resource: bytes, record: bytes) -> None:
        """Forget it."""

    def flush(self) -> None:
        """Do nothing."""


def stage_costs(count: int, processes: int, passes: int = 3) -> dict[str, float]:
    """Measure; microseconds an event by stage."""
    messages = list(events(count, processes))
    freeze_heap()
    best: dict[str, float] = {}
    for _ in range(passes):
        for name, seconds in _pass(messages).items():
            best[name] = min(best.get(name, seconds), seconds)
    return {name: seconds / count * 1e6 for name, seconds in best.items()}


def _pass(messages: Sequence[bytes]) -> dict[str, float]:
    """Take all messages through all stages, a batch at a time; each output gets events whose details are unread."""
    spent = dict.fromkeys(("parse", "decode", "identify", "json_line", "otlp_encode"), 0.0)
    for_lines, for_records = Decoder(Redactor().redact), Decoder(Redactor().redact)
    matcher = IdentityMatcher((), load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    encoder = RecordEncoder({"service.name": "keytrail"}, time.time_ns)
    output = OtlpOutput(encoder.encode, event_lane, Discard())
    rest = iter(messages)
    while batch := list(islice(rest, _TOGETHER)):
        _timed(spent, "parse", _parsed, batch)
        lines = _timed(spent, "decode", _decoded, for_lines, batch)
        _timed(spent, "identify", _identify, matcher, lines)
        _timed(spent, "json_line", _lines, lines)
        records = _decoded(for_records, batch)
        _identify(matcher, records)
        _timed(spent, "otlp_encode", _write, output, records)
    return spent


def _timed(spent: dict[str, float], name: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    started = time.process_time()
    result = work(*args, **kwargs)
    spent[name] += time.process_time() - started
    return result


def _parsed(batch: Sequence[bytes]) -> list[GetEventsResponse]:
    return [GetEventsResponse.FromString(raw) for raw in batch]


def _lines(decoded: Sequence[Event]) -> list[str]:
    return [event_line(event) for event in decoded]


def _decoded(decoder: Decoder, batch: Sequence[bytes]) -> list[Event]:
    return [event for raw in batch if not isinstance(event := decoder.decode(raw), Drop)]


def _identify(matcher: IdentityMatcher, decoded: Sequence[Event]) -> None:
    for event in decoded:
        if event.process.attribution is None:
            event.process.attribution = matcher.attribute(event.process)


def _write(output: OtlpOutput, decoded: Sequence[Event]) -> None:
    for event in decoded:
        output.write(event)
    output.flush()


def main() -> None:
    """Measure on one core, in a process whose heap may be frozen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--core", type=int, required=True, help="the only core to run on")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    print(json.dumps(stage_costs(args.events, args.processes)))


if __name__ == "__main__":
    main()
