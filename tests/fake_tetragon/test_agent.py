"""What the fake says of itself: version, flags, health, the process cache, and the releases that it can be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from keytrail.proto.tetragon.events_pb2 import Filter, GetEventsRequest, GetEventsResponse
from keytrail.proto.tetragon.sensors_pb2 import CONFIG_FLAG_DUMP_PROCESS_CACHE, GetDebugRequest, GetInfoResponse
from keytrail.proto.tetragon.tetragon_pb2 import HEALTH_STATUS_RUNNING
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from keytrail.testing.fake_tetragon_release import RELEASES, strip_to_release
from support.variants import with_long

Start = Callable[..., FakeTetragon]
Connect = Callable[..., Any]
Recorded = Callable[[str], list[bytes]]


def _dump(client: Any, **options: bool) -> dict[str, Any]:
    request = GetDebugRequest(flag=CONFIG_FLAG_DUMP_PROCESS_CACHE, dump=options)
    return {entry.process.exec_id: entry for entry in client.call("GetDebug", request).processes.processes}


def test_get_info_is_the_recorded_one(start: Start, connect: Connect, packaged: Path) -> None:
    """Every flag and probe that the real agent reported comes back, values of all wrapper types included."""
    folder = packaged / "policy-library"
    client = connect(start(profile=AgentProfile.of_recording(folder)))

    info = client.call("GetInfo")

    expected = json_format.Parse((folder / "GetInfo.json").read_text(encoding="utf-8"), GetInfoResponse())
    assert info == expected
    assert client.call("GetVersion").version == info.version == "v1.7.0"
    assert client.call("GetHealth").health_status[0].status == HEALTH_STATUS_RUNNING


def test_flags_can_be_set(packaged: Path) -> None:
    """A profile with other flags reads back as what was set, and leaves the profile it came from alone."""
    profile = AgentProfile.of_recording(packaged / "seed-demo")
    flags = {
        "enable-process-environment-variables": False,
        "filter-environment-variables": ["A", "B"],
        "data-cache-size": 7,
        "brand-new": "text",
    }

    changed = profile.with_flags(flags)

    assert {name: changed.flag(name) for name in flags} == flags
    assert profile.flag("enable-process-environment-variables") is True
    assert profile.flag("brand-new") is None


def test_the_dump_holds_what_was_executed_and_skips_what_ended(
    start: Start, connect: Connect, recorded: Recorded
) -> None:
    """A client that comes late gets every live process with its environment, and no exited one unless it asks."""
    agent = start()
    agent.publish(recorded("seed-demo"))
    client = connect(agent)
    events = [GetEventsResponse.FromString(message) for message in recorded("seed-demo")]
    execs = [event.process_exec for event in events if event.HasField("process_exec")]
    executed = {event.process.exec_id for event in execs}
    replaced = {event.parent.exec_id for event in execs if event.parent.pid == event.process.pid}
    exited = {event.process_exit.process.exec_id for event in events if event.HasField("process_exit")}

    live, everything = _dump(client, skip_zero_refcnt=True), _dump(client)
    leftover = _dump(client, exclude_execve_map_processes=True)

    assert executed <= set(everything)
    assert executed - exited - replaced <= set(live)
    assert not exited & set(live)
    assert all(entry.refcnt.value for entry in live.values())
    assert {everything[exec_id].refcnt.value for exec_id in exited & executed} == {0}
    assert set(leftover) == exited & set(everything)
    curl = next(entry.process for entry in everything.values() if entry.process.binary == "/usr/bin/curl")
    assert any(variable.Key == "OPENAI_API_KEY" for variable in curl.environment_variables)


@pytest.mark.parametrize("release", with_long(RELEASES, "1.5", "1.6"))
def test_a_release_sends_only_what_it_has(start: Start, connect: Connect, recorded: Recorded, release: str) -> None:
    """Fields that came after a release are gone from its events, and everything else is as recorded."""
    agent = start(release=release)
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)
    agent.publish(recorded("policy-library"))
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    for message, original in zip(stream.messages, recorded("policy-library"), strict=True):
        if release in ("1.7", "1.8"):
            assert message == original
            continue
        expected = GetEventsResponse.FromString(original)
        _clear_environments(expected)
        if expected.HasField("process_loader"):
            expected.process_loader.ClearField("parent")
            expected.process_loader.ClearField("ancestors")
        assert GetEventsResponse.FromString(message) == _without_newer_hooks(expected, release)


def _clear_environments(response: GetEventsResponse) -> None:
    event: Any = getattr(response, response.WhichOneof("event") or "")
    for process in (event.process, event.parent, *event.ancestors):
        process.ClearField("environment_variables")


def _without_newer_hooks(response: GetEventsResponse, release: str) -> GetEventsResponse:
    """Clear what the recorded uprobe and kprobe events have of 1.5 to 1.7."""
    uprobe, kprobe = response.process_uprobe, response.process_kprobe
    if response.HasField("process_uprobe"):
        newer = ["data"] if release == "1.6" else ["data", "action"]
        for name in newer + (["offset", "ref_ctr_offset"] if release == "1.4" else []):
            uprobe.ClearField(name)  # type: ignore[arg-type]  # the stub lists literal names
    if response.HasField("process_kprobe") and release in ("1.4", "1.5"):
        kprobe.ClearField("data")
        for argument in kprobe.args:
            argument.ClearField("bpf_prog_arg")
    return response


def test_a_kind_of_event_that_a_release_lacks_is_not_sent() -> None:
    """An agent before 1.6 has no process_usdt, not even an empty response in its place."""
    usdt = GetEventsResponse(node_name="n")
    usdt.process_usdt.name = "probe"

    assert strip_to_release(usdt.SerializeToString(), "1.5") == b""
    assert strip_to_release(usdt.SerializeToString(), "1.6") == usdt.SerializeToString()


def test_pods_of_older_releases_have_no_uid(recorded: Recorded) -> None:
    """Pod.uid came with 1.6, annotations with 1.5: an enricher must find the pod without them."""
    message = next(
        message
        for message in recorded("kubernetes")
        if GetEventsResponse.FromString(message).process_exec.process.pod.uid
    )

    pods = {
        release: GetEventsResponse.FromString(strip_to_release(message, release)).process_exec.process.pod
        for release in RELEASES
    }

    assert {release for release, pod in pods.items() if pod.uid} == {"1.6", "1.7", "1.8"}
    assert all(pod.name for pod in pods.values())


@pytest.mark.parametrize("release", RELEASES)
def test_get_info_exists_since_1_7(start: Start, connect: Connect, release: str) -> None:
    """Older agents answer UNIMPLEMENTED, and GetVersion says which release it is."""
    client = connect(start(release=release))

    assert client.call("GetVersion").version == f"v{release}.0"
    if release in ("1.7", "1.8"):
        assert client.call("GetInfo").version == f"v{release}.0"
        return
    with pytest.raises(grpc.RpcError) as refused:
        client.call("GetInfo")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_older_releases_ignore_newer_filter_fields(start: Start, connect: Connect, recorded: Recorded) -> None:
    """An agent of 1.6 does not know namespace_regex: it sees an empty filter, which matches everything."""
    agent = start(release="1.6")
    stream = connect(agent).collect(GetEventsRequest(allow_list=[Filter(namespace_regex=["^nowhere$"])]))
    assert agent.wait_for_listeners(timeout=60)

    agent.publish(recorded("seed-demo"))
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    assert len(stream.messages) == len(recorded("seed-demo"))


def test_unknown_methods_are_unimplemented(start: Start, connect: Connect) -> None:
    """As with the agent, there is neither reflection nor grpc.health on this port."""
    channel = connect(start()).channel

    for method in ("/grpc.health.v1.Health/Check", "/tetragon.FineGuidanceSensors/Nothing"):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
