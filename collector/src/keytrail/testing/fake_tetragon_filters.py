"""Allow and deny lists of GetEventsRequest: filters come in once per stream, a decision per event goes out.

The agent's semantics: an event passes when the allow list is empty or one of its filters matches, and no filter of the
deny list does. Within a filter every field that is set must match; within a field one value suffices. Expressions are
RE2 and not anchored. A filter that cannot be built fails the call at once. Field filters are the next module.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import re2

from keytrail.proto.tetragon.events_pb2 import Filter, GetEventsRequest, GetEventsResponse
from keytrail.proto.tetragon.tetragon_pb2 import Process

# What the fake does not evaluate: refusing is honest, letting everything pass would make a test prove nothing.
_UNSUPPORTED: Final = ("labels", "pid_set", "capabilities", "cel_expression")


class FilterError(Exception):
    """A filter that the agent, or this fake, refuses. `supported` is False when a real agent would have taken it."""

    def __init__(self, message: str, *, supported: bool = True) -> None:
        super().__init__(message)
        self.supported = supported


class _Event(NamedTuple):
    """What filters look at; `process` is None for events without one, such as process_throttle."""

    number: int
    inner: Any
    process: Process | None
    parent: Process | None
    ancestors: Sequence[Process]


Predicate = Callable[[_Event], bool]
_TextsOf = Callable[[_Event], Iterable[str]]


class EventFilter:
    """The compiled lists of one request."""

    def __init__(self, request: GetEventsRequest, *, ancestors: bool) -> None:
        """Compile; `ancestors` says whether the agent runs with `--enable-ancestors`. Raises FilterError."""
        self._allow = [_compile(item, ancestors=ancestors) for item in request.allow_list]
        self._deny = [_compile(item, ancestors=ancestors) for item in request.deny_list]

    @property
    def passes_all(self) -> bool:
        """Whether no event needs to be looked at."""
        return not self._allow and not self._deny

    def passes(self, response: GetEventsResponse) -> bool:
        """Whether the stream gets this event."""
        event = _event_of(response)
        if self._allow and not any(matches(event) for matches in self._allow):
            return False
        return not any(matches(event) for matches in self._deny)


def event_number(response: GetEventsResponse) -> int:
    """Return the EventType of an event, which is the field number in its oneof; 0 for an unknown one."""
    kind = response.WhichOneof("event")
    return GetEventsResponse.DESCRIPTOR.fields_by_name[kind].number if kind else 0


def _event_of(response: GetEventsResponse) -> _Event:
    kind = response.WhichOneof("event")
    inner: Any = getattr(response, kind) if kind else None
    fields = inner.DESCRIPTOR.fields_by_name if inner is not None else {}
    return _Event(
        event_number(response),
        inner,
        inner.process if "process" in fields and inner.HasField("process") else None,
        inner.parent if "parent" in fields and inner.HasField("parent") else None,
        inner.ancestors if "ancestors" in fields else (),
    )


def _compile(spec: Filter, *, ancestors: bool) -> Predicate:
    for name in _UNSUPPORTED:
        if spec.HasField(name) if name == "capabilities" else getattr(spec, name):
            raise FilterError(f"FakeTetragon does not evaluate filters on {name}", supported=False)
    if spec.ancestor_binary_regex and not ancestors:
        raise FilterError("ancestors are not enabled: a filter on ancestor binaries needs --enable-ancestors")
    tests = [*_exact_tests(spec), *_pattern_tests(spec)]
    return lambda event: all(test(event) for test in tests)


def _exact_tests(spec: Filter) -> list[Predicate]:
    tests: list[Predicate] = []
    if spec.event_set:
        kinds = frozenset(spec.event_set)
        tests.append(lambda event: event.number in kinds)
    if spec.pid:
        pids = frozenset(spec.pid)
        tests.append(lambda event: event.process is not None and event.process.pid.value in pids)
    if spec.namespace:
        namespaces = frozenset(spec.namespace)
        tests.append(lambda event: event.process is not None and event.process.pod.namespace in namespaces)
    if spec.policy_names:
        policies = frozenset(spec.policy_names)
        tests.append(lambda event: _policy_name(event) in policies)
    if spec.HasField("in_init_tree"):
        in_tree = spec.in_init_tree.value
        tests.append(lambda event: event.process is not None and event.process.in_init_tree.value == in_tree)
    if spec.HasField("health_check"):
        probe = spec.health_check.value
        tests.append(lambda event: any(map(_is_probe, (event.process, event.parent))) == probe)
    return tests


def _pattern_tests(spec: Filter) -> list[Predicate]:
    texts: dict[str, _TextsOf] = {
        "binary_regex": lambda event: _of(event.process, "binary"),
        "parent_binary_regex": lambda event: _of(event.parent, "binary"),
        "ancestor_binary_regex": lambda event: (process.binary for process in event.ancestors),
        "arguments_regex": lambda event: _of(event.process, "arguments"),
        "parent_arguments_regex": lambda event: _of(event.parent, "arguments"),
        "container_id": lambda event: _of(event.process, "docker"),
        "pod_regex": lambda event: _of(_pod(event), "name"),
        "namespace_regex": lambda event: _of(_pod(event), "namespace"),
        "container_name_regex": lambda event: _of(_pod(event) and _pod(event).container, "name"),
    }
    return [_search(getattr(spec, name), of) for name, of in texts.items() if getattr(spec, name)]


def _search(patterns: Iterable[str], texts: _TextsOf) -> Predicate:
    options = re2.Options()
    options.log_errors = False  # RE2 would print the error on standard error as well
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re2.compile(pattern, options=options))
        except re2.error as error:
            reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
            raise FilterError(f"failed to compile regex {pattern!r}: {reason}") from error
    return lambda event: any(regex.search(text) for text in texts(event) for regex in compiled)


def _of(message: Any, field: str) -> tuple[str, ...]:
    """Return the text of a field; nothing, which no expression matches, when its message is absent."""
    return () if message is None else (getattr(message, field),)


def _pod(event: _Event) -> Any:
    return event.process.pod if event.process is not None and event.process.HasField("pod") else None


def _is_probe(process: Process | None) -> bool:
    return process is not None and process.pod.container.maybe_exec_probe


def _policy_name(event: _Event) -> str | None:
    """Name the policy behind an event. Tetragon 1.7 forgets process_usdt here, so that its filter never matches one."""
    if event.inner is None or event.inner.DESCRIPTOR.name == "ProcessUsdt":
        return None
    return getattr(event.inner, "policy_name", None)
