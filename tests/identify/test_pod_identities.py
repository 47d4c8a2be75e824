"""Identities from what a Pod's spec gives a container, one rule at a time."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.domain.declared import Declared, MountedCredential, MountKind, SecretKey, WholeSource
from keytrail.domain.event import Details, Event, EventKind, EventType, FileAccess
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Strength, Unknown
from keytrail.domain.placement import CloudRole, Origin, Placement, Provenance
from keytrail.domain.process import Pod, Process
from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping
from keytrail.domain.shape import read
from keytrail.identify.matcher import IdentityMatcher, Mapping
from keytrail.manifests import load_builtin_identities

OPENAI = SecretKey("ml", "openai", "api-key")
SPEC = Declared({"OPENAI_API_KEY": OPENAI, "LOG_LEVEL": None}, (WholeSource("", "db"),))
TOKEN = MountedCredential("/run/secrets/kubernetes.io/serviceaccount/token", MountKind.TOKEN)
BEGAN_WITH = ("PATH", "OPENAI_API_KEY", "LOG_LEVEL", "DB_PASSWORD", "IMAGE_TOKEN")
"""Variables of the container's first process: of the image, by name, of the Secret db, and again of the image."""


class Opened(Event):
    """A process reads a file."""

    __slots__ = ("_file",)

    def __init__(self, process: Process, path: str, access: str = "read") -> None:
        super().__init__(EventKind.FILE, EventType.KPROBE, process, time_ns=0)
        self._file = Details(file=FileAccess(path, access))

    @property
    def details(self) -> Details:
        """The file."""
        return self._file


providers = cache(load_builtin_identities)


def mapping(name: str, *, namespace: str = "", **spec: Any) -> Mapping:
    """A mapping as a manifest would give it."""
    shape = IdentityMapping if namespace else ClusterIdentityMapping
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    made, faults = read(shape, {"metadata": metadata, "spec": spec})
    assert made is not None, faults
    return made


def matcher(*mappings: Mapping) -> IdentityMatcher:
    """With the shipped providers."""
    return IdentityMatcher(mappings, providers(), looks_like_credential=looks_like_credential_name)


def process(
    names: Sequence[str] | None,
    declared: Declared | None = SPEC,
    *,
    given: Sequence[str] | None = BEGAN_WITH,
    roles: tuple[CloudRole, ...] = (),
    arguments: str = "",
) -> Process:
    """A process of the pod ml/chat-0."""
    made = Process("id", arguments=arguments, environment=None if names is None else tuple(names))
    made.pod = Pod("ml", "chat-0", service_account="chat")
    made.placement = Placement(None, declared, roles)
    made.origin = Origin(Provenance.GENUINE, None if given is None else tuple(given))
    return made


def seen(found: Attribution) -> list[tuple[str, str, str, Strength]]:
    """Kind, name, identity, strength of the evidence."""
    return [(str(one.kind), one.name, one.identity_id, one.strength) for one in found.evidence]


def of_name(found: Attribution, name: str) -> Evidence:
    """The evidence of that name."""
    return next(one for one in found.evidence if one.name == name)


def test_variable_that_the_spec_takes_from_a_secret() -> None:
    """It names the Secret's key, is observed, and borrows provider and kind from who knows the variable."""
    found = of_name(matcher().attribute(process(["OPENAI_API_KEY"])), "OPENAI_API_KEY")
    assert (found.kind, found.identity_id, found.strength) == (
        EvidenceKind.ENV,
        "secret/ml/openai/api-key",
        Strength.OBSERVED,
    )
    assert (found.secret, found.provider, found.identity_kind, found.mapped) == (OPENAI, "openai", "api_key", True)


def test_variable_of_any_name_that_the_spec_takes_from_a_secret() -> None:
    """What comes from a Secret by name is one, even when its name says nothing; literal variables are not."""
    spec = Declared({"SETTING": SecretKey("ml", "app", "setting"), "OTHER": None})
    found = matcher().attribute(process(["SETTING", "OTHER"], spec))
    assert seen(found) == [("env", "SETTING", "secret/ml/app/setting", Strength.OBSERVED)]


def test_declared_and_not_seen() -> None:
    """A process without the variable, or one that could not be looked at, has what its container is given."""
    declared = ("secret", "OPENAI_API_KEY", "secret/ml/openai/api-key", Strength.DECLARED)
    whole = ("secret", "*", "secret/ml/db", Strength.DECLARED)
    assert seen(matcher().attribute(process([]))) == [whole, declared]
    unseen = matcher().attribute(process(None))
    assert seen(unseen) == [whole, declared]
    assert unseen.unknown is Unknown.NOT_CAPTURED


def test_whole_secret_gives_the_credentials_that_the_container_began_with() -> None:
    """Its keys are not known: a variable counts that looks like a credential and that the first process had."""
    found = matcher().attribute(process(["PATH", "DB_PASSWORD"]))
    assert ("env", "DB_PASSWORD", "secret/ml/db/DB_PASSWORD", Strength.OBSERVED) in seen(found)
    assert "PATH" not in [one.name for one in found.evidence]
    prefixed = Declared({}, (WholeSource("DB_", "db"),))
    found = matcher().attribute(process(["DB_PASSWORD"], prefixed))
    assert of_name(found, "DB_PASSWORD").secret == SecretKey("ml", "db", "PASSWORD")


