"""Equal fingerprints become evidence, and a finding where a credential is outside of its Secret; values stay inside."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from keytrail.configuration import load_configuration
from keytrail.decode.redact import Redactor
from keytrail.detect import Engine
from keytrail.domain.declared import SecretKey
from keytrail.domain.errors import ManifestError
from keytrail.domain.event import Event
from keytrail.domain.fingerprint import Book, ClusterKey, write
from keytrail.domain.identity import EvidenceKind, Strength
from keytrail.domain.pod_facts import pod_facts
from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import read
from keytrail.export.finding_line import finding_line
from keytrail.export.json_line import event_line
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import builtin_folder, load_builtin_identities
from keytrail.settings import Settings
from keytrail.yaml_documents import read_documents
from support.canaries import generate
from support.fingerprints import KEY, OPENAI, VALUE, book, decoder, mapping, place, started

RULE = "credential-outside-its-secret"
PUBLISHED = book({OPENAI: VALUE})


def identified(event: Event, published: Book, *mappings: ClusterIdentityMapping) -> Event:
    """The event, its process attributed."""
    matcher = IdentityMatcher(mappings, load_builtin_identities(), fingerprints=published)
    matcher.identify(event)
    return event


def findings(event: Event) -> Sequence[str]:
    """What the shipped rule says, as JSON lines."""
    return [finding_line(one) for one in Engine.load([shipped_rule()], None).detect(event)]


@cache
def shipped_rule() -> DetectionRule:
    """The rule of the library."""
    [document] = read_documents(builtin_folder() / "rules" / f"{RULE}.yaml")
    made, faults = read(DetectionRule, document.data)
    assert made is not None, faults
    return made


def test_the_same_value_is_proof() -> None:
    """A variable of any name with the Secret's value is verified evidence, and names the primary identity."""
    event = started(decoder(PUBLISHED, mapping()), {"LLM_ACCESS": VALUE, "STRIPE_API_KEY": "sk_live_other"})
    place(event, "ml", "openai")
    attribution = identified(event, PUBLISHED, mapping()).process.attribution
    assert attribution is not None
    primary = attribution.primary
    assert primary is not None
    assert (primary.kind, primary.strength, primary.identity_id, primary.name, primary.secret) == (
        EvidenceKind.FINGERPRINT, Strength.VERIFIED, "openai-prod", "LLM_ACCESS", OPENAI,
    )  # fmt: skip
    assert not primary.outside_secret
    assert findings(event) == []


def test_another_value_proves_nothing() -> None:
    """A variable that the mapping names, with another value, stays observed."""
    event = started(decoder(PUBLISHED, mapping()), {"LLM_ACCESS": VALUE[::-1]})
    place(event, "batch")
    attribution = identified(event, PUBLISHED, mapping()).process.attribution
    assert attribution is not None
    assert {one.strength for one in attribution.evidence} == {Strength.OBSERVED}
    assert findings(event) == []


@pytest.mark.parametrize(("namespace", "secrets"), [("batch", ()), ("batch", ("openai",)), ("ml", ("other",))])
def test_a_secret_in_a_pod_that_is_not_given_it_is_a_finding(namespace: str, secrets: tuple[str, ...]) -> None:
    """No container of the pod is given the Secret; one of the same name in another namespace is another one."""
    event = started(decoder(PUBLISHED, mapping()), {"SOME_TOKEN": VALUE})
    place(event, namespace, *secrets)
    found = [json.loads(line) for line in findings(identified(event, PUBLISHED, mapping()))]
    assert [(one["rule"], one["severity"], one["identity"]["id"]) for one in found] == [
        (RULE, "critical", "openai-prod")
    ]
    assert found[0]["credential"]["name"] == "SOME_TOKEN"


def test_a_pod_that_nobody_knows_is_not_judged() -> None:
    """Without the Pod's spec nobody can say what it is given: verified, and no finding."""
    event = started(decoder(PUBLISHED, mapping()), {"SOME_TOKEN": VALUE})
    place(event, "batch", known=False)
    assert findings(identified(event, PUBLISHED, mapping())) == []


