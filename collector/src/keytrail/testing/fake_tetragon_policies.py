"""The agent's tracing policies: calls come in, statuses go out. `fake_tetragon_policy_yaml` reads what a policy says.

Loads are done one after another and block their call; a client that gives up before the end does not stop them, so that
DEADLINE_EXCEEDED says nothing about the outcome. A failed load leaves an entry in state load_error, which the next
policy of that name replaces. Nothing is loaded into any kernel: how long it takes and whether it works is scripted.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from keytrail.proto.tetragon.sensors_pb2 import (
    ConfigureTracingPolicyRequest,
    TracingPolicyMode,
    TracingPolicyState,
    TracingPolicyStatus,
)
from keytrail.testing.fake_tetragon_policy_yaml import Policy, PolicyError, parse_policy

_MEMORY_PER_HOOK: Final = 413_696
"""Bytes of kernel memory; what a real agent reported for one kprobe."""
_LOADED: Final = (TracingPolicyState.TP_STATE_ENABLED, TracingPolicyState.TP_STATE_DISABLED)


class PolicyTable:
    """Policies by namespace and name. Safe to use from several threads."""

    def __init__(self, initial: Iterable[TracingPolicyStatus], *, monitor_only: bool = True) -> None:
        """Begin with `initial`, their counters at 0; `monitor_only` says whether there is that mode (since 1.7)."""
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._monitor_only = monitor_only
        self._modes: dict[tuple[str, str], TracingPolicyMode] = {}
        self._statuses: dict[tuple[str, str], TracingPolicyStatus] = {}
        for recorded in initial:
            status = TracingPolicyStatus()
            status.CopyFrom(recorded)
            status.stats.Clear()
            self._statuses[status.namespace, status.name] = status
            self._modes[status.namespace, status.name] = status.mode
        self._last_id = max((status.id for status in self._statuses.values()), default=0)
        self._by_name = _by_name(self._statuses.values())

    def statuses(self) -> list[TracingPolicyStatus]:
        """Return copies, so that the answer does not change under the transport."""
        with self._lock:
            copies = [TracingPolicyStatus() for _ in self._statuses]
            for copy, status in zip(copies, self._statuses.values(), strict=True):
                copy.CopyFrom(status)
            return copies

    def count_post(self, policy_name: str) -> None:
        """Count an event of a policy, as the kernel does before anything can be lost behind it (NPOST)."""
        status = self._by_name.get(policy_name)
        if status is not None:
            status.stats.action_counters.post += 1

    def add(self, text: str, load: Callable[[str], str | None]) -> None:
        """Add a policy; `load` takes its name and its time, and returns the error, if it is to fail.

        Raises PolicyError.
        """
        policy = parse_policy(text)
        key = (policy.namespace, policy.name)
        with self._loading:
            self._announce(key, policy)
            error = load(policy.name)
            with self._lock:
                status = self._statuses.get(key)
                if status is None:  # deleted meanwhile
                    return
                status.error = error or ""
                if error:
                    status.state = TracingPolicyState.TP_STATE_LOAD_ERROR
                else:
                    self._modes[key] = self._mode_of(policy)
                    self._enable(key)
        if error:
            raise PolicyError(error)

    def delete(self, name: str, namespace: str) -> None:
        """Remove a policy in whatever state. Raises PolicyError."""
        with self._lock:
            self._find(name, namespace)
            del self._statuses[namespace, name]
            self._by_name = _by_name(self._statuses.values())

    def configure(self, request: ConfigureTracingPolicyRequest) -> None:
        """Set mode, then enable or disable; not atomic, as with the agent. Raises PolicyError."""
        key = (request.namespace, request.name)
        with self._lock:
            status = self._find(request.name, request.namespace)
            if request.HasField("mode"):
                self._set_mode(key, request.mode)
            if not request.HasField("enable"):
                return
            if status.state not in _LOADED:
                raise PolicyError(f"tracing policy {_key_text(key)} is not loaded")
            if request.enable == (status.state == TracingPolicyState.TP_STATE_ENABLED):
                raise PolicyError(
                    f"tracing policy {_key_text(key)} is already {'enabled' if request.enable else 'disabled'}"
                )
            if request.enable:
                self._enable(key)
            else:
                status.state, status.enabled = TracingPolicyState.TP_STATE_DISABLED, False
                status.mode = TracingPolicyMode.TP_MODE_UNKNOWN

    def _announce(self, key: tuple[str, str], policy: Policy) -> None:
        with self._lock:
            old = self._statuses.get(key)
            if old is not None and old.state != TracingPolicyState.TP_STATE_LOAD_ERROR:
                raise PolicyError(
                    f"failed to add tracing policy {_key_text(key)}, a sensor collection with the key already exists"
                )
            self._last_id += 1
            self._statuses[key] = TracingPolicyStatus(
                id=self._last_id,
                name=policy.name,
                namespace=policy.namespace,
                sensors=policy.sensors,
                filter_id=self._last_id if policy.selects_pods else 0,
                state=TracingPolicyState.TP_STATE_LOADING,
                kernel_memory_bytes=_MEMORY_PER_HOOK * policy.hooks,
            )
            self._by_name = _by_name(self._statuses.values())

    def _mode_of(self, policy: Policy) -> TracingPolicyMode:
        if policy.sensors == ("__loader__",):
            return TracingPolicyMode.TP_MODE_UNKNOWN
        if self._monitor_only and not policy.enforces:
            return TracingPolicyMode.TP_MODE_MONITOR_ONLY
        return TracingPolicyMode.TP_MODE_MONITOR if policy.monitor else TracingPolicyMode.TP_MODE_ENFORCE

    def _set_mode(self, key: tuple[str, str], mode: TracingPolicyMode) -> None:
        status = self._statuses[key]
        if self._modes.get(key) == TracingPolicyMode.TP_MODE_MONITOR_ONLY and mode != self._modes[key]:
            raise PolicyError(f"tracing policy {_key_text(key)} can only monitor")
        self._modes[key] = mode
        if status.state == TracingPolicyState.TP_STATE_ENABLED:
            status.mode = mode

    def _enable(self, key: tuple[str, str]) -> None:
        status = self._statuses[key]
        status.state, status.enabled = TracingPolicyState.TP_STATE_ENABLED, True
        status.mode = self._modes.get(key, TracingPolicyMode.TP_MODE_UNKNOWN)
        status.stats.action_counters.SetInParent()

    def _find(self, name: str, namespace: str) -> TracingPolicyStatus:
        status = self._statuses.get((namespace, name))
        if status is None:
            raise PolicyError(f"tracing policy {_key_text((namespace, name))} does not exist")
        return status


def _by_name(statuses: Iterable[TracingPolicyStatus]) -> dict[str, TracingPolicyStatus]:
    """Events name their policy without its namespace."""
    return {status.name: status for status in statuses}


def _key_text(key: tuple[str, str]) -> str:
    """Spell a policy as the agent's messages do: a Go struct of name and namespace."""
    namespace, name = key
    return f"{{{name} {namespace}}}"