def test_whole_secret_that_a_mapping_names_does_not_make_every_variable_a_credential() -> None:
    """A mapping that means all keys of it says nothing of PATH, which the image set; one that lists the key does."""
    secret = {"namespace": "ml", "name": "db"}
    whole = matcher(mapping("base", evidence={"secrets": [secret]})).attribute(process(["PATH", "LOG_LEVEL"]))
    assert [(one.kind, one.name, one.strength) for one in whole.evidence if one.mapping] == [
        (EvidenceKind.SECRET, "*", Strength.DECLARED)
    ]
    begun = [*BEGAN_WITH, "DSN"]
    listed = matcher(mapping("base", evidence={"secrets": [{**secret, "keys": ["DSN"]}]}))
    assert of_name(listed.attribute(process(["DSN"], given=begun)), "DSN").identity_id == "base"


def test_of_two_whole_secrets_only_a_mapping_tells() -> None:
    """Which of them has the key nobody knows without reading them: the one counts that a mapping names."""
    both = Declared({}, (WholeSource("", "a"), WholeSource("", "b"), WholeSource("")))
    found = matcher().attribute(process(["DB_PASSWORD"], both))
    assert of_name(found, "DB_PASSWORD").secret is None
    named = mapping("base", evidence={"secrets": [{"namespace": "ml", "name": "b", "keys": ["DB_PASSWORD"]}]})
    found = matcher(named).attribute(process(["DB_PASSWORD"], both))
    assert (of_name(found, "DB_PASSWORD").identity_id, of_name(found, "DB_PASSWORD").mapping) == ("base", "base")


@pytest.mark.parametrize(
    ("given", "name", "undeclared"),
    [
        (BEGAN_WITH, "STRIPE_API_KEY", True),
        (BEGAN_WITH, "OPENAI_API_KEY", False),
        (BEGAN_WITH, "DB_PASSWORD", False),
        (BEGAN_WITH, "IMAGE_TOKEN", False),
        (None, "STRIPE_API_KEY", False),
    ],
    ids=["brought-in", "declared-by-name", "of-a-whole-secret", "of-the-image", "nobody-saw-the-start"],
)
def test_undeclared(given: Sequence[str] | None, name: str, undeclared: bool) -> None:
    """Marked is what neither spec nor image gave the container; where its start was not seen nothing is claimed."""
    found = matcher().attribute(process([name], given=given))
    assert of_name(found, name).undeclared is undeclared


def test_nothing_is_undeclared_outside_pods() -> None:
    """A process of the node has no spec that could declare anything."""
    made = Process("id", environment=("STRIPE_API_KEY",))
    made.placement = Placement()
    assert not of_name(matcher().attribute(made), "STRIPE_API_KEY").undeclared


def test_undeclared_credential_comes_before_the_containers_own() -> None:
    """Of several keys the one is meant that was set for this process: the others are in every process."""
    found = matcher().attribute(process(["OPENAI_API_KEY", "STRIPE_API_KEY"])).primary
    assert found is not None
    assert (found.name, found.identity_id, found.undeclared) == ("STRIPE_API_KEY", "stripe_api_key-present", True)


def test_mapping_that_names_the_secret() -> None:
    """It names the identity, before one that names only the variable; its keys are respected, declared or observed."""
    by_secret = mapping(
        "chat", evidence={"secrets": [{"namespace": "ml", "name": "openai", "keys": ["api-key"]}]}, priority=-1
    )
    other_key = mapping("other", evidence={"secrets": [{"namespace": "ml", "name": "openai", "keys": ["admin"]}]})
    by_name = mapping("any", evidence={"env": [{"name": "OPENAI_API_KEY"}]}, priority=9)
    found = matcher(by_name, other_key, by_secret).attribute(process(["OPENAI_API_KEY"]))
    assert [(one.identity_id, one.kind) for one in found.evidence[:2]] == [
        ("chat", EvidenceKind.ENV),
        ("any", EvidenceKind.ENV),
    ]
    assert found.evidence[0].provider == "openai"
    found = matcher(by_secret).attribute(process([]))
    assert ("secret", "OPENAI_API_KEY", "chat", Strength.DECLARED) in seen(found)


def test_mapping_of_a_tenant_names_its_own_secrets() -> None:
    """A namespaced mapping need not say its namespace, and cannot speak for another one's Secret."""
    tenant = mapping("mine", namespace="ml", evidence={"secrets": [{"name": "openai"}]})
    foreign = mapping("mine", namespace="web", evidence={"secrets": [{"name": "openai"}]})
    assert of_name(matcher(tenant).attribute(process(["OPENAI_API_KEY"])), "OPENAI_API_KEY").identity_id == "ml/mine"
    found = of_name(matcher(foreign).attribute(process(["OPENAI_API_KEY"])), "OPENAI_API_KEY")
    assert found.identity_id == "secret/ml/openai/api-key"


