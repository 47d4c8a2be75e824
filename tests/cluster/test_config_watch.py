"""Custom resources of a real API server become the configuration in force, quickly; one that is wrong fails alone."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keytrail.configuration import Configuration, load_configuration
from keytrail.decode.redact import Redactor
from keytrail.domain import crds
from keytrail.domain.objects import Resource
from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.judging import judge
from keytrail.kube.access import from_kubeconfig
from keytrail.kube.api import Api
from keytrail.kube.backoff import Backoff
from keytrail.kube.config_watch import ConfigWatch, ObjectReport, problems_of
from keytrail.kube.places import Kind
from keytrail.reload import Reloader
from keytrail.settings import Settings
from reload.config_map import mapping
from support.components.child import free_ports
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
SECONDS = 60.0
IN_FORCE_SECONDS = 5.0
Json = dict[str, Any]
KIND = {kind.name: kind for kind in crds.KINDS}


def place(manifest: Json) -> Any:
    """Where an object is."""
    kind = KIND[manifest["kind"]]
    metadata = manifest["metadata"]
    return Kind(kind.plural, crds.GROUP, crds.VERSION).at(metadata.get("namespace", ""), metadata["name"])


def apply(api: Api, manifest: Json) -> None:
    """Create or change an object."""
    api.apply(place(manifest), manifest, manager="test")


def rule(name: str, condition: str = "process.pid > 1", message: str = "seen") -> Json:
    """A DetectionRule."""
    spec = {
        "title": "A test's own rule",
        "description": "Tells which version of it is in force.",
        "severity": "low",
        "maturity": "stable",
        "mitre": [{"tactic": "TA0002", "technique": "T1059.004"}],
        "events": ["exec"],
        "condition": condition,
        "message": message,
    }
    return {"apiVersion": crds.API_VERSION, "kind": "DetectionRule", "metadata": {"name": name}, "spec": spec}


def identity(name: str, provider: str) -> Json:
    """A ClusterIdentityMapping."""
    spec = {
        "identity": {"kind": "api_key", "provider": provider},
        "evidence": {"env": [{"name": f"{name.upper()}_KEY"}]},
    }
    return {"apiVersion": crds.API_VERSION, "kind": "ClusterIdentityMapping", "metadata": {"name": name}, "spec": spec}


def library(*tune: Json) -> Json:
    """The PolicyLibrary, with rules tuned."""
    spec = {"rules": {"tune": list(tune)}}
    return {"apiVersion": crds.API_VERSION, "kind": "PolicyLibrary", "metadata": {"name": "default"}, "spec": spec}


class Built:
    """What a collector would have in force: the real loader and reloader behind the watch."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.watch = ConfigWatch(
            api, partial(judge, settings), lambda _: self.reloader.look_now(), pauses=lambda: Backoff(0.05, 0.5)
        )
        load = partial(load_configuration, settings, Redactor().redact, live=False, findings=True)
        self.now: Configuration = load()
        self.history: list[Configuration] = []
        self.reloader = Reloader(
            settings,
            lambda: settings,
            None,
            loaded=self.now,
            load=lambda *, previous: load(previous=previous, applied=self.watch.resources()),
            replace=self.replace,
            applied=self.watch.resources,
            every_seconds=0,
        )

    def replace(self, configuration: Configuration) -> None:
        """Put another one in force."""
        self.now = configuration
        self.history.append(configuration)

    def message_of(self, name: str) -> str:
        """The message of a rule that runs; empty when none of that name does."""
        engine = self.now.engine
        assert engine is not None
        return next((one.rule.spec.message for one in engine.rules if one.name == name), "")

    def providers(self) -> dict[str, str]:
        """Provider by name of each mapping."""
        found = [one for one in self.now.manifests.identity_mappings if isinstance(one, ClusterIdentityMapping)]
        return {one.metadata.name: one.spec.identity.provider for one in found}

    def report(self, name: str) -> ObjectReport | None:
        """What became of an object."""
        return next((one for one in self.watch.reports() if one.name == name), None)

    def problems(self, name: str) -> tuple[str, ...]:
        """What is wrong with it."""
        found = self.report(name)
        return () if found is None else found.problems


@contextmanager
def built(api: Api, folder: Path | None = None, **settings: Any) -> Iterator[Built]:
    """Watch, load and reload, as the collector does."""
    found = Built(api, Settings(config=folder, **settings))
    with found.reloader:
        found.watch.start()
        try:
            assert found.watch.wait_settled(SECONDS)
            yield found
        finally:
            found.watch.close()


