"""The charts as Helm renders them.

In: the program `helm`, a chart and values. Out: the objects, and what Helm says of values that it refuses. Knows no
API server.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "deploy" / "helm"
CHART = CHARTS / "keytrail"
FEATURES = sorted([*CHART.glob("ci/*-values.yaml"), *CHART.glob("values-*.yaml")])
"""Values for each feature, and the presets."""
NAMESPACE = "sensors"
Json = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """One `helm`, which keeps what it keeps in a folder of the test's."""

    program: Path
    home: Path

    def run(self, *arguments: str | Path, fails: bool = False) -> str:
        """Run it; return what it printed, or with `fails` what it complained of."""
        environ = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        ran = subprocess.run(
            [self.program, *arguments], check=False, capture_output=True, text=True, timeout=300, env=environ
        )
        assert bool(ran.returncode) is fails, ran.stdout + ran.stderr
        return ran.stderr if fails else ran.stdout

    def render(self, *options: str | Path, chart: Path = CHART, release: str = "keytrail") -> list[Json]:
        """Every object of a chart, hooks and all."""
        return objects(self.run("template", release, chart, "--namespace", NAMESPACE, *options))


def objects(text: str) -> list[Json]:
    """The objects in YAML documents, by the parser in C where there is one: definitions have thousands of lines."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [found for found in yaml.load_all(text, Loader=loader) if found]


def one(found: list[Json], kind: str, name: str = "") -> Json:
    """The only object of a kind, or of that name's end."""
    (only,) = (each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(name))
    return only


def pods(found: list[Json]) -> Iterator[tuple[str, Json]]:
    """Name and spec of everything that runs."""
    for each in found:
        if each["kind"] in {"DaemonSet", "Deployment"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]


def settings_of(found: list[Json]) -> Json:
    """The collector's settings file."""
    return dict(yaml.safe_load(one(found, "ConfigMap", "collector")["data"]["settings.yaml"]))


def environ_of(container: Json, fields: dict[str, str]) -> dict[str, str]:
    """A container's environment as the kubelet makes it, given what the fields of its pod say."""
    environ: dict[str, str] = {}
    for variable in container["env"]:
        value = variable.get("value", "")
        if "valueFrom" in variable:
            value = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for name, before in environ.items():
            value = value.replace(f"$({name})", before)
        environ[variable["name"]] = value
    return environ


def as_set(rule: Json) -> set[tuple[str, str]]:
    """What a rule of a role allows, as (resource, verb)."""
    return {
        (f"{resource}.{group}".rstrip("."), verb)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def dumped(found: list[Json]) -> str:
    """Objects as kubectl takes them from standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": found})
