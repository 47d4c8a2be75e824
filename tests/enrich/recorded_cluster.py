"""The cluster of the Kubernetes recordings: its objects, when its API announced them, and the agent's messages."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import zstandard

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.drop import Drop
from keytrail.domain.event import Event, EventKind
from keytrail.domain.pod_facts import Owner, PodFacts, pod_facts
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.index import PodIndex
from keytrail.proto.tetragon import events_pb2
from support.recordings import CORPUS, labels, messages, window

OBJECTS = CORPUS / "kubernetes" / "objects"
SECOND = 1_000_000_000
GUEST_BEHIND = 1_360_000_000
"""Nanoseconds that the guest's clock, that of the events, is behind the host's, that of arrivals."""
FORGED, UNKNOWN = "forged-cgroup", "unknown-container"


@cache
def objects(name: str) -> tuple[dict[str, Any], ...]:
    """Objects of one file, as the API has them."""
    return tuple(json.loads((OBJECTS / f"{name}.json").read_text())["items"])


@cache
def known_pods() -> tuple[PodFacts, ...]:
    """Pods that were there before the recordings began."""
    return tuple(pod_facts(raw, redact=Redactor().redact) for raw in objects("pods"))


@cache
def later_pods() -> dict[str, PodFacts]:
    """Pods that were announced while something was recorded, by name."""
    return {
        raw["metadata"]["name"]: pod_facts(raw, redact=Redactor().redact) for raw in objects("pods-announced-later")
    }


def job_owner(namespace: str, name: str) -> Owner | None:
    """What the API server answers about a Job. Raises LookupError for one that is not there."""
    for job in objects("jobs"):
        if (job["metadata"]["namespace"], job["metadata"]["name"]) == (namespace, name):
            owners = job["metadata"].get("ownerReferences", [])
            return next((Owner(one["kind"], one["name"], one["uid"]) for one in owners), None)
    raise LookupError(name)


def new_index() -> PodIndex:
    """An index that knows what was there before."""
    index = PodIndex(job_owner)
    for account in objects("serviceaccounts"):
        metadata = account["metadata"]
        index.service_account(metadata["namespace"], metadata["name"], metadata.get("annotations", {}))
    index.replace(known_pods())
    return index


def nanoseconds(text: str) -> int:
    """Of a label's time."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1_000


class Change(NamedTuple):
    """Something that the API server announced, by the guest's clock."""

    at_ns: int
    make: Callable[[PodIndex], None]


def _of(name: str, wanted: str) -> PodFacts:
    [identity] = window(name, wanted)["identity"]
    return later_pods()[identity["pod"]]


def _started_ns(name: str, wanted: str) -> int:
    """When the window's container began: its first event."""
    [identity] = window(name, wanted)["identity"]
    digits = identity["container_id"][:31]
    return min(
        event.time_ns for event in stream(name) if event.process.container_id == digits and event.kind is EventKind.EXEC
    )


def changes(name: str) -> list[Change]:
    """What was announced during a recording, and when, as its labels say."""
    found: list[Change] = []
    wanted = {one["name"] for one in labels(name)["windows"]}

    def add(window_name: str, seconds: float, make: Callable[[PodIndex], None]) -> None:
        found.append(Change(_started_ns(name, window_name) + round(seconds * SECOND), make))

    if "short-lived-pod" in wanted:
        short = _of(name, "short-lived-pod")
        add("short-lived-pod", -0.3, lambda index: index.apply(short))
        ended = nanoseconds(window(name, "short-lived-pod")["end"])
        found.append(Change(ended, lambda index: index.delete(short.uid)))
    for window_name, seconds in (("late-pod-3s", 3.0), ("late-pod-12s", 12.0)):
        if window_name in wanted:
            late = _of(name, window_name)
            add(window_name, seconds, lambda index, pod=late: index.apply(pod))
    if "pending-pod" in wanted:
        running = _of(name, "pending-pod")
        pending = replace(running, containers=tuple(replace(one, ids=()) for one in running.containers))
        add("pending-pod", -2.0, lambda index: index.apply(pending))
        add("pending-pod", 2.0, lambda index: index.apply(running))
    if "relabel" in wanted:
        chat = next(pod for pod in known_pods() if pod.name.startswith("chat-api"))
        labelled = replace(chat, labels={**(chat.labels or {}), **window(name, "relabel")["labels_changed"]})
        found.append(Change(nanoseconds(window(name, "relabel")["start"]), lambda index: index.apply(labelled)))
    return sorted(found, key=lambda change: change.at_ns)