def test_copies_of_a_secret_count_as_the_one_that_the_pod_is_given() -> None:
    """Two Secrets with one value, both named: a pod that is given one of them is where it belongs."""
    copy = SecretKey("batch", "openai-copy", "key")
    published = book({OPENAI: VALUE, copy: VALUE})
    event = started(decoder(published), {"SOME_TOKEN": VALUE})
    place(event, "batch", "openai-copy")
    attribution = identified(event, published).process.attribution
    assert attribution is not None
    proved = [one for one in attribution.evidence if one.kind is EvidenceKind.FINGERPRINT]
    assert [(one.secret, one.identity_id, one.outside_secret) for one in proved] == [(copy, copy.identity_id, False)]
    assert findings(event) == []


def test_what_was_fingerprinted_by_the_key_before_still_counts() -> None:
    """The book holds both keys' fingerprints while they overlap, so that a process older than the rotation is known."""
    event = started(decoder(PUBLISHED), {"SOME_TOKEN": VALUE})
    place(event, "batch")
    renewed = ClusterKey("2026-12-22T14:00:00Z", bytes(32))
    digests = tuple(one for one in (renewed.digest(VALUE.encode()), KEY.digest(VALUE.encode())) if one is not None)
    assert len(findings(identified(event, Book((renewed, KEY), {OPENAI: digests})))) == 1


def test_each_container_knows_what_its_pod_is_given() -> None:
    """Containers share volumes: what one is given another may have; pull secrets are the kubelet's alone."""
    raw = {
        "metadata": {"namespace": "ml", "name": "chat-0", "uid": "u"},
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
            "initContainers": [{"name": "init", "volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}],
            "containers": [
                {"name": "app", "envFrom": [{"secretRef": {"name": "db"}}]},
                {
                    "name": "side",
                    "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "api-key"}}}],
                },
                {"name": "bare"},
            ],
        },
    }
    pod = pod_facts(raw)
    assert {one.declared.secrets_of_pod for one in pod.containers} == {frozenset({"tls", "db", "openai"})}


# -- the file


def settings(folder: Path) -> Settings:
    """Settings with a file of fingerprints."""
    (folder / "manifests").mkdir(exist_ok=True)
    return Settings(config=folder / "manifests", fingerprints_file=folder / "fingerprints.json", rules="none")


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """None at first, then one: that makes another configuration with another matcher, and nothing else does."""
    redact = Redactor().redact
    given = settings(tmp_path)
    first = load_configuration(given, redact, live=False, findings=False)
    assert first.book == Book()
    given.fingerprints_file.write_bytes(write(PUBLISHED))  # type: ignore[union-attr] # it is set
    second = load_configuration(given, redact, live=False, findings=False, previous=first)
    assert second.book == PUBLISHED
    assert second.matcher is not first.matcher
    assert second.digest != first.digest
    again = load_configuration(given, redact, live=False, findings=False, previous=second)
    assert again.matcher is second.matcher


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The reloader then keeps the last good one; the text of the file is nowhere in the message."""
    given = settings(tmp_path)
    given.fingerprints_file.write_bytes(write(PUBLISHED)[:-20])  # type: ignore[union-attr] # it is set
    with pytest.raises(ManifestError, match=r"fingerprints\.json.*no file of fingerprints") as raised:
        load_configuration(given, Redactor().redact, live=False, findings=False)
    assert PUBLISHED.secrets[OPENAI][0].hex() not in str(raised.value)


def test_no_value_and_no_fingerprint_in_what_is_written() -> None:
    """500 Secrets, each in a pod that is not given it: 500 findings, no value, no fingerprint, in whatever form."""
    canaries = [one for one in generate(7, 700) if KEY.digest(one.value.encode()) is not None][:500]
    assert len(canaries) == 500
    published = book({SecretKey("ml", f"s{number}", "key"): one.value for number, one in enumerate(canaries)})
    by = decoder(published)
    matcher = IdentityMatcher((), load_builtin_identities(), fingerprints=published)
    engine = Engine.load([shipped_rule()], None)
    lines = []
    for number, canary in enumerate(canaries):
        event = started(by, {"SOME_TOKEN": canary.value}, pid=1000 + number, container=f"c{number}")
        place(event, "batch")
        matcher.identify(event)
        made = [finding_line(one) for one in engine.detect(event)]
        assert len(made) == 1, canary.shape
        lines += [*made, event_line(event), repr(event.process)]
    text = "\n".join(lines)
    digests = {digest for found in published.secrets.values() for digest in found}
    assert not [one.shape for one in canaries if any(form in text for form in one.forms())]
    assert not [digest for digest in digests if digest.hex() in text or str(digest)[2:-1] in text]
