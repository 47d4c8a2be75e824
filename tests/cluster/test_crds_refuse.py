"""Wrong custom resources: refused by a real API server, in words that say what is wrong.

One table for the folder and the API server: the same classes stand behind both.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from support.components.control_plane import ControlPlane
from support.custom_resources import KIND, NAMESPACE, SPECS, Server, changed, folder_says, manifest_of, put, served

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]

ROWS: list[tuple[str, ...]] = []
"""What was refused: kind, what is wrong, and the words of the folder and the API server."""


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane, pytestconfig: pytest.Config) -> Iterator[Server]:
    """The API server with the definitions; at the end the table of what was refused and how is shown."""
    with served(control_plane) as found:
        yield found
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for row in [(), *ROWS]:
            print(" | ".join(row))  # noqa: T201 - the table is for the reader


LONG = "x" * 300
OWN = "an IdentityMapping speaks for its own namespace only"
HOST = "expected a host name in lower case without scheme, port or path"
NETWORK = "expected a network such as 10.0.0.0/8 or fd00::/8"
MAPPING: list[tuple[str, object, str, str]] = [
    ("spec.evidense", {}, "spec.evidense: unknown field, did you mean evidence?", 'unknown field "spec.evidense"'),
    ("spec.evidence", None, "spec.evidence: is required", "spec.evidence: Required value"),
    (
        "spec.evidence",
        {},
        "expected at least one of env, argv,",
        "spec.evidence: Invalid value: expected at least one of",
    ),
    ("spec.evidence", {"env": []}, "expected at least one of env, argv,", "expected at least one of env, argv,"),
    (
        "spec.evidence.env.0",
        {},
        "exactly one of name, pattern",
        "spec.evidence.env[0]: Invalid value: expected exactly one",
    ),
    ("spec.evidence.env.0.pattern", "A", "exactly one of name, pattern", "expected exactly one of name, pattern"),
    (
        "spec.evidence.env.0.name",
        "A=B",
        "expected a variable's exact name",
        "env[0].name: Invalid value: expected a variable's",
    ),
    ("spec.evidence.env.0.name", 5, "expected a variable's exact name", 'must be of type string: "integer"'),
    (
        "spec.evidence.env.1.pattern",
        "(?=x)",
        "expected a regular expression in RE2's syntax",
        "a regular expression in RE2's",
    ),
    ("spec.evidence.argv.0.contains", "ai", "at least 3 long", "should be at least 3 chars long"),
    ("spec.evidence.secrets.0.keys", ["a/b"], "expected a Secret's key of letters", "keys[0]: Invalid value: "),
    (
        "spec.evidence.files.0.path",
        "key",
        "expected a path that begins with / or *",
        "expected a path that begins with / or *",
    ),
    ("spec.evidence.serverNames", ["https://a.b"], HOST, HOST),
    (
        "spec.evidence.serverNames",
        ["a.b"] * 65,
        "expected at most 64 items, found 65",
        "Too many: 65: must have at most 64",
    ),
    (
        "spec.identity.id",
        "OpenAI",
        "expected a name of lower-case letters",
        "spec.identity.id: Invalid value: expected a name",
    ),
    ("spec.identity.id", LONG, "expected at most 253 characters, found 300", "spec.identity.id: Too long: "),
    ("spec.identity.kind", "API key", "expected a short word in lower case", "expected a short word in lower case"),
    (
        "spec.identity.owner",
        "a\nb",
        "expected text without control characters",
        "expected text without control characters",
    ),
    ("spec.priority", 1001, "expected a whole number from -1000 to 1000", "should be less than or equal to 1000"),
    ("spec.priority", "high", "expected a whole number from -1000 to 1000", "must be of type integer"),
    ("spec.allowed.workloads", [], "expected at least 1 in the list or no list", "should have at least 1 items"),
    (
        "spec.allowed.workloads.0.kind",
        "pod",
        "expected a kind such as Deployment",
        "expected a kind such as Deployment",
    ),
    ("spec.allowed.destinations.0", {"ports": [1]}, "exactly one of host, cidr", "expected exactly one of host, cidr"),
    ("spec.allowed.destinations.0.ports", [0], "from 1 to 65535", "should be greater than or equal to 1"),
    ("spec.allowed.destinations.1.cidr", "10.0.0.0", NETWORK, NETWORK),
    ("spec.allowed.destinations.1.cidr", "10.0.0.0/33", NETWORK, NETWORK),
    ("spec.allowed.destinations.1.cidr", "10.1.0.0/8", "did you mean 10.0.0.0/8?", "host bits are set"),
]
WRONG: dict[str, list[tuple[str, object, str, str]]] = {
    "IdentityMapping": [
        *MAPPING,
        ("spec.evidence.secrets.0.namespace", "prod", OWN, f"secrets[0].namespace: Forbidden: {OWN}"),
        ("spec.evidence.serviceAccounts.0.namespace", "prod", OWN, f"serviceAccounts[0].namespace: Forbidden: {OWN}"),
        ("spec.allowed.workloads.0.namespace", "prod", OWN, f"workloads[0].namespace: Forbidden: {OWN}"),
        # Nor its own: no rule of a schema can tell. A folder says the namespace itself, right above.
        ("spec.evidence.secrets.0.namespace", NAMESPACE, "", f"secrets[0].namespace: Forbidden: {OWN}"),
    ],
    "ClusterIdentityMapping": [
        *MAPPING,
        (
            "spec.evidence.secrets.0.namespace",
            None,
            "is required",
            "spec.evidence.secrets[0].namespace: Required value",
        ),
        (
            "spec.evidence.serviceAccounts.0.namespace",
            None,
            "is required",
            "serviceAccounts[0].namespace: Required value",
        ),
        (
            "spec.allowed.workloads.0.namespace",
            None,
            "is required",
            "spec.allowed.workloads[0].namespace: Required value",
        ),
        ("spec.allowed.workloads.0.namespace", "a.b", "expected a namespace's name", "expected a namespace's name"),
    ],
    "DetectionRule": [
        ("spec.condition", None, "spec.condition: is required", "spec.condition: Required value"),
        ("spec.conditon", "true", "did you mean condition?", 'unknown field "spec.conditon"'),
        (
            "spec.severity",
            "hihg",
            "unknown value 'hihg', did you mean high?",
            'supported values: "info", "low", "medium"',
        ),
        (
            "spec.maturity",
            "beta",
            "expected one of stable, incubating, sandbox",
            'supported values: "stable", "incubating"',
        ),
        ("spec.events", [], "expected at least 1 in the list", "should have at least 1 items"),
        ("spec.events", ["conect"], "did you mean connect?", 'spec.events[0]: Unsupported value: "conect"'),
        ("spec.mitre.0.technique", "1046", "expected an id such as T1059", "expected an id such as T1059 or T1059.004"),
        ("spec.references", ["javascript:1"], "begins with https://", "expected an address that begins with https://"),
        ("spec.requires", ["TCP"], "expected a sensor's name", "expected a sensor's name of lower-case letters"),
        ("spec.parameters.limit", {"a": 1}, "expected text, a number, true,", "spec.parameters.limit: Too many: 1"),
        ("spec.parameters.limit", "x" * 1025, "expected at most 1024 characters", "spec.parameters.limit: Too long"),
        (
            "spec.parameters",
            {f"a{i}": 1 for i in range(33)},
            "expected at most 32 entries",
            "spec.parameters: Too many: 33",
        ),
        (
            "spec.exceptions",
            [{"name": "a", "condition": "true"}] * 2,
            "'a' is given twice",
            "spec.exceptions[1]: Duplicate value",
        ),
        (
            "spec.message",
            "a\nb",
            "expected text without control characters",
            "expected text without control characters",
        ),
        ("spec.suppress.by", ["pod"], "expected a field of the event", "expected a field of the event such as pod.uid"),
        (
            "spec.suppress.window",
            "10min",
            "expected a time such as 10m",
            "expected a time such as 10m or 30s, a day at most",
        ),
        ("spec.suppress.window", "25h", "a day at most", "expected a time such as 10m or 30s, a day at most"),
        ("spec.threshold.count", 1, "from 2 to 10000", "should be greater than or equal to 2"),
        (
            "spec.threshold",
            {"count": 5, "by": ["pod.uid"]},
            "window: is required",
            "spec.threshold.window: Required value",
        ),
        (
            "spec.sequence",
            {"steps": [{"events": ["file"], "condition": "true"}], "within": "30s"},
            "expected at most one of threshold, sequence",
            "spec: Invalid value: expected at most one of threshold, sequence",
        ),
        ("spec.tests.0.events", [{}], "expected exactly one of event, events", "expected exactly one of event, events"),
        ("spec.tests.1.events", ["exec"], "expected a mapping", "must be of type object"),
        ("spec.tests.0.match", "yes", "expected true or false", 'must be of type boolean: "string"'),
    ],
    "PolicyLibrary": [
        (
            "metadata.name",
            "other",
            "there is one PolicyLibrary, named default",
            "there is one PolicyLibrary, named default",
        ),
        ("spec.mode", "all", "expected one of required, listed, off", 'supported values: "required", "listed", "off"'),
        ("spec.modes", "off", "did you mean mode?", 'unknown field "spec.modes"'),
        ("spec.policies", {"egress": {}}, "expected a list, found a mapping", 'unknown field "spec.policies.egress"'),
        ("spec.policies.0.name", None, "spec.policies[0].name: is required", "spec.policies[0].name: Required value"),
        (
            "spec.policies.0.name",
            "Egress",
            "expected a name of lower-case letters",
            "expected a name of lower-case letters",
        ),
        ("spec.policies", [{"name": "a"}] * 2, "'a' is given twice", "spec.policies[1]: Duplicate value"),
        ("spec.policies.0.rateLimit", "1 minute", "expected a time such as 10m", "expected a time such as 10m or 30s"),
        ("spec.policies.0.rateLimit", "48h", "a day at most", "a day at most"),
        ("spec.policies.0.namespaces.exclude", ["Kube"], "expected a namespace's name", "expected a namespace's name"),
        ("spec.policies.0.parameters", ["auto"], "expected a mapping, found a list", 'must be of type object: "array"'),
        ("spec.rules.maturity", ["new"], "expected one of stable, incubating", 'supported values: "stable"'),
        ("spec.rules.tune", [{"name": "a"}] * 2, "'a' is given twice", "spec.rules.tune[1]: Duplicate value"),
        ("spec.rules.tune.0.enabled", "no", "expected true or false", 'must be of type boolean: "string"'),
        ("spec.rules.tune.0.severity", "none", "expected one of info, low", 'supported values: "info", "low"'),
        ("spec.rules.tune.0.exceptions.0.condition", None, "is required", "exceptions[0].condition: Required value"),
    ],
    "CollectorStatus": [
        ("status.heartbeatTime", None, "heartbeatTime: is required", "status.heartbeatTime: Required value"),
        ("status.heartbeatTime", "yesterday", "expected a time such as", "must be of type date-time"),
        (
            "status.version",
            "a\x1b[31m",
            "expected text without control characters",
            "expected text without control characters",
        ),
        ("status.policiesLoaded", "all", "expected two numbers such as 5/6", "expected two numbers such as 5/6"),
        ("status.policies.0.state", "Broken", "expected one of Loaded", 'supported values: "Loaded"'),
        (
            "status.policies.0.message",
            "x" * 513,
            "expected at most 512 characters",
            "status.policies[0].message: Too long",
        ),
        ("status.eventsPerSecond", -1, "expected a whole number", "should be greater than or equal to 0"),
        ("status.lostEvents", "many", "expected a whole number of events", "must be of type integer"),
        ("status.lag", "fast", "expected a time such as 1s", "expected a time such as 1s"),
        ("status.backend", "Fine", "expected one of Delivering", 'supported values: "Delivering", "Retrying"'),
        ("status.conditions.0.type", "agent up", "expected a type like Ready", "expected a type like Ready"),
        ("status.conditions.0.status", "yes", "expected one of True, False", 'supported values: "True", "False"'),
        ("status.identities.0.workloads", ["a"] * 9, "expected at most 8 items", "Too many: 9: must have at most 8"),
        ("status.secret", "x", "unknown field", 'unknown field "status.secret"'),
    ],
}
CASES = [(kind, *case) for kind, cases in WRONG.items() for case in cases]


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{case[1]}-{index}" for index, case in enumerate(CASES)])
def test_refused(server: Server, case: tuple[str, str, object, str, str], tmp_path: Path) -> None:
    """A wrong manifest is refused by the folder and by the API server, each naming the field and what was expected."""
    kind, path, value, folder, cluster = case
    manifest = changed(kind, path, value)
    said, refused = folder_says(manifest, tmp_path), server.refusal(manifest)
    ROWS.append((kind, f"{path}: {json.dumps(value)[:40]}", said[:160] or "-", refused[:200]))
    assert (folder in said) if folder else not said
    assert cluster in refused


def test_every_kind_has_ten_wrong_manifests() -> None:
    """No kind is left out of the table."""
    assert {kind: len(cases) >= 10 for kind, cases in WRONG.items()} == dict.fromkeys(KIND, True)


def test_a_credential_in_the_wrong_field_is_not_repeated(server: Server) -> None:
    """What somebody pasted into a field of text is not in the API server's answer, which audit logs and others keep."""
    key = "sk-proj-Zq81mXv20PqLw93nRt56=="
    for path in ("evidence.env.0.name", "identity.id", "identity.kind", "identity.provider", "evidence.secrets.0.name"):
        refused = server.refusal(changed("ClusterIdentityMapping", f"spec.{path}", key))
        assert "expected " in refused
        assert key[:12] not in refused


