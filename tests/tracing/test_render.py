"""Rendering a shipped policy: values at their places, names by content, and what is wrong with values."""

from typing import Any

import pytest
import yaml

from keytrail.domain.errors import ManifestError
from keytrail.testing.fake_tetragon_policy_yaml import parse_policy
from keytrail.tracing import check, rendered, sensors, unique_name
from keytrail.yaml_documents import parse_documents

NAMES = sorted(sensors())


def given_for(name: str) -> dict[str, Any]:
    """What a policy must be given."""
    return {"clusterCIDRs": ["10.96.0.0/12"]} if name == "egress" else {}


def refused(name: str, parameters: dict[str, Any], **more: Any) -> list[str]:
    """The problems of a rendering that must fail."""
    with pytest.raises(ManifestError) as caught:
        rendered(sensors()[name], parameters, **more)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", NAMES)
def test_rendered_text_reads_back_as_what_was_rendered(name: str) -> None:
    """The text means the same when read as kubectl does, passes the check, and an agent's strict reading takes it."""
    policy = sensors()[name]
    made = rendered(policy, given_for(name), hashed_name=True)
    text = yaml.safe_dump(made)
    (document,) = parse_documents(text, "rendered")
    assert document.data == made
    assert check(text, "rendered", observe_only=True) == []
    assert parse_policy(text).name.startswith(f"keytrail-{name}-")


@pytest.mark.parametrize("name", NAMES)
def test_without_parameters_the_shipped_spec_comes_out(name: str) -> None:
    """Defaults are what the file says: rendering without choices changes no spec, and never the library itself."""
    policy = sensors()[name]
    before = yaml.safe_dump(dict(policy.data))
    if name != "egress":
        assert rendered(policy)["spec"] == policy.data["spec"]
    rendered(policy, given_for(name), pod_selector=None, hashed_name=True)
    assert yaml.safe_dump(dict(policy.data)) == before


def test_ranges_keep_loopback_and_get_their_mapped_form() -> None:
    """Cluster ranges follow the fixed loopback addresses; an IPv4 range also counts on dual-stack sockets."""
    made = rendered(sensors()["egress"], {"clusterCIDRs": ["10.96.0.0/12", "fd00::/8", "192.0.2.7"]})
    assert made["spec"]["kprobes"][0]["selectors"][0]["matchArgs"][0]["values"] == [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.96.0.0/12",
        "fd00::/8",
        "192.0.2.7/32",
        "::ffff:10.96.0.0/108",
        "::ffff:192.0.2.7/128",
    ]


def test_value_is_put_at_every_place() -> None:
    """A parameter with two places changes both; ports may be numbers."""
    made = rendered(sensors()["sshd"], {"binaries": ["/opt/sshd"]})
    assert [hook["selectors"][0]["matchBinaries"][0]["values"] for hook in made["spec"]["kprobes"]] == [
        ["/opt/sshd"]
    ] * 2
    ports = rendered(sensors()["tls-server-name-by-port"], {"ports": [443, "8000:8100"]})
    assert ports["spec"]["kprobes"][0]["selectors"][0]["matchArgs"][0]["values"] == ["443", "8000:8100"]


@pytest.mark.parametrize(
    ("name", "parameters", "problem"),
    [
        ("egress", {"clusterCIDR": ["::/0"]}, "parameters.clusterCIDR: unknown parameter, did you mean clusterCIDRs?"),
        ("egress", {}, "parameters.clusterCIDRs: is required"),
        ("egress", {"clusterCIDRs": None}, "parameters.clusterCIDRs: is required"),
        ("egress", {"clusterCIDRs": "auto"}, "parameters.clusterCIDRs: expected a list, each an IP address"),
        ("egress", {"clusterCIDRs": ["10.0.0"]}, "parameters.clusterCIDRs[0]: expected an IP address or range"),
        ("egress", {"clusterCIDRs": []}, "parameters.clusterCIDRs: expected 1 to 256 items, found 0"),
        ("egress", {"clusterCIDRs": ["::1"] * 257}, "parameters.clusterCIDRs: expected 1 to 256 items, found 257"),
        ("sshd", {"binaries": ["sshd"]}, "parameters.binaries[0]: expected an absolute path, found text 'sshd'"),
        ("sshd", {"binaries": [7]}, "parameters.binaries[0]: expected an absolute path, found the number 7"),
        ("tls-server-name-by-port", {"ports": [True]}, "parameters.ports[0]: expected a port"),
        ("credential-files", {"files": ["x" * 9]}, "parameters.files[0]: expected the end of a path"),
        ("dns", {"ports": [53]}, "parameters.ports: unknown parameter, dns has none"),
    ],
)
def test_wrong_parameter_is_named(name: str, parameters: dict[str, Any], problem: str) -> None:
    """An unknown or ill-typed value is refused with its place and the nearest name."""
    assert any(found.startswith(f"<parameters>: {problem}") for found in refused(name, parameters))


def test_rate_limit_is_put_on_every_selector() -> None:
    """A hook without selectors gets one that only limits; one with selectors is limited in each."""
    made = rendered(sensors()["tcp-connect"], rate_limit="1m")
    limited = [{"action": "Post", "rateLimit": "1m"}]
    assert [hook["selectors"] for hook in made["spec"]["kprobes"]] == [[{"matchActions": limited}]] * 2
    assert check(yaml.safe_dump(rendered(sensors()["listeners"], rate_limit="30s")), "a") == []


@pytest.mark.parametrize(
    "name", ["credential-files", "dns", "persistence-renames", "set-id-root", "sshd", "library-load"]
)
def test_rate_limit_that_would_hide_something_is_refused(name: str) -> None:
    """Hooks with paths or texts take no limit, nor do those whose results differ, nor the loader."""
    (problem,) = refused(name, given_for(name), rate_limit="1m")
    assert problem.startswith("<parameters>: rateLimit: ")


def test_rate_limit_and_selector_are_checked() -> None:
    """A limit that is no time is refused, and a pod selector where the agent has none; others are put in."""
    assert refused("tcp-connect", {}, rate_limit="soon") == [
        "<parameters>: rateLimit: expected a time such as 30s, 5m or 1h, found 'soon'"
    ]
    assert "cannot be limited to some processes" in refused("library-load", {}, pod_selector={})[0]
    selector = {"matchLabels": {"app": "web"}}
    assert rendered(sensors()["tcp-connect"], pod_selector=selector)["spec"]["podSelector"] == selector


def test_name_follows_the_spec() -> None:
    """The same spec has the same name in whatever order, another spec another; labels do not matter."""
    assert unique_name("a", {"x": 1, "y": [2]}) == unique_name("a", {"y": [2], "x": 1})
    first = rendered(sensors()["egress"], {"clusterCIDRs": ["10.0.0.0/8"]}, hashed_name=True)
    second = rendered(sensors()["egress"], {"clusterCIDRs": ["10.0.0.0/9"]}, hashed_name=True)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["metadata"]["labels"] == second["metadata"]["labels"] == {"keytrail.io/sensor": "egress"}
    assert all(len(unique_name(name, {})) <= 63 for name in NAMES)
