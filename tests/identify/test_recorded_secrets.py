"""Identities of the recorded cluster's windows: own keys by their Secrets, the stolen one as undeclared."""

from functools import cache

import pytest

from enrich.recorded_cluster import Placed, placed
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.detect import Engine
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import Attribution, EvidenceKind
from keytrail.domain.rules import Maturity
from keytrail.export.attributes import IDENTITY
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from rules.report import UNLIMITED, shipped_rules
from support.recordings import labels, window

RULES = {"credential-not-declared", "forged-container-identity", "unknown-container-connects-out"}
Found = tuple[tuple[Placed, Attribution], ...]


@cache
def identified(*, bare: bool) -> tuple[Found, tuple[Finding, ...]]:
    """Each event with the attribution that its process had then, and what the rules above say."""
    matcher = IdentityMatcher([], load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    chosen = [rule for rule in shipped_rules() if rule.name in RULES]
    assert len(chosen) == len(RULES)
    engine = Engine.load(chosen, maturities=tuple(Maturity), budget=UNLIMITED)
    attributions: list[Attribution] = []
    findings: list[Finding] = []

    def then(event: Event) -> None:
        matcher.identify(event)
        assert event.process.attribution is not None
        attributions.append(event.process.attribution)
        findings.extend(engine.detect(event))

    events = placed("kubernetes", bare=bare, then=then)
    assert not engine.failures
    return tuple(zip(events, attributions, strict=True)), tuple(one for one in findings if not one.suppressed)


def in_window(name: str, *, bare: bool) -> Found:
    """What bears a container's id between a window's marks."""
    found = window("kubernetes", name)
    inside = range(found["stream_first"], found["stream_last"] + 1)
    return tuple(
        one for one in identified(bare=bare)[0] if one[0].number in inside and one[0].event.process.container_id
    )


@pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
def test_every_window_with_a_key_has_its_identity(bare: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Each process with a key of its own shows the Secret that its spec takes it from; the table is printed."""
    rows = []
    for one in labels("kubernetes")["windows"]:
        key = one.get("key")
        if key is None or key["use"].startswith("stolen"):
            continue
        namespace, secret = key["secret"].split("/")
        events = in_window(one["name"], bare=bare)
        right = 0
        for _, attribution in events:
            evidence = next(item for item in attribution.evidence if item.name == key["var"])
            assert evidence.secret is not None
            right += (evidence.secret.namespace, evidence.secret.name) == (namespace, secret)
            right -= any(item.undeclared for item in attribution.evidence)
        rows.append((one["name"], f"{key['secret']} {key['var']}", evidence.identity_id, len(events), right))
    with capsys.disabled():
        print("\nwindow               expected                            identity                  events  right")  # noqa: T201 - the table is the point
        for name, expected, identity, count, right in rows:
            print(f"{name:<20} {expected:<35} {identity:<40} {count:>4} {right:>6}")  # noqa: T201 - as above
    assert len(rows) == 6
    assert all(row[3] == row[4] > 0 for row in rows)


@pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
def test_stolen_key_is_undeclared_and_a_finding(bare: bool) -> None:
    """The Stripe key of payments in a pod of ml names the identity, is marked, and is found; nobody else's is."""
    stolen = in_window("stolen-key", bare=bare)
    with_key = [found for one, found in stolen if one.event.process.name == "curl"]
    assert len(with_key) == 108
    for found in with_key:
        assert found.primary is not None
        assert (found.primary.name, found.primary.undeclared) == ("STRIPE_API_KEY", True)
        assert [item.name for item in found.evidence if item.undeclared] == ["STRIPE_API_KEY"]
    others = [found for one, found in identified(bare=bare)[0] if not any(one is own for own, _ in stolen)]
    assert [item for found in others for item in found.evidence if item.undeclared] == []
    findings = [one for one in identified(bare=bare)[1] if one.rule.name == "credential-not-declared"]
    assert [one.event.process.name for one in findings] == ["curl"]  # the second one of the same shell is a repeat
    assert "ml/chat-api-059234886d-5883f" in findings[0].message


@pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
def test_forged_process_has_none_of_the_pods_identities(bare: bool) -> None:
    """It is not given the Secrets of the pod whose id it bears, and it is found."""
    forged = in_window("forged-cgroup", bare=bare)
    assert len(forged) == 47
    assert [item for _, found in forged for item in found.evidence if item.secret or item.undeclared] == []
    kinds = {item.kind for _, found in forged for item in found.evidence}
    assert not kinds & {EvidenceKind.SECRET, EvidenceKind.SERVICE_ACCOUNT}
    findings = [one for one in identified(bare=bare)[1] if one.rule.name == "forged-container-identity"]
    assert len(findings) == 1
    assert "claims to run in ml/chat-api-059234886d-5883f" in findings[0].message


def test_mounted_secret_that_is_opened() -> None:
    """Who reads /etc/stripe/api-key is seen with the Secret's key, the application and the shell's cat alike."""
    for name, program in (("checkout-stripe", "python3"), ("stripe-file-other-process", "cat")):
        files = {
            (one.event.process.name, item.identity_id)
            for one, found in in_window(name, bare=True)
            for item in found.evidence
            if item.kind is EvidenceKind.FILE
        }
        assert files == {(program, "secret/payments/stripe/api-key")}


def test_token_that_is_read_names_the_service_account() -> None:
    """The shell's cat of the token is evidence for the ServiceAccount, observed."""
    files = {
        item.identity_id
        for _, found in in_window("sa-token-read", bare=True)
        for item in found.evidence
        if item.kind is EvidenceKind.FILE
    }
    assert files == {"service-account/ml/chat-api"}


def test_service_accounts_and_their_roles() -> None:
    """A container without keys acts as its ServiceAccount, and as the role in a cloud that its annotations name."""
    shipper = in_window("trainer-sidecar", bare=True)
    assert {found.primary and found.primary.identity_id for _, found in shipper} == {
        "arn:aws:iam::000000000000:role/ml-trainer-not-real"
    }
    report = in_window("report-job", bare=True)
    assert {found.primary and found.primary.provider for _, found in report} == {"gcp"}
    debug = in_window("debug-exec", bare=True)
    assert {found.primary and found.primary.identity_id for _, found in debug} == {"service-account/default/default"}


def test_records_name_the_secret() -> None:
    """`keytrail.credential.secret.*` and `keytrail.credential.undeclared` are on the records."""
    rows = {name: value for name, _, _, value in IDENTITY.rows if name.startswith("keytrail.credential.")}

    def values(attribution: Attribution) -> dict[str, object]:
        return {name: value(attribution) for name, value in rows.items() if not isinstance(value, str)}

    own = values(in_window("checkout-stripe", bare=False)[-1][1])
    assert own["keytrail.credential.secret.namespace"] == "payments"
    assert own["keytrail.credential.secret.name"] == "stripe"
    assert own["keytrail.credential.secret.key"] == "api-key"
    assert own["keytrail.credential.undeclared"] == ()
    stolen = next(found for one, found in in_window("stolen-key", bare=False) if one.event.process.name == "curl")
    assert values(stolen)["keytrail.credential.undeclared"] == ("STRIPE_API_KEY",)
    assert values(stolen)["keytrail.credential.secret.name"] is None
