"""Mappings, rules and fingerprints on a real API server, by the operator as a process under the chart's own rights."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from cluster.operator.release import NAMESPACE, OPERATOR, Release
from keytrail.detect.library import load_rules
from keytrail.domain.fingerprint import Book, read, write
from keytrail.kube.api import Api
from keytrail.manifests import builtin_folder
from keytrail.tracing import sensors
from keytrail_operator.actions import Action
from keytrail_operator.reconcile.mapping_checks import Seen
from keytrail_operator.reconcile.mappings import mappings
from keytrail_operator.reconcile.rules import rules
from keytrail_operator.stores import Stores
from support.canaries import generate
from support.commands import keytrail
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok", "helm"), pytest.mark.timeout(600)]
GROUP = "/apis/keytrail.io/v1alpha1"
STATUSES = f"{GROUP}/collectorstatuses"
SECRET_COUNT = 500
SECONDS = 240.0
Json = dict[str, Any]
Programs = Callable[[str], Path]
NAMES = [f"s{number:03}" for number in range(SECRET_COUNT)]


@pytest.fixture(scope="module")
def release(
    objects_plane: ControlPlane, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    """The operator with fingerprints on, for 500 Secrets of the namespace ml."""
    objects_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    folder = tmp_path_factory.mktemp("objects-release")
    secrets = "fingerprints.secrets[0]"
    values = ("fingerprints.enabled=true", f"{secrets}.namespace=ml", f"{secrets}.names={{{','.join(NAMES)}}}")
    with Release(objects_plane, programs("helm") / "helm", folder, *values) as installed:
        yield installed


def path(plural: str, name: str = "", namespace: str = "", part: str = "") -> str:
    """Where our kinds are."""
    steps = [GROUP, *(("namespaces", namespace) if namespace else ()), plural, name, part]
    return "/".join(filter(None, steps))


def apply(release: Release, kind: str, name: str, spec: Json, *, namespace: str = "") -> None:
    """Have an object."""
    plural = f"{kind.lower()}s"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body = {"apiVersion": "keytrail.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    release.admin.apply(path(plural, name, namespace), body)


def cluster_mapping(release: Release, name: str, evidence: Json, **more: Any) -> None:
    """Have a mapping of the cluster."""
    apply(release, "ClusterIdentityMapping", name, {"evidence": evidence, **more})


def report(release: Release, node: str, **status: Any) -> None:
    """Write the CollectorStatus of a node, as its collector would."""
    head: Json = {"apiVersion": "keytrail.io/v1alpha1", "kind": "CollectorStatus", "metadata": {"name": node}}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    captured = {"type": "EnvironmentCaptured", "status": "True", "reason": "Captured", "lastTransitionTime": now}
    said = {"heartbeatTime": now, "version": "1.0", "conditions": [captured], **status}
    release.admin.apply(f"{STATUSES}/{node}", head)
    release.admin.apply(f"{STATUSES}/{node}/status", {**head, "status": said})


def status_of(release: Release, plural: str, name: str, namespace: str = "") -> Json:
    """The status of an object; empty when there is none."""
    found = release.admin.get(path(plural, name, namespace)) or {}
    status: Json = found.get("status", {})
    return status


def condition(status: Json, type_: str) -> tuple[str, str]:
    """Status and reason."""
    found = next((one for one in status.get("conditions", ()) if one["type"] == type_), {})
    return found.get("status", ""), found.get("reason", "")


def wanted_afresh(release: Release) -> list[Action]:
    """What reconcilers without any memory would do now: nothing, once all has converged."""
    shipped, _ = load_rules(builtin_folder() / "rules", sensors=sensors())
    api = Api.open(release.plane.kubeconfig, "", {})
    stores = Stores(lambda: None, shipped_rules=shipped, sensors=sensors(), owner_name=OPERATOR)
    assert stores.look(api, time.time())
    api.close()
    found: list[Action] = []
    for one in (mappings(lambda _: Seen()), rules()):
        found += one.reconcile(stores.world(), one.begins_with, time.time()).actions
    return found


def told(release: Release) -> list[Json]:
    """The Events about mappings."""
    items: list[Json] = release.admin.get("/api/v1/events", fieldSelector="source=keytrail-operator")["items"]
    return items


@pytest.fixture(autouse=True)
def _cleaned(release: Release) -> Iterator[None]:
    """No objects and no operator are left behind."""
    yield
    release.stop()
    places = [path(one) for one in ("clusteridentitymappings", "detectionrules", "collectorstatuses")]
    for at in (*places, path("identitymappings", namespace="ml")):
        assert release.admin.ask("DELETE", at).ok
        assert wait_until(lambda at=at: not release.admin.get(at)["items"], SECONDS)


def test_what_is_wrong_is_said_in_the_object(release: Release) -> None:
    """Two that claim one variable, a ServiceAccount and a Secret that are not there; mended, all is well."""
    report(release, "n1", identities=[{"id": "one", "lastUsed": "2026-11-22T14:06:35Z", "workloads": ["ml/Job/a"]}])
    cluster_mapping(release, "one", {"env": [{"name": "K"}]})
    cluster_mapping(release, "two", {"env": [{"name": "K"}]})
    cluster_mapping(release, "lonely", {"serviceAccounts": [{"namespace": "ml", "name": "nobody"}]})
    apply(release, "IdentityMapping", "waits", {"evidence": {"secrets": [{"name": "none"}]}}, namespace="ml")
    apply(release, "DetectionRule", "wrong", rule("process.nme == 'x'"))
    apply(release, "DetectionRule", "right", rule("process.name == 'x'"))
    pod(release, "waiting", "none")
    release.start(*flags())

    def is_so(expected: dict[tuple[str, str], tuple[str, str, str]]) -> bool:
        return all(
            condition(status_of(release, plural, name, "ml" if plural == "identitymappings" else ""), type_)
            == (status, reason)
            for (plural, name), (type_, status, reason) in expected.items()
        )

    wrong = {
        ("clusteridentitymappings", "one"): ("Unambiguous", "False", "ClaimedTwice"),
        ("clusteridentitymappings", "two"): ("Ready", "False", "ClaimedTwice"),
        ("clusteridentitymappings", "lonely"): ("Ready", "False", "ServiceAccountMissing"),
        ("identitymappings", "waits"): ("SecretsResolved", "False", "SecretMissing"),
        ("detectionrules", "wrong"): ("Ready", "False", "InvalidCondition"),
        ("detectionrules", "right"): ("Ready", "True", "InForce"),
    }
    assert wait_until(lambda: is_so(wrong), SECONDS), release.plane.kubectl("get", "keytrail", "-A", "-o", "yaml")
    status = status_of(release, "clusteridentitymappings", "one")
    assert (status["workloadsUsing"], status["nodesReporting"], status["lastUsed"]) == (1, 1, "2026-11-22T14:00:00Z")
    assert wait_until(lambda: {one["involvedObject"]["name"] for one in told(release)} >= {"one", "lonely"}, SECONDS)
    assert all(release.plane.kubectl("get", "cidm", "--sort-by=.status.lastUsed").split())
    cluster_mapping(release, "two", {"env": [{"name": "K"}]}, priority=5)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": "ml"}}
    release.plane.apply(account)
    release.plane.kubectl("delete", "pod", "waiting", "--namespace=ml", "--force")
    mended = {
        ("clusteridentitymappings", "one"): ("Ready", "True", "InForce"),
        ("clusteridentitymappings", "two"): ("Ready", "True", "InForce"),
        ("clusteridentitymappings", "lonely"): ("Ready", "True", "InForce"),
        ("identitymappings", "waits"): ("SecretsResolved", "Unknown", "NotPermitted"),
    }
    assert wait_until(lambda: is_so(mended), SECONDS)


def rule(text: str) -> Json:
    """The spec of a rule."""
    return {
        "title": "T", "description": "D", "severity": "low", "maturity": "stable", "events": ["exec"],
        "condition": text, "message": "m",
    }  # fmt: skip


def pod(release: Release, name: str, secret: str) -> None:
    """A Pod of which the kubelet says that it waits for a Secret."""
    reference = {"secretKeyRef": {"name": secret, "key": "k"}}
    container = {"name": "app", "image": "app", "env": [{"name": "K", "valueFrom": reference}]}
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ml"},
        "spec": {"containers": [container]},
    }  # fmt: skip
    release.plane.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace=ml", "--timeout=60s")
    assert release.admin.ask("POST", "/api/v1/namespaces/ml/pods", body).ok
    waiting = {"reason": "CreateContainerConfigError", "message": f'secret "{secret}" not found'}
    statuses = [
        {"name": "app", "image": "app", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    ]
    status = {"status": {"phase": "Pending", "containerStatuses": statuses}}
    assert release.admin.merge(f"/api/v1/namespaces/ml/pods/{name}/status", status).ok


def flags() -> list[str]:
    """How the chart starts it where fingerprints are on."""
    return ["--fingerprint-secrets=" + ",".join(f"ml/{name}" for name in NAMES)]


def test_a_thousand_mappings_and_two_hundred_rules(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """They get what a fresh computation wants, killed in between; then a quiet cluster is written nothing."""
    uses = [{"id": f"m{number:04}", "lastUsed": "2026-11-22T14:06:35Z"} for number in range(200)]
    for node in range(5):
        report(release, f"n{node}", identities=uses, rules=[{"name": "r000", "findings24h": 2}])
    for number in range(1000):
        cluster_mapping(release, f"m{number:04}", {"env": [{"name": f"K{number // 2 if number < 40 else number}"}]})
    for number in range(200):
        apply(release, "DetectionRule", f"r{number:03}", rule(f"process.uid == {number}"))
    began = time.monotonic()
    release.start(wait=False)
    assert wait_until(lambda: len(writes(release)) > 300, SECONDS)
    assert release.process is not None
    release.process.kill()
    release.start(wait=False)
    assert wait_until(lambda: not wanted_afresh(release), SECONDS), str(wanted_afresh(release)[:3])
    seconds = time.monotonic() - began
    assert condition(status_of(release, "clusteridentitymappings", "m0003"), "Ready") == ("False", "ClaimedTwice")
    assert condition(status_of(release, "clusteridentitymappings", "m0999"), "Ready") == ("True", "InForce")
    assert status_of(release, "detectionrules", "r000")["findings24h"] == 10
    before, asked = len(writes(release)), len(release.audit())
    # A heartbeat that says nothing new, and some runs of the operator.
    for node in range(5):
        report(release, f"n{node}", identities=uses, rules=[{"name": "r000", "findings24h": 2}])
    runs = release.metrics()["keytrail_operator_runs_total"]
    assert wait_until(lambda: release.metrics()["keytrail_operator_runs_total"] > runs, SECONDS)
    assert [one["objectRef"] for one in writes(release)[before:]] == []
    assert [one for one in release.audit() if one["responseStatus"]["code"] == 403] == []
    with capsys.disabled():
        print(f"\n1,000 mappings, 200 rules, one kill: {seconds:.1f} s, {before} writes, {asked} requests")  # noqa: T201 - the figures are for the reader


def writes(release: Release) -> list[Json]:
    """What the operator wrote to the objects of this test."""
    kinds = {"clusteridentitymappings", "identitymappings", "detectionrules", "events", "secrets"}
    return [one for one in release.writes() if one["objectRef"]["resource"] in kinds]


def test_no_value_of_500_secrets_anywhere(release: Release) -> None:
    """Their fingerprints are published, and no value is in any object, Event, metric, log or audited request."""
    canaries = generate(11, SECRET_COUNT)
    for name, canary in zip(NAMES, canaries, strict=True):
        encoded = base64.b64encode(canary.value.encode()).decode()
        metadata = {"name": name, "namespace": "ml"}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"key": encoded}}
        assert release.admin.ask("POST", "/api/v1/namespaces/ml/secrets", body).ok
    named = [{"namespace": "ml", "name": name} for name in NAMES]
    for start in range(0, SECRET_COUNT, 50):
        cluster_mapping(release, f"c{start}", {"secrets": named[start : start + 50]})
    cluster_mapping(release, "lacks", {"secrets": [{"namespace": "ml", "name": "s000", "keys": ["other"]}]})
    report(release, "n1")
    release.start(*flags())
    at = f"/api/v1/namespaces/{NAMESPACE}/secrets/keytrail-fingerprints"
    assert wait_until(lambda: bool(published(release, at).secrets), SECONDS)
    book = published(release, at)
    expected = {
        name: (digest,)
        for name, one in zip(NAMES, canaries, strict=True)
        if (digest := book.keys[0].digest(one.value.encode())) is not None
    }
    assert {secret.name: digests for secret, digests in book.secrets.items()} == expected
    assert len(expected) > 400
    lacks = partial(status_of, release, "clusteridentitymappings", "lacks")
    assert wait_until(lambda: condition(lacks(), "SecretsResolved") == ("False", "KeyMissing"), SECONDS)
    assert wait_until(lambda: any(one["involvedObject"]["name"] == "lacks" for one in told(release)), SECONDS)
    objects = release.plane.kubectl("get", "keytrail,events,configmaps", "-A", "-o", "json")
    pages = "".join(requests.get(release.page(name), timeout=30).text for name in ("metrics", "healthz", "readyz"))
    log = "" if release.process is None else release.process.log
    asked = json.dumps(release.audit())
    shown = f"{objects}\n{pages}\n{log}\n{asked}"
    text = shown + write(book).decode()
    digests = {digest.hex() for found in book.secrets.values() for digest in found}
    assert not [one.shape for one in canaries if any(form in text for form in one.forms() if len(form) > 12)]
    assert not [one for one in digests if one in shown]
    references = [(one["verb"], one.get("objectRef") or {}) for one in release.audit()]
    secrets = {(verb, at.get("name", "")) for verb, at in references if at.get("resource") == "secrets"}
    assert {verb for verb, _ in secrets} <= {"get", "patch", "create"}
    assert {name for verb, name in secrets if verb != "get"} == {"keytrail-fingerprints"}


def published(release: Release, at: str) -> Book:
    """What collectors would mount."""
    found = release.admin.get(at)
    return Book() if found is None else read(base64.b64decode(found["data"]["fingerprints.json"]))


def test_the_command_line_shows_the_same(release: Release) -> None:
    """`keytrail identities` and `keytrail nodes`: tables, JSON and exit codes."""
    used = {"id": "used", "lastUsed": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "workloads": ["ml/Job/a"]}
    report(release, "n1", identities=[used])
    cluster_mapping(release, "used", {"env": [{"name": "A"}]}, identity={"provider": "openai", "owner": "team-ml"})
    cluster_mapping(release, "idle", {"env": [{"name": "B"}]})
    where = ("--kubeconfig", str(release.plane.kubeconfig))
    listing = keytrail("identities", "list", *where)
    assert listing.code == 0, listing.err
    assert "used" in listing.out
    assert "team-ml" in listing.out
    usage = json.loads(keytrail("identities", "usage", "-o", "json", *where).out)
    assert [(one["id"], one["mapping"], one["workloads"], one["nodes"]) for one in usage] == [
        ("used", "used", ["ml/Job/a"], ["n1"])
    ]
    unused = json.loads(keytrail("identities", "unused", "--days", "0", "-o", "json", *where).out)
    assert unused[0]["name"] == "idle"
    assert "nothing found" in keytrail("identities", "unused", "--days", "30", *where).out
    nodes = keytrail("nodes", *where)
    assert nodes.code == 0, nodes.out
    captured = {"type": "EnvironmentCaptured", "status": "False", "reason": "NotCaptured", "message": "do this"}
    report(release, "n1", conditions=[{**captured, "lastTransitionTime": used["lastUsed"]}])
    wrong = keytrail("nodes", *where)
    assert wrong.code == 1
    assert "n1: EnvironmentCaptured: do this" in wrong.out
    assert keytrail("nodes", "--kubeconfig", "missing").code == 2