def remembered(name: str, index: PodIndex) -> None:
    """Recording `kubernetes`: an earlier session of the same agent had the same pods, and had deleted them."""
    if name == "kubernetes":
        for wanted in ("late-pod-3s", "late-pod-12s", "pending-pod", "short-lived-pod"):
            index.apply(_of(name, wanted))
            index.delete(_of(name, wanted).uid)


def arrivals(name: str) -> list[int]:
    """When each message arrived, by the guest's clock; where that was not recorded, a second after the one before."""
    data = (CORPUS / name / "arrival.txt.zst").read_bytes()
    with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data) as reader:
        lines = io.TextIOWrapper(reader, encoding="ascii").read().split()
    return [round(float(line) * 1000) * 1_000_000 - GUEST_BEHIND for line in lines]


def without_pods(raw: bytes) -> bytes:
    """The message as an agent sends it that knows nothing of Kubernetes."""
    message = events_pb2.GetEventsResponse.FromString(raw)
    inner = getattr(message, message.WhichOneof("event") or "")
    parts = [inner.process] if hasattr(inner, "process") else []
    parts += [inner.parent] if hasattr(inner, "parent") else []
    for process in (*parts, *getattr(inner, "ancestors", ())):
        process.ClearField("pod")
    return message.SerializeToString()


def stream(name: str, *, bare: bool = False) -> Iterator[Event]:
    """A recording's events, by a decoder of their own; `bare`: without a word on pods."""
    decoder = Decoder(Redactor().redact)
    decoder.connect(AgentFacts(captures_environment=True))
    for raw in messages(name):
        event = decoder.decode(without_pods(raw) if bare else raw)
        assert not isinstance(event, Drop), event
        yield event


class Placed(NamedTuple):
    """An event, its number in the stream, and what was known of its process when it went on."""

    number: int
    event: Event
    pod: Mapping[str, str]
    partial: str
    delay_ns: int


def placed(
    name: str, *, bare: bool = False, then: Callable[[Event], object] = lambda _event: None, **options: Any
) -> list[Placed]:
    """Play a recording as it arrived, with the API's announcements at their times; `then` sees what goes on."""
    index = new_index()
    remembered(name, index)
    enricher = Enricher(index, **options)
    pending = changes(name)
    times = arrivals(name)
    numbers: dict[int, tuple[int, int]] = {}
    found: list[Placed] = []
    now = 0

    def take(ready: Iterable[Event]) -> None:
        for event in ready:
            number, arrived = numbers[id(event)]
            then(event)
            found.append(Placed(number, event, _told(event), _partial(event), now - arrived))

    for number, event in enumerate(stream(name, bare=bare)):
        now = times[number] if number < len(times) else max(now, event.time_ns + SECOND)
        while pending and pending[0].at_ns <= now:
            pending.pop(0).make(index)
        numbers[id(event)] = number, now
        take(enricher.process([event], now))
    now += 60 * SECOND
    take(enricher.flush())
    assert [one.number for one in sorted(found, key=lambda one: one.number)] == list(range(len(messages(name))))
    return found


def _told(event: Event) -> Mapping[str, str]:
    pod = event.process.pod
    if pod is None:
        return {}
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "uid": pod.uid,
        "container": pod.container.name,
        "container_id": pod.container.id,
        "workload": f"{pod.workload_kind}/{pod.workload}",
        "service_account": pod.service_account,
    }


def _partial(event: Event) -> str:
    placement = event.process.placement
    assert placement is not None
    return "" if placement.partial is None else placement.partial.value