def test_service_account_by_its_token_and_its_roles() -> None:
    """It is an identity where its token is mounted, and each role in a cloud is one; a mapping may name it."""
    bare, with_token = Declared(), Declared(mounts=(TOKEN,))
    role = CloudRole("aws", "arn:aws:iam::0:role/chat")
    assert seen(matcher().attribute(process([], bare))) == []
    account = ("service_account", "ml/chat", "service-account/ml/chat", Strength.DECLARED)
    assert seen(matcher().attribute(process([], with_token))) == [account]
    found = matcher().attribute(process([], with_token, roles=(role,)))
    assert seen(found) == [("service_account", "ml/chat", role.id, Strength.DECLARED), account]
    assert found.evidence[0].identity_kind == "cloud_role"
    named = mapping("chat-aws", evidence={"serviceAccounts": [{"namespace": "ml", "name": "chat"}]})
    found = matcher(named).attribute(process([], bare, roles=(role,)))
    assert seen(found) == [("service_account", "ml/chat", "chat-aws", Strength.DECLARED)]
    assert found.evidence[0].provider == "aws"


MOUNTS = (
    MountedCredential("/etc/stripe", MountKind.SECRET, SecretKey("ml", "stripe"), is_folder=True),
    MountedCredential("/etc/db.key", MountKind.SECRET, SecretKey("ml", "db", "key")),
    MountedCredential("/mnt/vault", MountKind.PROVIDER, provider_class="vault-keys", is_folder=True),
    TOKEN,
)


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("/etc/stripe/..2026_11_22_02_00_00.123456789/api-key", "secret/ml/stripe/api-key"),
        ("/etc/stripe/..data/api-key", "secret/ml/stripe/api-key"),
        ("/etc/db.key", "secret/ml/db/key"),
        ("/mnt/vault/openai", "secret-provider-class/ml/vault-keys"),
        ("/var/run/secrets/kubernetes.io/serviceaccount/..2026_11_22_02_00_00.1/token", "service-account/ml/chat"),
    ],
)
def test_mounted_file_that_a_process_opens(path: str, identity: str) -> None:
    """What is mounted is declared; opening it makes it observed, by the name that the kubelet gave the file."""
    made, by = process([], Declared(mounts=MOUNTS)), matcher()
    by.identify(Event(EventKind.EXEC, EventType.EXEC, made, time_ns=0))
    assert made.attribution is not None
    assert all(one.strength is Strength.DECLARED for one in made.attribution.evidence)
    by.identify(Opened(made, path))
    found = made.attribution.primary
    assert found is not None
    assert (found.kind, found.identity_id, found.strength) == (EvidenceKind.FILE, identity, Strength.OBSERVED)
    before = made.attribution
    by.identify(Opened(made, path))
    assert made.attribution is before


@pytest.mark.parametrize(
    ("path", "access"),
    [
        ("/etc/stripe", "read"),
        ("/etc/stripes/key", "read"),
        ("/etc/stripe/key", "write"),
        ("/etc/stripe/tmp/a", "read"),
    ],
)
def test_other_files_are_no_evidence(path: str, access: str) -> None:
    """The folder, a neighbour, what is written, and another volume below it say nothing of a credential read."""
    made = process([], Declared(mounts=MOUNTS))
    matcher().identify(Opened(made, path, access))
    assert made.opened == ()


def test_files_of_mappings_on_the_node() -> None:
    """A mapping's and a provider's files count for processes without a pod, too."""
    own = mapping("backup", evidence={"files": [{"path": "/srv/backup/*.key"}]})
    made, by = Process("id", environment=()), matcher(own)
    for path in ("/srv/backup/a.key", "/root/.kube/config", "/etc/hosts"):
        by.identify(Opened(made, path))
    assert made.attribution is not None
    assert [(one.identity_id, one.name) for one in made.attribution.evidence] == [
        ("backup", "/srv/backup/a.key"),
        ("file-kubernetes", "/root/.kube/config"),
    ]


def test_opened_files_outlive_a_change_of_mappings_and_are_bounded() -> None:
    """What was opened is kept with the process, not in the attribution; a process that opens everything has an end."""
    made, by = process([], Declared(mounts=MOUNTS)), matcher()
    for number in range(100):
        by.identify(Opened(made, f"/etc/stripe/key-{number}"))
    assert len(made.opened) == 32
    named = mapping("pay", evidence={"secrets": [{"namespace": "ml", "name": "stripe", "keys": ["key-1"]}]})
    found = matcher(named).attribute(made)
    assert of_name(found, "/etc/stripe/key-1").identity_id == "pay"


def test_equal_processes_share_one_attribution() -> None:
    """Most processes of a container are alike: they cost one look, and outputs know them by the object."""
    first, second = process(["OPENAI_API_KEY"]), process(["OPENAI_API_KEY"])
    second.placement, by = first.placement, matcher()
    assert by.attribute(first) is by.attribute(second)
