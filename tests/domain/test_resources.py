"""The shapes of the custom resources: what they take, what they refuse, and that each field documents itself."""

import copy
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import re2

from keytrail.domain.resources import KINDS, ClusterIdentityMapping, IdentityMapping
from keytrail.domain.shape import ShapeField, fields_of, read

FULL: dict[str, Any] = {
    "apiVersion": "keytrail.io/v1alpha1",
    "kind": "ClusterIdentityMapping",
    "metadata": {"name": "openai-prod", "uid": "1", "managedFields": [{}], "labels": {"team": ""}},
    "spec": {
        "identity": {"id": "openai", "kind": "api_key", "provider": "openai", "owner": "team-ml"},
        "priority": 100,
        "evidence": {
            "env": [{"name": "OPENAI_API_KEY"}, {"pattern": "OPENAI_.*_KEY"}],
            "argv": [{"contains": "openai"}],
            "secrets": [{"namespace": "ml", "name": "openai", "keys": ["api-key"]}],
            "serviceAccounts": [{"namespace": "ml", "name": "chat-api"}],
            "files": [{"path": "/var/run/secrets/openai/*"}],
            "serverNames": ["api.openai.com", "*.openai.azure.com"],
        },
        "allowed": {
            "workloads": [{"namespace": "ml", "kind": "Deployment", "name": "chat-api"}],
            "binaries": ["/usr/local/bin/python3*"],
            "destinations": [{"host": "api.openai.com", "ports": [443]}, {"cidr": "10.0.0.0/8"}],
        },
    },
    "status": {"conditions": []},
}


def is_union(type_: object) -> bool:
    """Whether a type is `X | None`."""
    return get_origin(type_) in {Union, UnionType}


def problems(cls: type, *changes: tuple[str, object]) -> list[tuple[str, str]]:
    """Return what is wrong with the full mapping after changes; a path's last step may be new."""
    data: Any = copy.deepcopy(FULL)
    for path, value in changes:
        *steps, last = path.split(".")
        target = data
        for step in steps:
            target = target[int(step)] if isinstance(target, list) else target[step]
        target[int(last) if isinstance(target, list) else last] = value
    return [(fault.field, fault.message) for fault in read(cls, data)[1]]


def test_full_mapping() -> None:
    """The mapping of the documentation is read whole, as the API server gives it."""
    mapping, faults = read(ClusterIdentityMapping, FULL)
    assert faults == []
    assert mapping is not None
    assert (mapping.name, mapping.identity_id) == ("openai-prod", "openai")
    assert [item.name or item.pattern for item in mapping.spec.evidence.env] == ["OPENAI_API_KEY", "OPENAI_.*_KEY"]
    assert mapping.spec.evidence.service_accounts[0].name == "chat-api"
    assert mapping.spec.allowed.destinations[0].ports == (443,)
    assert hash(mapping) == hash(read(ClusterIdentityMapping, FULL)[0])


def test_namespaced_identity_carries_its_namespace() -> None:
    """A tenant's identity can never pass for one of the cluster; the id defaults to the object's name."""
    data = {"metadata": {"name": "k", "namespace": "ml"}, "spec": {"evidence": {"env": [{"name": "A"}]}}}
    mapping, faults = read(IdentityMapping, data)
    assert faults == []
    assert mapping is not None
    assert (mapping.name, mapping.identity_id) == ("ml/k", "ml/k")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.identity.id", "OpenAI", "expected a name of lower-case letters"),
        ("spec.identity.id", "a" * 254, "expected at most 253 characters, found 254"),
        ("spec.identity.kind", "API key", "expected a short word in lower case, such as api_key, found 'API key'"),
        ("spec.identity.owner", "a\nb", "expected text without control characters"),
        ("spec.priority", 1001, "expected a whole number from -1000 to 1000, found the number 1001"),
        ("spec.evidence.env.0.name", "OPENAI_*", "expected a variable's exact name, without value or wildcard"),
        ("spec.evidence.env.1.pattern", "(?=x)", "expected a regular expression in RE2's syntax"),
        ("spec.evidence.argv.0.contains", "ai", "expected text without control characters, at least 3 long"),
        ("spec.evidence.secrets.0.keys", ["a/b"], "expected a Secret's key of letters, digits, -, _ and ."),
        ("spec.evidence.files.0.path", "secrets/key", "expected a path that begins with / or *"),
        ("spec.evidence.serverNames.0", "https://api.openai.com/v1", "expected a host name in lower case"),
        ("spec.evidence.serverNames.0", "api.*.com", "expected a host name in lower case"),
        ("spec.evidence.serverNames", ["a.b"] * 65, "expected at most 64 items, found 65"),
        ("spec.allowed.workloads", [], "expected at least 1 in the list or no list, found 0"),
        ("spec.allowed.workloads.0.kind", "deployment", "expected a kind such as Deployment"),
        ("spec.allowed.destinations.0.ports", [0], "expected a whole number from 1 to 65535, found the number 0"),
        ("spec.allowed.destinations.1.cidr", "10.1.0.0/8", "host bits are set, did you mean 10.0.0.0/8?"),
        ("spec.allowed.destinations.1.cidr", "10.0.0.0/33", "address or prefix length is out of range"),
        ("spec.allowed.destinations.1.cidr", "10.0.0.1", "expected a network such as 10.0.0.0/8 or fd00::/8"),
    ],
)
def test_refuses(path: str, value: object, message: str) -> None:
    """Every bound of the contract is kept, and the one problem says which."""
    ((field, found),) = problems(ClusterIdentityMapping, (path, value))
    assert field.replace("[", ".").replace("]", "").startswith(path)
    assert message in found


