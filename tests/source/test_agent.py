"""Single calls to an agent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from keytrail.domain.errors import AgentError, SettingsError
from keytrail.grpcio_text import unwrapped
from keytrail.proto.tetragon.sensors_pb2 import (
    AddTracingPolicyRequest,
    TracingPolicyActionCounters,
    TracingPolicyStatus,
)
from keytrail.source.address import parse_address
from keytrail.source.agent import AgentClient, _policy
from keytrail.source.channel import SERVICE, TlsOptions
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from support.processes import wait_until
from support.recordings import folder

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: connects}
spec:
  kprobes:
  - {call: tcp_connect, syscall: false, args: [{index: 0, type: sock}]}
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeTetragon]:
    """Run an agent as the policy-library session had it."""
    profile = AgentProfile.of_recording(folder("policy-library"))
    with FakeTetragon(f"unix://{tmp_path}/tetragon.sock", profile=profile) as running:
        yield running


@pytest.fixture
def client(agent: FakeTetragon) -> Iterator[AgentClient]:
    """Connect to it."""
    with AgentClient(parse_address(agent.address)) as connected:
        yield connected


def test_an_agent_says_who_it_is(client: AgentClient) -> None:
    """Version, flags in their own types, kernel features and health, as the real agent answered."""
    assert client.version() == "v1.7.0"
    assert client.health() == "running"
    info = client.info()
    assert info.version == "v1.7.0"
    assert info.flags["enable-process-environment-variables"] is True
    assert info.flags["server-address"] == "0.0.0.0:54321"
    assert info.flags["event-queue-size"] == "10000"
    assert info.flags["filter-environment-variables"] == ()
    assert set(info.probes.values()) == {True, False}


def test_policies_have_the_columns_of_tetra(client: AgentClient) -> None:
    """The list shows states and modes in Tetragon's own words, and its counters summed as its tool does."""
    policies = client.list_policies()
    assert len(policies) == 16
    assert [policy.id for policy in policies] == sorted(policy.id for policy in policies)
    canary = next(policy for policy in policies if policy.name == "enforce-canary")
    assert (canary.state, canary.mode, canary.sensors) == ("enabled", "enforce", ("generic_kprobe",))
    assert canary.kernel_memory_bytes > 0


def test_counters_are_summed_as_tetra_sums_them() -> None:
    """Posts, enforcements of every sort and those that the mode prevented, from a real reply and a made one."""
    stored = json.loads((folder("policy-library") / "ListTracingPolicies.json").read_text())["policies"]
    raw = next(policy for policy in stored if policy["name"] == "enforce-canary")
    canary = _policy(json_format.ParseDict(raw, TracingPolicyStatus()))
    counters = raw["stats"]["action_counters"]
    assert (canary.npost, canary.nenforce) == (int(counters.get("post", 0)), int(counters["signal"]))
    made = TracingPolicyStatus(state=99, error="e", namespace="ml")  # type: ignore[arg-type]  # a newer agent's number
    for index, field in enumerate(TracingPolicyActionCounters.DESCRIPTOR.fields_by_name):
        setattr(made.stats.action_counters, field, 10**index)
    status = _policy(made)
    assert (status.npost, status.nenforce, status.nmonitor) == (1, 10101010, 101010100)
    assert (status.state, status.mode, status.error, status.namespace) == ("99", "unknown", "e", "ml")


def test_a_policy_is_loaded_and_deleted(client: AgentClient) -> None:
    """A policy's whole life through the client."""
    before = len(client.list_policies())
    assert client.add_policy(POLICY).state == "enabled"
    client.delete_policy("connects")
    assert len(client.list_policies()) == before


def test_a_refused_policy_shows_the_agents_own_words(agent: FakeTetragon, client: AgentClient) -> None:
    """What the agent says is what the user reads: a name that is taken, a hook that the kernel does not have."""
    client.add_policy(POLICY)
    with pytest.raises(AgentError, match=r"AddTracingPolicy: .*connects") as caught:
        client.add_policy(POLICY)
    assert caught.value.status == "UNKNOWN"
    client.delete_policy("connects")
    agent.script.load_errors["connects"] = "kprobe failed: no such function"
    with pytest.raises(AgentError, match="kprobe failed: no such function"):
        client.add_policy(POLICY)


