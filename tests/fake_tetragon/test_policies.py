"""Policy calls of the fake: the agent's strictness, its states and its errors."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from keytrail.proto.tetragon.sensors_pb2 import (
    TP_MODE_ENFORCE,
    TP_MODE_MONITOR,
    TP_MODE_MONITOR_ONLY,
    TP_MODE_UNKNOWN,
    TP_STATE_DISABLED,
    TP_STATE_ENABLED,
    TP_STATE_LOAD_ERROR,
    TP_STATE_LOADING,
    AddTracingPolicyRequest,
    ConfigureTracingPolicyRequest,
    DeleteTracingPolicyRequest,
)
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from support.processes import wait_until

Start = Callable[..., FakeTetragon]
Connect = Callable[..., Any]
Recorded = Callable[[str], list[bytes]]

CONNECT = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: tcp-connect
spec:
  kprobes:
  - call: tcp_connect
    syscall: false
    args: [{index: 0, type: sock}]
"""


def _add(client: Any, text: str, timeout: float = 60) -> None:
    client.call("AddTracingPolicy", AddTracingPolicyRequest(yaml=text), timeout=timeout)


def _error(action: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        action()
    assert refused.value.code() is grpc.StatusCode.UNKNOWN
    return str(refused.value.details())


def test_a_policy_is_added_listed_and_deleted(start: Start, connect: Connect) -> None:
    """The life of a policy that loads, with the status that tetra would show."""
    client = connect(start())

    _add(client, CONNECT)
    (status,) = client.call("ListTracingPolicies").policies
    client.call("DeleteTracingPolicy", DeleteTracingPolicyRequest(name="tcp-connect"))

    assert (status.name, status.namespace, list(status.sensors)) == ("tcp-connect", "", ["generic_kprobe"])
    assert (status.state, status.mode, status.enabled) == (TP_STATE_ENABLED, TP_MODE_MONITOR_ONLY, True)
    assert (status.filter_id, status.error) == (0, "")
    assert status.kernel_memory_bytes > 0
    assert not client.call("ListTracingPolicies").policies
    assert "does not exist" in _error(
        lambda: client.call("DeleteTracingPolicy", DeleteTracingPolicyRequest(name="tcp-connect"))
    )


def test_the_same_name_again_is_refused_as_the_real_agent_refuses_it(start: Start, connect: Connect) -> None:
    """The text is the one that a real agent answered; another namespace is another policy."""
    client = connect(start())
    namespaced = CONNECT.replace("kind: TracingPolicy", "kind: TracingPolicyNamespaced").replace(
        "name: tcp-connect", "name: tcp-connect\n  namespace: ml"
    )
    _add(client, CONNECT)
    _add(client, namespaced)

    error = _error(lambda: _add(client, CONNECT))

    assert error == "failed to add tracing policy {tcp-connect }, a sensor collection with the key already exists"
    assert {(status.namespace, bool(status.filter_id)) for status in client.call("ListTracingPolicies").policies} == {
        ("", False),
        ("ml", True),
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("kind: TracingPolicy", "kind: NetworkPolicy"), "Kind=NetworkPolicy"),
        (("cilium.io/v1alpha1", "cilium.io/v2"), "cilium.io/v2"),
        (("  name: tcp-connect", "  name: tcp-connect\n  nmae: x"), "metadata.nmae"),
        (("  kprobes:", "  krpobes:"), "spec.krpobes"),
        (("    syscall: false", "    sycsall: false"), "spec.kprobes[0].sycsall"),
        (("  name: tcp-connect", "  name: tcp-connect\n  name: again"), "already set"),
        (("  name: tcp-connect", "  name: Not_A_Name"), "Not_A_Name"),
        (("  name: tcp-connect", "  labels: {}"), "metadata.name"),
        (("  name: tcp-connect", "  name: tcp-connect\n  namespace: ml"), "metadata.namespace"),
        (("spec:", "spec: ["), "failed to unmarshal"),
        ((CONNECT, "- 1"), "failed to unmarshal"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(
    start: Start, connect: Connect, change: tuple[str, str], text: str
) -> None:
    """The agent reads strictly: nothing is loaded, nothing is listed, and the error names what is wrong."""
    client = connect(start())

    error = _error(lambda: _add(client, CONNECT.replace(*change)))

    assert text in error
    assert not client.call("ListTracingPolicies").policies


def test_policies_that_a_real_agent_loaded_are_accepted(start: Start, connect: Connect) -> None:
    """All 17 policies of the recording sensors load, so the schema refuses nothing that is right there."""
    client = connect(start())
    file = Path(__file__).parents[1] / "corpus" / "recordings" / "sensors" / "policies.yaml"
    policies = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))

    for policy in policies:
        _add(client, yaml.safe_dump(policy))

    statuses = client.call("ListTracingPolicies").policies
    assert [status.name for status in statuses] == [policy["metadata"]["name"] for policy in policies]
    assert len(statuses) == 17
    assert {status.state for status in statuses} == {TP_STATE_ENABLED}


