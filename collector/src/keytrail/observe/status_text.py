"""The status document as a page for a person.

What /status answered comes in, lines no wider than the terminal go out. Everything in it is treated as text of others:
whoever listens at that address made it, so nothing is taken for granted and nothing reaches the terminal raw.
"""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from keytrail.observe.text import printable

_INDENT: Final = "           "
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_GAPS_SHOWN: Final = 12
_IDENTITIES_SHOWN: Final = 12
_WORKLOADS_SHOWN: Final = 3
_NARROWEST: Final = 30
_KIBI: Final = 1024
_INTENDED: Final = frozenset({"filtered", "duplicate_hook"})

Document = Mapping[str, Any]


def status_lines(document: Document, where: str, width: int) -> list[str]:
    """Return the page; `where` is the address that was asked."""
    width = max(width, _NARROWEST)
    state = "ready" if document.get("ready") else "NOT READY"
    lines = _wrap(f"keytrail {_text(document, 'version')} at {printable(where)}: {state}", "", width)
    lines += _wrap(f"since {_text(document, 'started')}, asked at {_text(document, 'now')}", "", width)
    for fault in _list(document, "reasons"):
        lines += _wrap(f"! {printable(str(fault))}", "  ", width)
    for complaint in _list(document, "degraded"):
        lines += _wrap(f"- {printable(str(complaint))}", "  ", width)
    for name, texts in (
        ("agent", _agent(_part(document, "stream"))),
        ("events", _events(document)),
        ("records", _records(_part(_part(document, "accounting"), "records"))),
        ("spool", _spool(_part(document, "spool"))),
        ("backend", _backend(_part(document, "backend"))),
        ("gaps", _gaps(_part(document, "gaps"))),
        ("cluster", _cluster(_part(document, "cluster"))),
        ("rules", _rules(document)),
        ("identities", _identities(_part(document, "recent"))),
        ("reload", _reload(_part(document, "reload"))),
        ("process", _process(_part(document, "usage"))),
    ):
        for number, text in enumerate(texts):
            label = f"{name:<{len(_INDENT)}}" if number == 0 else _INDENT
            lines += textwrap.wrap(label + text, width, subsequent_indent=_INDENT + "  ", drop_whitespace=True)
    return lines


def attention(document: Document) -> list[str]:
    """What somebody should look at; empty when all is well."""
    return [printable(str(text)) for name in ("reasons", "degraded") for text in _list(document, name)]


def _agent(stream: Document) -> Iterator[str]:
    if not stream:
        yield "not asked yet"
        return
    state = "connected" if stream.get("connected") else "NOT connected"
    since = f" since {_text(stream, 'since')}" if "since" in stream else ""
    reader = f", read with {_text(stream, 'reader')}" if stream.get("reader") else ""
    yield f"{state}{since}, {_text(stream, 'address') or 'no address known'}{reader}"
    if stream.get("reason"):
        yield _text(stream, "reason")
    version = _text(stream, "agent_version") or "of unknown version"
    yield f"Tetragon {version}, connected {_number(stream, 'connections')} times"
    if left_out := _list(stream, "left_out"):
        yield f"not asked for {', '.join(map(str, left_out))}, which nobody looks at"


def _events(document: Document) -> Iterator[str]:
    events = _part(_part(document, "accounting"), "events")
    rate, lag = document.get("events_per_second"), _part(document, "stream").get("lag_seconds")
    speed = f"{rate:.1f} a second" if isinstance(rate, int | float) else "rate not known yet"
    yield speed + (f", the newest {lag:.1f} s old" if isinstance(lag, int | float) else "")
    if inbox := _part(document, "inbox"):
        yield f"{_number(inbox, 'events')} of at most {_number(inbox, 'capacity')} wait"
    yield from _equation(
        "received", _number(events, "received"),
        {"decoded": _number(events, "decoded"), "undecodable": _number(events, "undecodable"),
         "dropped": _sum(_part(events, "dropped"))},
    )  # fmt: skip
    yield from _counts("decoded", _part(events, "by_kind"))
    yield from _counts("undecodable", _part(events, "undecodable_by_reason"))
    yield from _counts("dropped", _part(events, "dropped"))


def _records(records: Document) -> Iterator[str]:
    yield from _equation(
        "made", _number(records, "made"),
        {"exported": _number(records, "exported"), "queued": _number(records, "queued"),
         "suppressed": _sum(_part(records, "suppressed")), "dropped": _sum(_part(records, "dropped"))},
    )  # fmt: skip
    if _number(records, "recovered"):
        yield f"{_number(records, 'recovered')} of them recovered from an earlier run"
    yield from _counts("suppressed", _part(records, "suppressed"))
    yield from _counts("dropped", _part(records, "dropped"))


def _equation(name: str, whole: int, parts: Mapping[str, int]) -> Iterator[str]:
    yield f"{name} {whole} = " + " + ".join(f"{part} {count}" for part, count in parts.items())
    if whole != sum(parts.values()):
        yield "this does not add up: a bug in keytrail, please report it"


def _counts(name: str, counts: Document) -> Iterator[str]:
    if counts:
        shown = (
            f"{printable(key)} {_number(counts, key)}" + (" (as intended)" if key in _INTENDED else "")
            for key in counts
        )
        yield f"{name}: " + ", ".join(shown)


def _spool(spool: Document) -> Iterator[str]:
    if not spool:
        return
    place = "on disk" if spool.get("durable") else "in memory only"
    bound = f" of at most {_bytes(_number(spool, 'most_bytes'))}" if spool.get("most_bytes") else ""
    yield f"{_bytes(_number(spool, 'bytes'))}{bound}, {place}"
    oldest = f", the oldest of {_text(spool, 'oldest')}" if "oldest" in spool else ""
    yield f"{_number(spool, 'queued')} records wait, {_number(spool, 'unsynced')} not on disk yet{oldest}"
    yield from _counts("by severity", _part(spool, "by_lane"))
    if _number(spool, "dead_letters"):
        yield f"{_number(spool, 'dead_letters')} refused by the backend and set aside (keytrail spool list)"


