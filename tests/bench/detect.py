"""What the shipped rules cost on each event, beside what its decoding cost in the same pass.

In: a number of synthetic events; the recordings are taken whole. Out: as JSON, for each stream, microseconds of decode
and detect of the median event, the ratio of these medians, the ratio of the sums, and both by kind of event. Of each
event the least of several passes, each with a new decoder and engine: what disturbs it makes it longer, never shorter.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from synthetic import events

from keytrail.app import freeze_heap
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.detect import Engine
from keytrail.detect.library import load_rules
from keytrail.domain.drop import Drop
from keytrail.domain.rules import DetectionRule
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from keytrail.source.recording import read_recording

ROOT = Path(__file__).parent.parent.parent
RECORDED = {
    "policy-library": ROOT / "collector/src/keytrail/testing/recordings/policy-library",
    "kubernetes": ROOT / "tests/corpus/recordings/kubernetes",
    "sensors": ROOT / "tests/corpus/recordings/sensors",
}
SYNTHETIC = "synthetic"
Cost = tuple[str, int, int]
"""Kind of an event, nanoseconds of its decode, of its detect."""


def detection_costs(count: int, processes: int, passes: int) -> dict[str, Any]:
    """Measure all streams with all stable rules."""
    rules, problems = load_rules(ROOT / "policies/rules")
    if problems:
        raise SystemExit("\n".join(map(str, problems)))
    streams = {name: list(read_recording(folder)) for name, folder in RECORDED.items()}
    streams[SYNTHETIC] = list(events(count, processes))
    freeze_heap()
    return {name: _summary(_least([_pass(rules, stream) for _ in range(passes)])) for name, stream in streams.items()}


def _pass(rules: Sequence[DetectionRule], stream: Sequence[bytes]) -> list[Cost]:
    """Take each message through decode, identify and detect, as the pipeline does: its details are unread before."""
    decoder, engine = Decoder(Redactor().redact), Engine.load(rules)
    matcher = IdentityMatcher((), load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    clock, found = time.perf_counter_ns, []
    for raw in stream:
        started = clock()
        event = decoder.decode(raw)
        decoded = clock()
        if isinstance(event, Drop):
            continue
        if event.process.attribution is None:
            event.process.attribution = matcher.attribute(event.process)
        judging = clock()
        engine.detect(event)
        found.append((event.kind.value, decoded - started, clock() - judging))
    return found


def _least(passes: Sequence[Sequence[Cost]]) -> list[Cost]:
    """What each event cost in its best pass, decode and detect each by itself."""
    same = zip(*passes, strict=True)
    return [(one[0][0], min(cost[1] for cost in one), min(cost[2] for cost in one)) for one in same]


def _summary(costs: Sequence[Cost]) -> dict[str, Any]:
    kinds: dict[str, list[Cost]] = defaultdict(list)
    for cost in costs:
        kinds[cost[0]].append(cost)
    return {
        **_medians(costs),
        "ratio_of_sums": sum(cost[2] for cost in costs) / sum(cost[1] for cost in costs),
        "kinds": {kind: _medians(ones) for kind, ones in sorted(kinds.items())},
    }


def _medians(costs: Sequence[Cost]) -> dict[str, float]:
    decode, detect = (median(cost[place] for cost in costs) for place in (1, 2))
    return {"events": len(costs), "decode": decode / 1e3, "detect": detect / 1e3, "ratio": detect / decode}


def main() -> None:
    """Measure on one core, in a process whose heap may be frozen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, required=True, help="of the synthetic stream")
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--core", type=int, required=True, help="the only core to run on")
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    print(json.dumps(detection_costs(args.events, args.processes, args.passes)))


if __name__ == "__main__":
    main()