def test_exactly_one_and_at_least_one() -> None:
    """An item names or patterns, a destination is a host or a network, and a mapping without evidence says nothing."""
    assert problems(ClusterIdentityMapping, ("spec.evidence.env.0.pattern", "A.*")) == [
        ("spec.evidence.env[0]", "expected exactly one of name, pattern, found name and pattern")
    ]
    assert problems(ClusterIdentityMapping, ("spec.allowed.destinations.0", {"ports": [443]})) == [
        ("spec.allowed.destinations[0]", "expected exactly one of host, cidr, found none")
    ]
    assert problems(ClusterIdentityMapping, ("spec.evidence", {"env": []})) == [
        (
            "spec.evidence",
            "expected at least one of env, argv, secrets, serviceAccounts, files, serverNames, found none",
        )
    ]


def test_a_namespaced_mapping_speaks_for_its_own_namespace() -> None:
    """Naming another namespace is refused for each list that can, leaving the namespace out is not."""
    words = "an IdentityMapping speaks for its own namespace only: expected 'ml', found 'prod'"
    changes = [("metadata.namespace", "ml"), ("spec.evidence.secrets.0.namespace", None)]
    assert problems(IdentityMapping, *changes) == []
    lists = ("spec.evidence.secrets", "spec.evidence.serviceAccounts", "spec.allowed.workloads")
    found = problems(IdentityMapping, *changes, *((f"{path}.0.namespace", "prod") for path in lists))
    assert found == [(f"{path}[0].namespace", words) for path in lists]
    assert problems(IdentityMapping) == [
        ("metadata.namespace", "is required in an IdentityMapping (a ClusterIdentityMapping has none)")
    ]


def test_a_cluster_mapping_says_each_namespace() -> None:
    """A cluster-wide mapping has no namespace of its own to fall back on."""
    assert problems(ClusterIdentityMapping, ("spec.evidence.secrets.0.namespace", None)) == [
        ("spec.evidence.secrets[0].namespace", "is required in a ClusterIdentityMapping")
    ]
    assert problems(ClusterIdentityMapping, ("metadata.namespace", "ml")) == [
        ("metadata.namespace", "a ClusterIdentityMapping has no namespace: remove it, or use kind IdentityMapping")
    ]


def every_field(cls: type) -> Iterator[tuple[type, ShapeField]]:
    """Yield each declared field of a shape and of the shapes below it."""
    for field in fields_of(cls):
        yield cls, field
        for type_ in (field.type, *get_args(field.type)):
            if isinstance(type_, type) and hasattr(type_, "__dataclass_fields__"):
                yield from every_field(type_)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_field_documents_itself(kind: type) -> None:
    """Each field has a description, an example that the shape accepts, and bounds: a schema has all it needs."""
    for cls, field in every_field(kind):
        where = f"{cls.__name__}.{field.name}"
        doc = field.doc
        assert doc.description.endswith("."), where
        data = {field.name: doc.example}
        faults = [
            fault
            for fault in read(cls, data)[1]
            if fault.path[:1] == (field.name,) and "is required" not in fault.message
        ]
        assert faults == [], where
        # `X | None`, an optional part, is judged as the X that it holds.
        whole = next(one for one in get_args(field.type) if one is not NoneType) if is_union(field.type) else field.type
        items = get_args(whole)[1:] if get_origin(whole) is Mapping else get_args(whole)  # keys are names of parts
        kinds = {whole, *items}
        assert str not in kinds or doc.max_length, where
        assert not get_args(whole) or doc.max_items, where
        assert int not in kinds or (doc.minimum is not None and doc.maximum is not None), where
        assert not doc.pattern or (doc.pattern[0] + doc.pattern[-1] == "^$" and re2.compile(doc.pattern)), where
        assert cls.__doc__, where