def took(condition: Any) -> float:
    """How long until it is so, in seconds."""
    began = time.monotonic()
    assert wait_until(condition, SECONDS)
    return time.monotonic() - began


def test_what_is_applied_is_in_force_within_five_seconds(
    control_plane: ControlPlane, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mapping and a rule, created, changed and deleted: each decides in a new Configuration soon after."""
    apply(api, identity("timely", "before"))
    with built(api) as found:
        assert wait_until(lambda: found.providers().get("timely") == "before", SECONDS)
        times = []
        apply(api, identity("timely", "after"))
        times.append(took(lambda: found.providers().get("timely") == "after"))
        apply(api, rule("timely-rule", message="first"))
        times.append(took(lambda: found.message_of("timely-rule") == "first"))
        apply(api, rule("timely-rule", message="second"))
        times.append(took(lambda: found.message_of("timely-rule") == "second"))
        control_plane.kubectl("delete", "detectionrule/timely-rule", "clusteridentitymapping/timely", "--wait=false")
        times.append(took(lambda: not found.message_of("timely-rule") and "timely" not in found.providers()))
    with capsys.disabled():
        print("\nin force after", ", ".join(f"{one:.2f} s" for one in times))  # noqa: T201 - the figures are for the reader
    assert min(times) < IN_FORCE_SECONDS  # each is a fraction of a second; a busy machine may delay one


def test_a_wrong_object_fails_alone(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Of a rule with a wrong condition the last good generation stays; the report says why, and all others work."""
    apply(api, rule("wrong-later", message="good"))
    apply(api, rule("wrong-ever", "process.nothing == 1"))
    with built(api) as found:
        assert wait_until(lambda: found.message_of("wrong-later") == "good", SECONDS)
        assert not found.message_of("wrong-ever")
        apply(api, rule("wrong-later", "process.nothing == 1", message="bad"))
        apply(api, identity("beside", "works"))
        assert wait_until(lambda: found.providers().get("beside") == "works", SECONDS)
        assert wait_until(lambda: bool(found.problems("wrong-later")), SECONDS)
        assert found.message_of("wrong-later") == "good"
        later, ever = found.report("wrong-later"), found.report("wrong-ever")
        assert later is not None
        assert (later.generation, later.in_force) == (2, 1)
        assert ever is not None
        assert (ever.generation, ever.in_force) == (1, None)
        assert "nothing" in later.problems[0]
        shown = [str(one) for one in problems_of(found.watch.reports())]
        assert any(one.startswith("<api server>: DetectionRule wrong-later: spec.condition: ") for one in shown)
        apply(api, rule("wrong-later", message="mended"))
        assert wait_until(lambda: found.message_of("wrong-later") == "mended", SECONDS)
        assert not found.problems("wrong-later")
    assert "generation 2 is not in force, generation 1 stays: spec.condition: " in caplog.text
    assert "generation 1 is not in force, nothing of it is: spec.condition: " in caplog.text


def test_what_the_schema_lets_through_is_judged_by_the_shape(control_plane: ControlPlane, api: Api) -> None:
    """An object from before the schema's bounds is refused by its fields, and the one beside it works."""
    apply(api, identity("odd", "x"))
    crd = "clusteridentitymappings.keytrail.io"
    strict = control_plane.get("crd", crd)["spec"]["versions"][0]
    loose = {name: value for name, value in strict.items() if name != "selectableFields"}
    loose["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}

    def define(version: Json) -> None:
        patch = [{"op": "replace", "path": "/spec/versions/0", "value": version}]
        control_plane.kubectl("patch", "crd", crd, "--type=json", f"--patch={json.dumps(patch)}")

    define(loose)
    try:
        odd = identity("odd", "y")
        odd["spec"]["evidence"]["env"] = [{"nmae": "ODD_KEY"}]

        def goes_through() -> bool:
            apply(api, odd)
            kept = api.get(place(odd))["spec"]["evidence"]["env"]
            return kept == [{"nmae": "ODD_KEY"}]

        with built(api) as found:
            assert wait_until(goes_through, SECONDS)
            assert wait_until(lambda: bool(found.problems("odd")), SECONDS)
            assert any("spec.evidence.env[0].nmae: unknown field" in one for one in found.problems("odd"))
            apply(api, identity("even", "z"))
            assert wait_until(lambda: found.providers().get("even") == "z", SECONDS)
    finally:
        define(strict)
        control_plane.kubectl("delete", "clusteridentitymapping/odd")


def test_a_library_that_tunes_wrongly_keeps_its_last_good_version(control_plane: ControlPlane, api: Api) -> None:
    """Tuning that cannot be is the library's own fault: its last good version stays, and every other object works."""
    apply(api, rule("tuned"))
    apply(api, library({"name": "tuned", "severity": "critical"}))
    with built(api) as found:

        def severity() -> str:
            engine = found.now.engine
            assert engine is not None
            return next((str(one.rule.spec.severity) for one in engine.rules if one.name == "tuned"), "")

        assert wait_until(lambda: severity() == "critical", SECONDS)
        apply(api, library({"name": "tunde", "severity": "info"}, {"name": "tuned", "severity": "info"}))
        apply(api, identity("beside-library", "works"))
        assert wait_until(lambda: found.providers().get("beside-library") == "works", SECONDS)
        assert wait_until(lambda: bool(found.problems("default")), SECONDS)
        assert found.problems("default") == ("spec.rules.tune[0].name: there is no such rule, did you mean tuned?",)
        assert severity() == "critical"
        apply(api, library({"name": "tuned", "severity": "info"}))
        assert wait_until(lambda: severity() == "info", SECONDS)
        assert not found.problems("default")
    control_plane.kubectl("delete", "policylibrary/default")


def test_folder_and_cluster_together(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """An object of the API server overrides the folder's of the same kind and name, until it is deleted."""
    (tmp_path / "mapping.yaml").write_text(mapping("of-folder", name="both"))
    (tmp_path / "other.yaml").write_text(mapping("folder-only", name="folder-only"))
    apply(api, identity("both", "of-cluster"))
    with built(api, tmp_path) as found:
        assert wait_until(lambda: found.providers().get("both") == "of-cluster", SECONDS)
        assert found.providers()["folder-only"] == "openai"
        control_plane.kubectl("delete", "clusteridentitymapping/both")
        assert wait_until(lambda: found.providers().get("both") == "openai", SECONDS)


def test_many_objects_are_one_change(api: Api) -> None:
    """Objects that come close together are put in force together, not one by one."""
    with built(api) as found:
        before = len(found.history)
        for number in range(40):
            apply(api, identity(f"many-{number}", "many"))
        assert wait_until(lambda: list(found.providers().values()).count("many") == 40, SECONDS)
        assert len(found.history) - before < 20
        assert wait_until(lambda: {one.connected for one in found.watch.states()} == {True}, SECONDS)


def test_outages_change_nothing(control_plane: ControlPlane, api: Api) -> None:
    """While the API server is away everything stays in force; what is applied after it is back comes into force."""
    apply(api, identity("lasting", "before"))
    with built(api) as found:
        assert wait_until(lambda: found.providers().get("lasting") == "before", SECONDS)
        control_plane.apiserver.stop()
        assert wait_until(lambda: not any(one.connected for one in found.watch.states()), SECONDS)
        assert found.providers()["lasting"] == "before"
        control_plane.apiserver.start()
        apply(api, identity("lasting", "after"))
        assert wait_until(lambda: found.providers().get("lasting") == "after", SECONDS)


def test_without_definitions_the_collector_works_on(
    control_plane: ControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a cluster without the kinds, shipped content is in force; installed later, they count without a restart."""
    empty = ControlPlane(control_plane._programs, tmp_path, tmp_path)
    with empty.etcd, empty.apiserver:
        bare = Api.open(empty.kubeconfig, "", {})
        with built(bare) as found:
            assert wait_until(lambda: all(one.failures > 1 for one in found.watch.states()), SECONDS)
            assert caplog.text.count("the API server does not know detectionrules.keytrail.io") == 1
            engine = found.now.engine
            assert engine is not None
            assert len(engine.rules) > 50
            empty.kubectl("apply", f"--filename={ROOT / 'deploy' / 'crds'}")
            assert wait_until(lambda: all(one.synced for one in found.watch.states()), SECONDS)
            apply(bare, identity("late", "x"))
            assert wait_until(lambda: found.providers().get("late") == "x", SECONDS)
        bare.close()


def nothing_wrong(_resources: Sequence[Resource]) -> dict[Any, Any]:
    """Judge nothing."""
    return {}


def test_an_api_server_that_is_away_settles_too(control_plane: ControlPlane) -> None:
    """A collector that starts while nobody answers is not kept waiting: it begins with what it ships."""
    (port,) = free_ports(1)
    access = replace(from_kubeconfig(control_plane.kubeconfig), url=f"https://127.0.0.1:{port}")
    watch = ConfigWatch(Api(lambda: access), nothing_wrong, lambda _: None)
    watch.start()
    assert watch.wait_settled(SECONDS)
    assert watch.resources() == ()
    assert {one.synced for one in watch.states()} == {False}
    watch.close()