def test_a_client_that_gives_up_does_not_stop_a_load(start: Start, connect: Connect) -> None:
    """The client gives up, the policy is seen loading, and it is enabled later all the same."""
    agent = start()
    loaded = threading.Event()
    agent._state.stopped.wait = lambda _: loaded.wait(60)  # type: ignore[method-assign,assignment]  # a load's time
    client = connect(agent)
    call = client.channel.unary_unary("/tetragon.FineGuidanceSensors/AddTracingPolicy").future(
        AddTracingPolicyRequest(yaml=CONNECT).SerializeToString()
    )

    assert wait_until(lambda: bool(client.call("ListTracingPolicies").policies))
    call.cancel()
    (loading,) = client.call("ListTracingPolicies").policies
    loaded.set()
    other = CONNECT.replace("name: tcp-connect", "name: other")
    _add(client, other)  # loads go one after another: when this one is done, so is the first

    assert (loading.state, loading.enabled) == (TP_STATE_LOADING, False)
    assert {status.state for status in client.call("ListTracingPolicies").policies} == {TP_STATE_ENABLED}


def test_a_failed_load_stays_listed_and_can_be_replaced(start: Start, connect: Connect) -> None:
    """The error is the call's and the status's; the same name loads once the reason is gone."""
    agent = start()
    agent.script.load_errors["tcp-connect"] = "sensor generic_kprobe from collection tcp-connect failed to load"
    client = connect(agent)

    error = _error(lambda: _add(client, CONNECT))
    (failed,) = client.call("ListTracingPolicies").policies
    agent.script.load_errors.clear()
    _add(client, CONNECT)
    (loaded,) = client.call("ListTracingPolicies").policies

    assert "failed to load" in error
    assert (failed.state, failed.error) == (TP_STATE_LOAD_ERROR, error)
    assert (loaded.state, loaded.error) == (TP_STATE_ENABLED, "")


def test_stopping_does_not_wait_for_a_load(start: Start, connect: Connect) -> None:
    """An agent that is stopped while a policy loads takes no longer for it."""
    agent = start()
    agent.script.load_seconds = 3600
    client = connect(agent)
    call = threading.Thread(target=lambda: _error_of_any(client))
    call.start()
    while not client.call("ListTracingPolicies").policies:
        pass

    agent.stop()
    call.join(60)

    assert not call.is_alive()


def _error_of_any(client: Any) -> None:
    with pytest.raises(grpc.RpcError):
        _add(client, CONNECT, timeout=3600)


def test_configure_disables_enables_and_sets_the_mode(start: Start, connect: Connect) -> None:
    """Mode is unknown while disabled; doing twice what is done already is an error; monitor_only cannot enforce."""
    client = connect(start())
    killing = CONNECT.replace("tcp-connect", "killing") + "    selectors: [{matchActions: [{action: Sigkill}]}]\n"
    _add(client, CONNECT)
    _add(client, killing)

    def configure(name: str, **change: Any) -> Any:
        client.call("ConfigureTracingPolicy", ConfigureTracingPolicyRequest(name=name, **change))
        return next(status for status in client.call("ListTracingPolicies").policies if status.name == name)

    assert "already enabled" in _error(lambda: configure("killing", enable=True))
    monitoring = configure("killing", mode=TP_MODE_MONITOR)
    disabled = configure("killing", enable=False)
    enabled = configure("killing", enable=True, mode=TP_MODE_ENFORCE)

    assert monitoring.mode == TP_MODE_MONITOR
    assert (disabled.state, disabled.mode) == (TP_STATE_DISABLED, TP_MODE_UNKNOWN)
    assert (enabled.state, enabled.mode) == (TP_STATE_ENABLED, TP_MODE_ENFORCE)
    assert "monitor" in _error(lambda: configure("tcp-connect", mode=TP_MODE_ENFORCE))
    assert "does not exist" in _error(lambda: configure("nobody", enable=True))


@pytest.mark.parametrize("method", ["EnableTracingPolicy", "DisableTracingPolicy", "ListSensors"])
def test_deprecated_calls_answer_that_they_are(start: Start, connect: Connect, method: str) -> None:
    """As the real agent: an error of status UNKNOWN, not UNIMPLEMENTED."""
    client = connect(start())

    assert "deprecated" in _error(lambda: client.call(method))


def test_recorded_policies_count_their_events(
    start: Start, connect: Connect, recorded: Recorded, packaged: Path
) -> None:
    """NPOST of a recorded policy rises with its published events, also those that a full queue then drops."""
    agent = start(profile=AgentProfile.of_recording(packaged / "policy-library"), queue_size=1)
    client = connect(agent)
    before = {status.name: status.stats.action_counters.post for status in client.call("ListTracingPolicies").policies}

    agent.publish(recorded("policy-library"))

    after = {status.name: status.stats.action_counters.post for status in client.call("ListTracingPolicies").policies}
    assert set(before.values()) == {0}
    assert len(after) == 16
    assert sum(after.values()) == 1266 + 617 + 42 + 31
