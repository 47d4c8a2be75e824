"""Which identity a process carries: the rules of the identity model, one by one."""

from collections.abc import Sequence
from typing import Any

import pytest

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.identity import Attribution, EvidenceKind, Strength, Unknown
from keytrail.domain.process import Pod, Process
from keytrail.domain.resources import Allowed, ClusterIdentityMapping, IdentityMapping
from keytrail.domain.shape import read
from keytrail.identify.matcher import IdentityMatcher, Mapping
from keytrail.manifests import load_builtin_identities


def mapping(
    name: str,
    *,
    namespace: str = "",
    identity: dict[str, Any] | None = None,
    priority: int = 0,
    allowed: dict[str, Any] | None = None,
    **evidence: Any,
) -> Mapping:
    """A mapping as a manifest would give it."""
    shape = IdentityMapping if namespace else ClusterIdentityMapping
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    spec = {"identity": identity or {}, "priority": priority, "evidence": evidence, "allowed": allowed or {}}
    made, faults = read(
        shape, {"apiVersion": "keytrail.io/v1alpha1", "kind": shape.__name__, "metadata": metadata, "spec": spec}
    )
    assert made is not None, faults
    return made


def attribute(
    names: Sequence[str] | None, arguments: str = "", *mappings: Mapping, namespace: str = "", **options: Any
) -> Attribution:
    """Attribute one process with the shipped providers and these mappings."""
    redacted, hits = Redactor().redact(arguments)
    process = Process(
        "id",
        pid=7,
        binary="/usr/bin/curl",
        arguments=redacted,
        argument_credentials=hits,
        environment=None if names is None else tuple(names),
        pod=Pod(namespace, "p") if namespace else None,
    )
    options.setdefault("looks_like_credential", looks_like_credential_name)
    return IdentityMatcher(mappings, load_builtin_identities(), **options).attribute(process)


def primary(found: Attribution) -> tuple[str, str]:
    """Kind and id of the primary identity."""
    assert found.primary is not None
    return str(found.primary.kind), found.primary.identity_id


def test_provider_adds_provider_and_kind_and_keeps_the_id() -> None:
    """A variable that only a built-in mapping knows keeps its own id and gains provider and kind."""
    found = attribute(["PATH", "OPENAI_API_KEY"]).primary
    assert found is not None
    assert (found.identity_id, found.provider, found.identity_kind, found.mapping) == (
        "openai_api_key-present",
        "openai",
        "api_key",
        "",
    )
    assert (found.strength, found.mapped) == (Strength.OBSERVED, True)


def test_unknown_credential_is_reported_as_unmapped() -> None:
    """A variable that looks like a credential and that nobody knows is evidence, marked unmapped."""
    found = attribute(["CLOSEDAI_API_KEY"]).primary
    assert found is not None
    assert (found.identity_id, found.mapped, found.provider) == ("closedai_api_key-present", False, "")
    assert attribute(["CLOSEDAI_API_KEY"], looks_like_credential=None) == Attribution()


def test_unmapped_credential_never_outranks_a_mapped_identity() -> None:
    """The model's own example: CLOSEDAI_API_KEY set and openai.com on the command line gives argv-openai."""
    found = attribute(["CLOSEDAI_API_KEY"], "openai.com")
    assert primary(found) == ("argv", "argv-openai")
    assert [item.name for item in found.evidence] == ["openai", "CLOSEDAI_API_KEY"]


def test_env_outranks_argv_whatever_the_priority() -> None:
    """At equal strength the variable wins, even over a mapping of higher priority on the command line."""
    by_word = mapping("by-word", priority=500, argv=[{"contains": "example"}])
    by_name = mapping("by-name", priority=-5, env=[{"name": "SOME_KEY"}])
    assert primary(attribute(["SOME_KEY"], "https://example.org", by_word, by_name)) == ("env", "by-name")


def test_priority_then_name_decide_between_equals() -> None:
    """Two mappings for one variable: the higher priority, then the smaller name, in whatever order they were given."""
    low, high = (
        mapping("a-low", priority=1, env=[{"name": "K_TOKEN"}]),
        mapping("z-high", priority=2, env=[{"name": "K_TOKEN"}]),
    )
    same = mapping("b-low", priority=1, env=[{"pattern": "K_.*"}])
    for order in ((low, high, same), (same, high, low), (high, same, low)):
        found = attribute(["K_TOKEN"], "", *order)
        assert [item.identity_id for item in found.evidence] == ["z-high", "a-low", "b-low"]


