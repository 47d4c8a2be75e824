"""The custom resources in a real API server: it takes what is right, keeps what may not change and shows the rest."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keytrail.domain import crds
from keytrail.domain.crds import Kind, crd_of
from keytrail.domain.resources import API_VERSION, KINDS
from keytrail.domain.shape import read
from keytrail.yaml_documents import parse_documents, read_documents
from support.components.control_plane import ControlPlane
from support.custom_resources import (
    KIND,
    NAMES,
    NAMESPACE,
    ROOT,
    SECONDS,
    SPECS,
    Manifest,
    Server,
    folder_says,
    manifest_of,
    message,
    served,
)
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[Server]:
    """The API server with the definitions."""
    with served(control_plane) as found:
        yield found


# -- what is right


@pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.name)
def test_definition_is_understood(server: Server, kind: Kind) -> None:
    """Each definition is in force, structural, and the API server kept every word of its schema."""
    found = server.plane.get("crd", f"{kind.plural}.{crds.GROUP}")
    conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert found["spec"]["versions"] == crd_of(kind)["spec"]["versions"]


@pytest.mark.parametrize("kind", SPECS)
def test_full_manifest(server: Server, kind: str, tmp_path: Path) -> None:
    """A manifest that uses every field is taken by both."""
    assert folder_says(manifest_of(kind), tmp_path) == ""
    assert server.refusal(manifest_of(kind)) == ""


def _shipped() -> Iterator[tuple[str, Manifest]]:
    files = sorted(path for folder in ("rules", "identities") for path in (ROOT / "policies" / folder).glob("*.yaml"))
    for file in files:
        yield from ((file.name, document.data) for document in read_documents(file))
    for page in sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("policies/**/*.md")]):
        for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", page.read_text()):
            if re.search(r"(?m)^kind: (IdentityMapping|ClusterIdentityMapping|DetectionRule|PolicyLibrary)$", block):
                yield from ((page.name, document.data) for document in parse_documents(block, page.name))


def test_all_that_is_shipped_applies(server: Server) -> None:
    """Every shipped rule and mapping and every example of the pages is taken, and means the same when it comes back."""
    shipped = list(_shipped())
    assert len(shipped) > 150
    for name, manifest in shipped:
        answer = server.create(manifest)
        assert answer.ok, f"{name}: {answer.text}"
        shape = KINDS[manifest["kind"]]
        assert read(shape, answer.json()) == read(shape, manifest), name


# -- changes


def test_the_id_stays(server: Server) -> None:
    """No change, removal or addition gives an identity another id; what means the same may be written either way."""
    fixed = "the id of an identity cannot be changed"
    for name, identity_id, same in (("crds-named", "openai-prod", False), ("crds-unnamed", "", True)):
        manifest = manifest_of("IdentityMapping")
        manifest["metadata"]["name"] = name
        manifest["spec"]["identity"] = {"id": identity_id} if identity_id else {}
        assert server.apply(manifest, "test", dry=False).ok
        for changed_to, ok in (({"id": "other"}, False), ({}, same), ({"id": name}, same), (None, same)):
            manifest["spec"].pop("identity", None)
            manifest["spec"] |= {} if changed_to is None else {"identity": changed_to}
            answer = message(server.replace(manifest))
            assert (answer == "") is ok, (name, changed_to, answer)
            assert ok or f"spec.identity.id: Invalid value: {fixed}" in answer


def test_several_hands(server: Server) -> None:
    """Server-side apply: two managers tune two rules of one library, and a third who takes one over is told."""
    library = {"apiVersion": API_VERSION, "kind": "PolicyLibrary", "metadata": {"name": "default"}}

    def tuned(name: str, severity: str) -> Manifest:
        return {**library, "spec": {"rules": {"tune": [{"name": name, "severity": severity}]}}}

    assert server.apply(tuned("a", "low"), "one", dry=False).ok
    assert server.apply(tuned("b", "high"), "two", dry=False).ok
    found = server.plane.get("plib", "default")["spec"]["rules"]["tune"]
    assert {item["name"]: item["severity"] for item in found} == {"a": "low", "b": "high"}
    answer = message(server.apply(tuned("a", "critical"), "three"))
    assert 'conflict with "one": .spec.rules.tune[name="a"].severity' in answer
    server.plane.kubectl("delete", "plib", "default")


# -- what people see


def test_kubectl_get(server: Server) -> None:
    """Short names, the category and columns that say whether an object works."""
    ready = {"type": "Ready", "status": "True", "reason": "InForce", "lastTransitionTime": "2026-11-22T14:06:35Z"}
    statuses: dict[str, Manifest] = {
        "IdentityMapping": {"conditions": [ready], "identityId": "crds/openai-prod", "workloadsUsing": 2},
        "ClusterIdentityMapping": {"conditions": [ready], "identityId": "openai-prod", "workloadsUsing": 2},
        "DetectionRule": {"conditions": [ready], "findings24h": 4},
        "PolicyLibrary": {"conditions": [ready], "rules": {"enabled": 98, "failing": 0}},
        "CollectorStatus": SPECS["CollectorStatus"],
    }
    expected = {
        "IdentityMapping": r"NAME +IDENTITY +PROVIDER +READY +WORKLOADS +USED +AGE\n"
        r"crds-full +crds/openai-prod +openai +True +2 +\S+\n",
        "ClusterIdentityMapping": r"NAME +IDENTITY +PROVIDER +READY +WORKLOADS +USED +AGE\n"
        r"crds-full +openai-prod +openai +True +2 +\S+\n",
        "DetectionRule": r"NAME +SEVERITY +MATURITY +READY +SENSORS +FINDINGS +AGE\n"
        r"crds-full +high +stable +True +4 +\S+\n",
        "PolicyLibrary": r"NAME +MODE +READY +RULES +FAILING +AGE\ndefault +listed +True +98 +0 +\S+\n",
        "CollectorStatus": r"NAME +VERSION +TETRAGON +POLICIES +EVENTS/S +LOST +LAG +BACKEND +SEEN +AGE\n"
        r"crds-1 +0\.2\.0 +v1\.7\.0 +5/6 +300 +0 +1s +Delivering +\S+ +\S+\n",
    }
    for kind in crds.KINDS:
        manifest = manifest_of(kind.name)
        manifest.pop("status", None)
        assert server.apply(manifest, "test", dry=False).ok
        manifest.pop("spec", None)
        status = {**manifest, "status": statuses[kind.name]}
        assert server.apply(status, "test", dry=False, part="/status", force="true").ok
        shown = server.plane.kubectl("get", kind.short, manifest["metadata"]["name"], f"--namespace={NAMESPACE}")
        assert re.fullmatch(expected[kind.name], shown), shown
    listed = server.plane.kubectl("get", "keytrail", "--output=name", f"--namespace={NAMESPACE}")
    assert {line.partition(".")[0] for line in listed.split()} == {kind.name.lower() for kind in crds.KINDS}
    selected = server.plane.kubectl("get", "drule", "--field-selector=spec.severity=high", "--output=name")
    assert "detectionrule.keytrail.io/crds-full" in selected.split()
    for kind in crds.KINDS[:-1]:
        server.plane.kubectl("delete", kind.short, NAMES.get(kind.name, "crds-full"), f"--namespace={NAMESPACE}")


def test_kubectl_explain(server: Server) -> None:
    """The documentation of every field is what `kubectl explain` reads, and it shows it."""

    def published() -> dict[str, Any]:
        answer = server.session.get(f"{server.plane.url}/openapi/v3/apis/{API_VERSION}", timeout=30)
        schemas = answer.json()["components"]["schemas"] if answer.ok else {}
        return {name.rpartition(".")[2]: schema for name, schema in schemas.items()}

    # The API server publishes a changed definition a moment after it serves it.
    assert wait_until(lambda: set(KIND) <= set(published()), SECONDS)
    for name, schema in published().items():
        if name in KIND:
            ours = crd_of(KIND[name])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
            for part in set(ours) - {"metadata"}:
                assert descriptions(schema["properties"][part]) == descriptions(ours[part])
    shown = " ".join(server.plane.kubectl("explain", "idm.spec.evidence.env.pattern").split())
    assert "Expression in RE2's syntax that the whole name of a variable must match." in shown
    assert "Example: OPENAI_.*_KEY" in shown


def descriptions(schema: Any) -> list[str]:
    """Return all descriptions in a schema, in order."""
    if isinstance(schema, list):
        return [found for one in schema for found in descriptions(one)]
    if not isinstance(schema, dict):
        return []
    own = [schema["description"]] if isinstance(schema.get("description"), str) else []
    return own + [found for name in sorted(schema) for found in descriptions(schema[name])]