@contextmanager
def loading(agent: FakeTetragon, seconds: float) -> Iterator[None]:
    """An agent that is at a policy for so long, while whoever asks for it is told that the call took too long."""
    agent.script.load_seconds = seconds
    request = AddTracingPolicyRequest(yaml=POLICY)
    with grpc.insecure_channel(agent.address) as channel, AgentClient(parse_address(agent.address)) as client:
        call = channel.unary_unary(f"/{SERVICE}/AddTracingPolicy").future(request.SerializeToString())
        assert wait_until(lambda: any(policy.name == "connects" for policy in client.list_policies()))
        agent.refuse("AddTracingPolicy", grpc.StatusCode.DEADLINE_EXCEEDED)
        yield
        call.cancel()


def test_a_slow_load_is_awaited_beyond_the_calls_deadline(agent: FakeTetragon, client: AgentClient) -> None:
    """DEADLINE_EXCEEDED is not a failure: the list says when the policy is loaded."""
    with loading(agent, 0.3):
        assert client.add_policy(POLICY).state == "enabled"


def test_a_slow_load_that_fails_tells_why(agent: FakeTetragon, client: AgentClient) -> None:
    """The error of a load that outlived its call is found in the list."""
    agent.script.load_errors["connects"] = "the verifier says no"
    with loading(agent, 0.3), pytest.raises(AgentError, match="connects: load_error: the verifier says no"):
        client.add_policy(POLICY)


def test_a_load_is_not_awaited_for_ever(agent: FakeTetragon, client: AgentClient) -> None:
    """At the end of the wait the user learns that the agent is still at it."""
    with loading(agent, 600), pytest.raises(AgentError, match=r"policy connects: still loading after 60 s"):
        client.add_policy(POLICY, clock=count(step=40).__next__, sleep=lambda _: None)


def test_an_absent_agent_is_explained(tmp_path: Path) -> None:
    """No socket, nobody who listens: the place, the system's own words and what to look at, without grpcio's steps."""
    for address, said in (
        (f"unix://{tmp_path}/tetragon.sock", "No such file or directory (is Tetragon running, and is its"),
        ("localhost:1", "Connection refused (nobody listens there"),
    ):
        with AgentClient(parse_address(address)) as client, pytest.raises(AgentError) as caught:
            client.version()
        assert str(caught.value).startswith(f"agent at {address}: GetVersion: {said}")
        assert caught.value.status == "UNAVAILABLE"


def test_what_grpcio_says_is_cut_to_what_it_is_about() -> None:
    """Words of the resolver and of the TLS library stay, and all of the agent's own."""
    resolving = (
        "errors resolving a:1: [field:hostname lookup error:address lookup failed for a:1: Domain name not found]"
    )
    assert unwrapped(resolving) == "Domain name not found"
    handshake = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:1: Tls handshake failed "
        "(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
        "CERTIFICATE_VERIFY_FAILED: self signed certificate: OK"
    )
    assert unwrapped(handshake) == "CERTIFICATE_VERIFY_FAILED: self signed certificate"
    assert unwrapped("policy p: errors resolving [x]") == "policy p: errors resolving [x]"


def test_an_older_agent_lacks_calls() -> None:
    """Agents before 1.7 answer GetInfo with UNIMPLEMENTED, which the caller can tell from other failures."""
    with FakeTetragon(release="1.6") as agent, AgentClient(parse_address(agent.address)) as client:
        assert client.version() == "v1.6.0"
        with pytest.raises(AgentError) as caught:
            client.info()
        assert caught.value.status == grpc.StatusCode.UNIMPLEMENTED.name


@pytest.mark.parametrize(
    ("tls", "address", "error"),
    [
        (TlsOptions(), "/run/tetragon.sock", "speaks no TLS"),
        (TlsOptions(ca_file=Path("/nowhere/ca.pem")), "agent:1", r"/nowhere/ca\.pem: No such file"),
        (TlsOptions(ca_file=Path(__file__)), "agent:1", "expected PEM"),
        (TlsOptions(cert_file=Path("/nowhere/c.pem")), "agent:1", "needs its key"),
    ],
)
def test_wrong_tls_options_are_settings_errors(tls: TlsOptions, address: str, error: str) -> None:
    """They show before anything is connected, and name the file."""
    with pytest.raises(SettingsError, match=error):
        AgentClient(parse_address(address), tls)
