"""The built-in provider mappings: well formed, and without two answers to one question."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import re2
import yaml

from keytrail.decode.credential_patterns import SHAPES

FOLDER = Path(__file__).parent.parent.parent / "policies" / "identities"
FILES = sorted(FOLDER.glob("*.yaml"))
MANIFESTS = [yaml.safe_load(path.read_text()) for path in FILES]
KINDS = {"env": {"name", "pattern"}, "argv": {"contains"}, "files": {"path"}, "serverNames": None}


@pytest.mark.parametrize(
    ("path", "manifest"), list(zip(FILES, MANIFESTS, strict=True)), ids=[path.stem for path in FILES]
)
def test_each_manifest_has_the_form_of_the_contract(path: Path, manifest: Any) -> None:
    """Kind, label, names and evidence are as the collector reads them, and say one thing three times: the provider."""
    assert (manifest["apiVersion"], manifest["kind"]) == ("keytrail.io/v1alpha1", "ClusterIdentityMapping")
    assert manifest["metadata"] == {"name": path.stem, "labels": {"keytrail.io/builtin": "true"}}
    assert set(manifest["spec"]) - {"priority"} == {"identity", "evidence"}
    assert manifest["spec"]["identity"]["provider"] == path.stem
    assert set(manifest["spec"]["identity"]) == {"kind", "provider"}
    evidence = manifest["spec"]["evidence"]
    assert evidence
    for kind, items in evidence.items():
        keys = KINDS[kind]
        assert items
        assert all(isinstance(item, str) if keys is None else set(item) <= keys and len(item) == 1 for item in items)
    for item in evidence.get("files", ()):
        assert item["path"].startswith("/")
        assert not item["path"].startswith("/var/run")


def test_there_are_providers_enough_and_none_twice() -> None:
    """At least 30 providers, each of one name."""
    assert len({manifest["metadata"]["name"] for manifest in MANIFESTS}) == len(MANIFESTS) >= 30


def test_a_variable_belongs_to_one_provider() -> None:
    """No name is claimed twice, not even by a pattern; patterns are RE2 and match no other provider's name."""
    environment = [item for manifest in MANIFESTS for item in manifest["spec"]["evidence"].get("env", ())]
    names = Counter(item["name"] for item in environment if "name" in item)
    assert [name for name, count in names.items() if count > 1] == []
    for pattern in (re2.compile(item["pattern"]) for item in environment if "pattern" in item):
        assert not [name for name in names if pattern.fullmatch(name)]


def test_what_redaction_finds_has_a_provider() -> None:
    """Shapes begin with the name of the mapping whose keys they are, so that a key in arguments gets its provider."""
    providers = {manifest["metadata"]["name"] for manifest in MANIFESTS}
    named = {name.partition("-")[0] for name, _ in SHAPES}
    assert {
        "openai",
        "anthropic",
        "aws",
        "azure",
        "gcp",
        "github",
        "gitlab",
        "slack",
        "stripe",
        "npm",
        "pypi",
        "dockerhub",
    } <= named & providers
    assert len(named & providers) >= 40