# Whole numbers written as 1.0 are integers to the API server; JSON has neither half surrogates nor not-a-number.
SCALARS = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 443, 65535, 65536, 0.5, -1.5])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        ["", "a", "A", "a.b", "10.0.0.0/8", "10.1.0.0/8", "fd00::/8", "fd00::1/8", "(", "a+", "*.x.y", "/x"]
    )
    | st.sampled_from(
        ["24h", "25h", "1441m", "0s", "high", "stable", "exec", "T1059", "TA0002", "x" * 64, "x" * 254, "\n"]
    )
)
VALUES = st.none() | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "pattern", "host", "cidr", "namespace", "events", "zz"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)


def places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value in a manifest but those of parameters and of tests' events."""
    if path and path[-1] in {"parameters", "event", "events"} and path[-2:] != ("spec", "events"):
        return
    if path:
        yield path
    steps = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for step in steps:
        yield from places(data[step], (*path, step))


@pytest.mark.parametrize("kind", SPECS)
def test_folder_and_cluster_judge_alike(server: Server, kind: str, tmp_path: Path) -> None:
    """Whatever stands in whichever field: what one refuses for its shape the other refuses, too."""
    part = "status" if kind == "CollectorStatus" else "spec"
    paths = [path for path in places(manifest_of(kind)) if path[0] == part and len(path) > 1]
    judged = {True: 0, False: 0}

    @settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(paths), VALUES)
    def judges(path: tuple[str | int, ...], value: object) -> None:
        # The API server takes a list or mapping for a text of the format date-time.
        assume(not (str(path[-1]).endswith(("Time", "Used")) and isinstance(value, list | dict)))
        manifest = manifest_of(kind)
        put(manifest, list(path), value)
        said, refused = folder_says(manifest, tmp_path), server.refusal(manifest)
        judged[bool(said)] += 1
        assert bool(said) == bool(refused), f"{path} = {value!r}: folder {said!r}, cluster {refused!r}"

    judges()
    assert judged[True] > 20
