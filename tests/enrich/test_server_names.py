"""A host that takes a credential is evidence of its use, of a process that carries it and of no other."""

from typing import Any

import pytest

from keytrail.domain.declared import Declared, SecretKey
from keytrail.domain.event import Details, EventKind, EventType, Payload
from keytrail.domain.event import Event as Base
from keytrail.domain.identity import EvidenceKind, Strength
from keytrail.domain.placement import Placement
from keytrail.domain.process import Pod, Process
from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.domain.shape import read
from keytrail.enrich.peers import Peers
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities


class Hello(Base):
    """A ClientHello for a host."""

    __slots__ = ("_details",)

    def __init__(self, process: Process, host: str) -> None:
        super().__init__(EventKind.SEND, EventType.KPROBE, process, time_ns=0)
        self._details = Details(payload=Payload(517, "tls", server_name=host))

    @property
    def details(self) -> Details:
        """What was sent."""
        return self._details


def mapping(name: str, variable: str, *hosts: str, **evidence: Any) -> ClusterIdentityMapping:
    """A user's mapping of a variable, whose credential these hosts take."""
    spec = {
        "identity": {"kind": "api_key"},
        "evidence": {"env": [{"name": variable}], "serverNames": list(hosts), **evidence},
    }
    raw = {"metadata": {"name": name}, "spec": spec, "apiVersion": "keytrail.io/v1alpha1"}
    made, faults = read(ClusterIdentityMapping, {**raw, "kind": "ClusterIdentityMapping"})
    assert made is not None, faults
    return made


MATCHER = IdentityMatcher(
    (mapping("stripe-prod", "PAY", "api.stripe.com"), mapping("vault", "VAULT", "*.vault.example")),
    load_builtin_identities(),
)


def after(hosts: tuple[str, ...], *variables: str, arguments: str = "") -> Process:
    """A process with these variables, after it asked for these hosts."""
    process = Process("a", environment=variables, arguments=arguments)
    event = Hello(process, "")
    MATCHER.identify(event)
    for host in hosts:
        event = Hello(process, host)
        Peers().hear(event)
        MATCHER.identify(event)
    return process


@pytest.mark.parametrize("host", ["api.stripe.com", "API.Stripe.com."])
def test_the_identity_that_is_carried_is_used(host: str) -> None:
    """It becomes the primary one with strength `used`, still named by its variable; the host stands beside it."""
    attribution = after((host,), "PAY", "VAULT").attribution
    assert attribution is not None
    said = [(one.kind, one.name, one.identity_id, one.strength) for one in attribution.evidence]
    assert said == [
        (EvidenceKind.ENV, "PAY", "stripe-prod", Strength.USED),
        (EvidenceKind.SERVER_NAME, "api.stripe.com", "stripe-prod", Strength.USED),
        (EvidenceKind.ENV, "VAULT", "vault", Strength.OBSERVED),
    ]


def test_each_host_that_takes_a_credential_counts() -> None:
    """Two identities used one after the other are both told as used, wildcards included."""
    attribution = after(("api.stripe.com", "eu.vault.example", "other.example"), "PAY", "VAULT").attribution
    assert attribution is not None
    assert {one.name for one in attribution.evidence if one.strength is Strength.USED} == {
        "PAY", "VAULT", "api.stripe.com", "eu.vault.example",
    }  # fmt: skip


def test_a_host_alone_is_no_evidence() -> None:
    """A process that does not carry the credential has the attribution that it had, and a word is no credential."""
    assert after(("api.stripe.com",)).attribution == after(()).attribution
    named = after(("api.openai.com",), arguments="https://api.openai.com").attribution
    assert named == after((), arguments="https://api.openai.com").attribution
    assert named is not None
    assert [one.strength for one in named.evidence] == [Strength.OBSERVED]


def test_what_is_only_declared_is_not_used() -> None:
    """The container is given the key: a process of it that cleared its environment and asks for the host has not."""
    process = Process("a", environment=())
    process.pod = Pod("ml", "chat-0", service_account="chat")
    process.placement = Placement(None, Declared({"PAY": SecretKey("ml", "pay", "key")}))
    process.reached = ("api.stripe.com",)
    named = mapping("stripe-prod", "PAY", "api.stripe.com", secrets=[{"namespace": "ml", "name": "pay"}])
    found = IdentityMatcher((named,)).attribute(process)
    assert [(one.identity_id, one.kind, one.strength) for one in found.evidence] == [
        ("stripe-prod", EvidenceKind.SECRET, Strength.DECLARED)
    ]


def test_a_service_account_is_used_by_any_process_of_its_pod() -> None:
    """What asks the host that takes the account does so as the account: no process has to fetch it from elsewhere."""
    process = Process("a", environment=())
    process.pod = Pod("ml", "chat-0", service_account="chat")
    process.placement = Placement(None, Declared({}))
    process.reached = ("vault.internal",)
    named = mapping("chat", "PAY", "vault.internal", serviceAccounts=[{"namespace": "ml", "name": "chat"}])
    found = IdentityMatcher((named,)).attribute(process)
    assert {(one.identity_id, one.kind, one.strength) for one in found.evidence} == {
        ("chat", EvidenceKind.SERVICE_ACCOUNT, Strength.USED),
        ("chat", EvidenceKind.SERVER_NAME, Strength.USED),
    }


def test_a_providers_host_takes_its_credentials() -> None:
    """The shipped provider's host counts for a variable that only the provider knows."""
    attribution = after(("api.openai.com",), "OPENAI_API_KEY").attribution
    assert attribution is not None
    assert attribution.primary is not None
    assert (attribution.primary.identity_id, attribution.primary.strength) == (
        "openai_api_key-present",
        Strength.USED,
    )