def test_cluster_mapping_outranks_a_namespaced_one() -> None:
    """A tenant's mapping can add to what a cluster mapping says, never replace it, whatever its priority."""
    cluster = mapping("openai-prod", env=[{"name": "OPENAI_API_KEY"}])
    tenant = mapping("mine", namespace="ml", priority=1000, env=[{"name": "OPENAI_API_KEY"}])
    found = attribute(["OPENAI_API_KEY"], "", tenant, cluster, namespace="ml")
    assert [item.identity_id for item in found.evidence] == ["openai-prod", "ml/mine"]
    assert found.evidence[1].mapping == "ml/mine"


def test_namespaced_mapping_speaks_for_its_namespace_only() -> None:
    """Processes of other namespaces, and of none, are not touched by it."""
    tenant = mapping("mine", namespace="ml", env=[{"name": "OPENAI_API_KEY"}], argv=[{"contains": "special"}])
    assert primary(attribute(["OPENAI_API_KEY"], "", tenant, namespace="ml")) == ("env", "ml/mine")
    assert primary(attribute(["OPENAI_API_KEY"], "", tenant, namespace="web")) == ("env", "openai_api_key-present")
    assert attribute([], "special", tenant) == Attribution()


def test_patterns_match_whole_names() -> None:
    """A pattern is the whole name, not a part of it."""
    wanted = mapping("azure", env=[{"pattern": "OPENAI_.*_KEYS"}])
    assert primary(attribute(["OPENAI_EAST_KEYS"], "", wanted)) == ("env", "azure")
    assert attribute(["MY_OPENAI_EAST_KEYS"], "", wanted) == Attribution()


def test_mapping_of_the_user_borrows_what_it_does_not_say() -> None:
    """Provider and kind come from the built-in mapping unless the user's says otherwise."""
    found = attribute(
        ["OPENAI_API_KEY"], "", mapping("a", env=[{"name": "OPENAI_API_KEY"}], identity={"id": "chat", "owner": "ml"})
    ).primary
    assert found is not None
    assert (found.identity_id, found.mapping, found.provider, found.owner) == ("chat", "a", "openai", "ml")


def test_words_of_the_command_line_match_in_any_case() -> None:
    """`contains` looks at letters, not at their case."""
    assert primary(attribute([], "https://API.OpenAI.com/v1")) == ("argv", "argv-openai")


@pytest.mark.parametrize(
    ("arguments", "name", "provider"),
    [
        ("-H 'Authorization: Bearer ghp_" + "a1B2c3D4e5F6" * 3 + "'", "github-token", "github"),
        ("-u ops:hunter22seven https://x.example", "user-option", ""),
        ("--password hunter22seven", "", ""),
    ],
)
def test_credential_on_the_command_line_is_evidence(arguments: str, name: str, provider: str) -> None:
    """What redaction found names the evidence; a key's own shape also names its provider, and comes first."""
    found = attribute([], arguments).primary
    assert found is not None
    assert found.kind is EvidenceKind.ARGV
    assert not found.mapped
    assert name in found.name
    assert found.provider == provider


def test_variable_assigned_on_the_command_line_is_mapped_like_any_other() -> None:
    """`export KEY=value` in a shell's arguments names the variable, and with it the identity."""
    found = attribute([], "-c 'export ANTHROPIC_API_KEY=abcdefgh12345678xyz; run'").primary
    assert found is not None
    assert (found.kind, found.name, found.provider) == (EvidenceKind.ARGV, "ANTHROPIC_API_KEY", "anthropic")


def test_not_captured_is_not_the_same_as_nothing() -> None:
    """Without an environment the answer is why; with an empty one it is nothing; with evidence it is the evidence."""
    assert attribute(None) == Attribution(unknown=Unknown.NOT_CAPTURED)
    assert attribute([]) == Attribution()
    assert primary(attribute(None, "openai.com")) == ("argv", "argv-openai")


def test_agents_filter_makes_nothing_unknown() -> None:
    """Where the agent withholds names that a mapping asks for, "nothing found" is "could not look"."""
    wanted = mapping("mine", env=[{"name": "MINE_KEY"}])
    matcher = IdentityMatcher([wanted], [])
    bare = Process("id", environment=())
    matcher.learn(AgentFacts("v1.7.0", captures_environment=True, environment_filter=("OTHER",)))
    assert matcher.attribute(bare) == Attribution(unknown=Unknown.FILTERED)
    matcher.learn(AgentFacts("v1.7.0", captures_environment=True, environment_filter=("MINE_KEY",)))
    assert matcher.attribute(bare) == Attribution()


