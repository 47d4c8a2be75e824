"""What is loaded from the settings' folders, and what of it stays the same object when it is loaded again."""

import dataclasses
from pathlib import Path

import pytest

from keytrail.configuration import Configuration, digest_of, files_below, load_configuration
from keytrail.decode.redact import Redactor
from keytrail.domain.errors import ManifestError
from keytrail.settings import Settings
from reload.config_map import ConfigMap, mapping, rule


def load(folder: Path, previous: Configuration | None = None) -> Configuration:
    """Load a folder whose rules take the place of the shipped ones."""
    settings = Settings(config=folder, rules=str(folder))
    return load_configuration(settings, Redactor().redact, live=False, findings=True, previous=previous)


def test_what_did_not_change_is_the_same_object(tmp_path: Path) -> None:
    """A changed mapping leaves the engine as it is, and a changed rule the matcher: neither forgets for the other."""
    config = ConfigMap(tmp_path / "config", {"rule.yaml": rule("one"), "mapping.yaml": mapping("before")})
    first = load(config.folder)
    config.replace({"rule.yaml": rule("one"), "mapping.yaml": mapping("after")})
    second = load(config.folder, first)
    assert (second.engine is first.engine, second.matcher is first.matcher) == (True, False)
    config.replace({"rule.yaml": rule("one", message="other"), "mapping.yaml": mapping("after")})
    third = load(config.folder, second)
    assert (third.engine is first.engine, third.matcher is second.matcher) == (False, True)
    assert len({first.digest, second.digest, third.digest}) == 3


def test_tuning_by_a_policy_library_makes_another_engine(tmp_path: Path) -> None:
    """Rules that stay as they are run differently under another PolicyLibrary."""
    config = ConfigMap(tmp_path / "config", {"rule.yaml": rule("one")})
    first = load(config.folder)
    library = "apiVersion: keytrail.io/v1alpha1\nkind: PolicyLibrary\nmetadata: {name: default}\n"
    tune = "spec: {rules: {tune: [{name: one, severity: critical}]}}\n"
    config.replace({"rule.yaml": rule("one"), "library.yaml": library + tune})
    second = load(config.folder, first)
    assert second.engine is not first.engine
    assert second.engine is not None
    assert [one.rule.spec.severity for one in second.engine.rules] == ["critical"]


def test_wrong_condition_is_told_with_file_line_and_field(tmp_path: Path) -> None:
    """A rule that cannot run names its place, though its folder is read once as long as all is right."""
    config = ConfigMap(tmp_path / "config", {"rule.yaml": rule("one", condition="process.nmae == 'x'")})
    settings = Settings(config=config.folder, rules="none")
    with pytest.raises(ManifestError) as caught:
        load_configuration(settings, Redactor().redact, live=False, findings=True)
    [problem] = caught.value.problems
    assert (problem.path, problem.line) == (str(config.folder / "rule.yaml"), 12)
    assert problem.field == "spec.condition"
    assert "nmae" in problem.message


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ("{name: oen, enabled: true}", "spec.rules.tune[0]: there is no rule 'oen', did you mean one?"),
        ("{name: one, parameters: {word: [a]}}", "spec.rules.tune[0]: one: spec.parameters.word: expected text"),
        ("{name: one, exceptions: [{name: x, condition: 'nope'}]}", "spec.rules.tune[0]: one: spec.exceptions[0]"),
    ],
)
def test_wrong_tuning_is_told_with_its_line(tmp_path: Path, tuning: str, message: str) -> None:
    """A tuning that does not fit its rule, or has none, is found in the file of the PolicyLibrary."""
    library = "apiVersion: keytrail.io/v1alpha1\nkind: PolicyLibrary\nmetadata: {name: default}\n"
    tune = f"spec:\n  rules:\n    tune:\n      - {tuning}\n"
    config = ConfigMap(tmp_path / "config", {"library.yaml": library + tune, "rule.yaml": rule("one")})
    with pytest.raises(ManifestError) as caught:
        load(config.folder)
    [problem] = caught.value.problems
    assert str(problem).startswith(f"{config.folder}/library.yaml:7: {message}")


def test_digest_is_of_names_and_content_alone(tmp_path: Path) -> None:
    """Written again with the same content it is the same; other content, another name and a missing file differ."""
    config = ConfigMap(tmp_path / "config", {"a.yaml": "x", "b.yaml": "y"})
    first = digest_of([config.folder])
    config.replace({"a.yaml": "x", "b.yaml": "y"})
    assert digest_of([config.folder]) == first
    seen = {first}
    for files in ({"a.yaml": "xy", "b.yaml": ""}, {"a.yaml": "x", "c.yaml": "y"}, {"a.yaml": "x"}):
        config.replace(files)
        seen.add(digest_of([config.folder]))
    assert len(seen) == 4


def test_links_that_lead_back_and_links_to_nothing_are_survived(tmp_path: Path) -> None:
    """A loop of folders is walked once, a link to nothing has a place, and what is no manifest has none."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "again").symlink_to(tmp_path / "sub")
    (tmp_path / "sub" / "a.yaml").write_text("")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    found = list(files_below(tmp_path))
    assert found == [tmp_path / "gone.yaml", tmp_path / "sub" / "a.yaml"]
    assert digest_of([tmp_path])


def test_settings_are_not_part_of_it(tmp_path: Path) -> None:
    """A command that wants no findings loads no rules, and the mappings all the same."""
    config = ConfigMap(tmp_path / "config", {"mapping.yaml": mapping("mine")})
    settings = dataclasses.replace(Settings(), config=config.folder)
    made = load_configuration(settings, Redactor().redact, live=False, findings=False)
    assert made.engine is None
    assert [one.spec.identity.id for one in made.manifests.identity_mappings] == ["mine"]