def _backend(backend: Document) -> Iterator[str]:
    if not backend:
        return
    if backend.get("trouble") or backend.get("reachable") is False:
        state = f"does NOT take records ({_text(backend, 'trouble') or 'unreachable'})"
    else:
        state = "takes records" if backend.get("reachable") else "not asked yet"
    yield f"{_text(backend, 'endpoint') or 'not set'}: {state}"
    yield from _counts("requests", _part(backend, "requests"))
    if "last_success" in backend:
        yield f"last success {_text(backend, 'last_success')}"
    if backend.get("last_error"):
        yield f"last error {_text(backend, 'failed')}: {_text(backend, 'last_error')}"


def _gaps(gaps: Document) -> Iterator[str]:
    recent = [gap for gap in _list(gaps, "recent") if isinstance(gap, Mapping)]
    if not recent:
        yield "none known"
    for gap in reversed(recent[-_GAPS_SHOWN:]):
        lost = "an unknown number" if gap.get("lost") is None else str(_number(gap, "lost"))
        found = f", {_number(gap, 'backfilled')} of them found again" if _number(gap, "backfilled") else ""
        about = "" if gap.get("exact") or gap.get("lost") is None else "about "
        yield f"{_text(gap, 'start')} to {_text(gap, 'end')} {_text(gap, 'cause')}: {about}{lost} lost{found}"
    if len(recent) > _GAPS_SHOWN:
        yield f"and {len(recent) - _GAPS_SHOWN} earlier ones"


def _rules(document: Document) -> Iterator[str]:
    rules = _part(document, "rules")
    if not rules:
        return
    yield f"{len(_list(rules, 'enabled'))} in force" if rules.get("loaded") else "NOT loaded"
    yield from _counts("no answer for events", {k: v for k, v in _part(rules, "failures").items() if v})
    for name, why in _part(rules, "refused").items():
        yield f"not as given: {printable(name)}: {printable(str(why))}"
    found = {rule: _sum(counts) for rule, counts in _part(_part(document, "accounting"), "findings").items()}
    yield from _counts("findings", found)


def _cluster(cluster: Document) -> Iterator[str]:
    if not cluster:
        return
    requests = [one for one in _list(cluster, "requests") if isinstance(one, Mapping)]
    asked, received = (sum(_number(one, name) for one in requests) for name in ("requests", "received"))
    yield f"{_text(cluster, 'url')}: {asked} requests, {_bytes(received)} received"
    for watch in _list(cluster, "watches"):
        if isinstance(watch, Mapping):
            heard = f", last heard {_text(watch, 'heard')}" if "heard" in watch else ""
            state = "" if watch.get("connected") else f" NOT watched ({_text(watch, 'reason') or 'no answer yet'})"
            yield f"{_text(watch, 'resource')}:{state} {_number(watch, 'objects')} objects{heard}"
    peers = f", {_number(cluster, 'peers')} addresses of peers" if "peers" in cluster else ""
    yield f"{_number(cluster, 'pods')} pods of this node known{peers}"
    yield f"{_number(cluster, 'waiting')} events wait for their pod, {_number(cluster, 'waited')} ever did"
    yield from _counts("processes not fully known", _part(cluster, "misses"))
    for problem in _list(cluster, "problems"):
        yield f"not as given: {printable(str(problem))}"


def _identities(recent: Document) -> Iterator[str]:
    used = [one for one in _list(recent, "identities") if isinstance(one, Mapping)]
    for one in used[:_IDENTITIES_SHOWN]:
        by = ", ".join(printable(str(name)) for name in _list(one, "workloads")[:_WORKLOADS_SHOWN])
        yield f"{_text(one, 'id')} carried last {_text(one, 'last')}" + (f" by {by}" if by else "")
    if len(used) > _IDENTITIES_SHOWN:
        yield f"and {len(used) - _IDENTITIES_SHOWN} that were carried earlier"
    yield from _counts("findings within 24 hours", _part(recent, "findings"))


def _reload(reload: Document) -> Iterator[str]:
    if not reload:
        return
    state = "as read last" if reload.get("successful") else "the last reload FAILED, the last good version is in force"
    yield state + (f", read {_text(reload, 'loaded')}" if "loaded" in reload else "")
    for problem in _list(reload, "problems"):
        yield printable(str(problem))


def _process(usage: Document) -> Iterator[str]:
    spent = (usage.get(name) for name in ("cpu_user_seconds", "cpu_system_seconds"))
    cpu = sum(one for one in spent if isinstance(one, int | float))
    yield f"{_bytes(_number(usage, 'memory_bytes'))} of memory, {cpu:.0f} s of CPU time"


def _wrap(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}  ")


def _part(document: Any, name: str) -> Document:
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _list(document: Document, name: str) -> list[Any]:
    found = document.get(name)
    return found if isinstance(found, list) else []


def _text(document: Document, name: str) -> str:
    return printable(str(document.get(name) or ""))


def _number(document: Document, name: str) -> int:
    found = document.get(name)
    return found if isinstance(found, int) else 0


def _sum(counts: Any) -> int:
    return sum(count for count in counts.values() if isinstance(count, int)) if isinstance(counts, Mapping) else 0


def _bytes(count: int) -> str:
    amount, unit = float(count), 0
    while amount >= _KIBI and unit < len(_UNITS) - 1:
        amount, unit = amount / _KIBI, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{count} B"