def test_fallback_is_asked_only_where_the_event_has_nothing() -> None:
    """The event comes first; what the fallback gives is kept with the process, its refusals are the reason."""
    asked: list[int] = []

    def fallback(process: Process) -> tuple[str, ...] | Unknown:
        asked.append(process.pid)
        return ("OPENAI_API_KEY",) if process.pid == 1 else Unknown.PROCESS_GONE

    matcher = IdentityMatcher([], load_builtin_identities(), fallback=fallback)
    captured, readable, gone = Process("a", pid=3, environment=()), Process("b", pid=1), Process("c", pid=2)
    assert matcher.attribute(captured) == Attribution()
    assert primary(matcher.attribute(readable)) == ("env", "openai_api_key-present")
    assert readable.environment == ("OPENAI_API_KEY",)
    assert matcher.attribute(gone) == Attribution(unknown=Unknown.PROCESS_GONE)
    assert asked == [1, 2]


def expectations(found: Attribution) -> list[tuple[str, list[Allowed]]]:
    """Each identity and the expectations that must all hold for it."""
    return [(item.identity_id, list(item.allowed)) for item in found.evidence]


def test_evidence_carries_what_the_mapping_allows() -> None:
    """Expected use travels with the evidence; what leaves it out, and what no mapping knows, is not judged."""
    strict = mapping("strict", env=[{"name": "A_KEY"}], allowed={"binaries": ["/usr/bin/app"]})
    found = attribute(["A_KEY", "OPENAI_API_KEY", "OTHER_TOKEN"], "", strict, mapping("lax", env=[{"name": "B_KEY"}]))
    assert expectations(found) == [
        ("strict", [Allowed(binaries=("/usr/bin/app",))]),
        ("openai_api_key-present", []),
        ("other_token-present", []),
    ]
    assert expectations(attribute(["B_KEY"], "", mapping("lax", env=[{"name": "B_KEY"}]))) == [("lax", [])]


def test_tenant_narrows_and_never_widens() -> None:
    """Whichever identity is looked at, what cluster and tenant expect of one variable must both hold."""
    cluster = mapping("prod", env=[{"name": "A_KEY"}], allowed={"destinations": [{"host": "api.example"}]})
    tenant = mapping("mine", namespace="ml", env=[{"name": "A_KEY"}], allowed={"destinations": [{"cidr": "0.0.0.0/0"}]})
    other = mapping("else", namespace="ml", env=[{"name": "B_KEY"}], allowed={"binaries": ["/bin/b"]})
    by_cluster, by_tenant = cluster.spec.allowed, tenant.spec.allowed
    found = attribute(["A_KEY", "B_KEY"], "", tenant, other, cluster, namespace="ml")
    assert expectations(found) == [
        ("prod", [by_cluster, by_tenant]),
        ("ml/else", [other.spec.allowed]),
        ("ml/mine", [by_tenant, by_cluster]),
    ]
    assert expectations(attribute(["A_KEY"], "", tenant, cluster, namespace="web")) == [("prod", [by_cluster])]


def test_words_of_the_command_line_are_narrowed_alone() -> None:
    """On a command line a tenant narrows the cluster's mapping of the same word, not that of another one."""
    cluster = mapping("prod", argv=[{"contains": "alpha"}], allowed={"binaries": ["/bin/a"]})
    same = mapping("mine", namespace="ml", argv=[{"contains": "ALPHA"}], allowed={"binaries": ["/bin/b"]})
    other = mapping("else", namespace="ml", argv=[{"contains": "beta"}], allowed={"binaries": ["/bin/c"]})
    found = dict(expectations(attribute([], "alpha beta", same, other, cluster, namespace="ml")))
    assert found["prod"] == [cluster.spec.allowed, same.spec.allowed]
    assert found["ml/else"] == [other.spec.allowed]


def test_workload_of_a_tenant_is_in_its_own_namespace() -> None:
    """A namespaced mapping need not say its namespace again."""
    tenant = mapping(
        "mine", namespace="ml", env=[{"name": "A_KEY"}], allowed={"workloads": [{"kind": "Deployment", "name": "web"}]}
    )
    [(_, [allowed])] = expectations(attribute(["A_KEY"], "", tenant, namespace="ml"))
    assert allowed.workloads[0].namespace == "ml"
