"""What of the chart can be checked without Helm: everything that is made from something else is as it would be made."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from chart.rendering import CHART, CHARTS, FEATURES, ROOT
from keytrail import __version__
from keytrail.diagnosis import FIELD_FILTER
from keytrail.observe.exposition import sample_name
from keytrail.observe.metric_table import METRICS
from keytrail.settings import Settings


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """deploy/helm/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", CHARTS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_made_files_are_as_they_would_be_made(generate: ModuleType) -> None:
    """Schema, tables and definitions in the chart are what `python deploy/helm/generate.py` makes."""
    stale = [path.name for path, text in generate.made().items() if not path.exists() or path.read_text() != text]
    assert stale == []
    assert {path.name for path in (CHART / "files" / "crds").iterdir()} == {
        path.name for path in (ROOT / "deploy" / "crds").iterdir()
    }


def test_every_value_is_documented(generate: ModuleType) -> None:
    """No value is without a sentence, and every setting that the chart reserves is one."""

    def leaves(values: Any) -> Any:
        for value in values:
            yield value
            yield from leaves(value.inner)

    undocumented = [".".join(one.path) for one in leaves(generate.values()) if not one.inner and not one.text]
    assert undocumented == []
    assert set(Settings.__dataclass_fields__) >= generate.SET_BY_THE_CHART


def test_the_schema_is_closed_and_takes_what_is_there(generate: ModuleType) -> None:
    """Every group refuses keys that it does not know, and the keys of defaults, features and presets are known."""
    schema = generate.schema()
    assert list(_open_groups(schema, "")) == []
    for file in (CHART / "values.yaml", *FEATURES):
        unknown = list(_unknown(schema, yaml.safe_load(file.read_text()), file.name))
        assert unknown == []


def _open_groups(schema: Any, path: str) -> Any:
    if "properties" in schema:
        if schema.get("additionalProperties") is not False:
            yield path
        for name, inner in schema["properties"].items():
            yield from _open_groups(inner, f"{path}.{name}")


def _unknown(schema: Any, data: Any, path: str) -> Any:
    if isinstance(data, dict) and "properties" in schema:
        for name, inner in data.items():
            if name not in schema["properties"]:
                yield f"{path}.{name}"
            else:
                yield from _unknown(schema["properties"][name], inner, f"{path}.{name}")


def test_one_version() -> None:
    """Chart, image and package are of one version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    helper = re.search(r'define "keytrail.version" -}}([^{]+)', (CHART / "templates" / "_helpers.tpl").read_text())
    label = re.search(r"(?m)^ARG VERSION=(.+)$", (ROOT / "Dockerfile").read_text())
    assert helper is not None
    assert label is not None
    assert {chart["version"], chart["appVersion"], helper[1], label[1]} == {__version__}


def test_the_exporters_filter_is_the_doctors() -> None:
    """What the chart tells Tetragon's exporter to leave out is what `keytrail doctor` looks for."""
    places = [CHART / "files" / "field-filters.json", *CHARTS.glob("tetragon*-values.yaml")]
    assert len(places) == 3
    for place in places:
        found = yaml.safe_load(place.read_text())
        filter_ = found["tetragon"]["fieldFilters"] if "tetragon" in found else json.dumps(found)
        assert json.loads(filter_) == FIELD_FILTER


def test_alerts_name_metrics_that_exist() -> None:
    """Every metric of the alerts is one that the collector serves, and each alert has a test that fires it."""
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"]
    served = {sample_name(metric) for metric in METRICS}
    used = {name for rule in rules for name in re.findall(r"keytrail_\w+", rule["expr"])}
    assert used <= served
    fired = (Path(__file__).parent / "alerts_test.yaml").read_text()
    assert [rule["alert"] for rule in rules if f'alertname="{rule["alert"]}"' not in fired] == []
