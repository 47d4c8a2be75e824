"""Manifests from a folder: what is read, and the exact file, line, field and message of what is wrong."""

import json
import os
import textwrap
from pathlib import Path

import pytest

from keytrail.domain.errors import ManifestError, Problem, SettingsError
from keytrail.domain.resources import BUILTIN_LABEL, ClusterIdentityMapping, IdentityMapping
from keytrail.manifests import builtin_folder, load_builtin_identities, load_folder
from keytrail.yaml_documents import MAX_FILE_BYTES, read_documents

GOOD = """\
# A comment before it.
apiVersion: keytrail.io/v1alpha1
kind: ClusterIdentityMapping
metadata:
  name: openai-prod
spec:
  evidence:
    env:
      - name: OPENAI_API_KEY
"""
HEAD = "apiVersion: keytrail.io/v1alpha1\nkind: ClusterIdentityMapping\nmetadata: {name: a}\n"
POLICY = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: tcp}\nspec: {kprobes: []}\n"


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file below the folder."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def problems(folder: Path) -> list[Problem]:
    """Return all problems of a folder."""
    with pytest.raises(ManifestError) as caught:
        load_folder(folder)
    return caught.value.problems


def names(folder: Path) -> list[str]:
    """Return the mappings of a folder."""
    return [mapping.name for mapping in load_folder(folder).identity_mappings]


def test_reads_yaml_json_lists_and_policies(tmp_path: Path) -> None:
    """Several documents, a List as kubectl prints it, JSON and TracingPolicies all find their place, sorted by file."""
    second = GOOD.replace("openai-prod", "second")
    write(tmp_path, "b/two.yml", f"---\n{GOOD}---\n# nothing here\n---\n{second}---\n{POLICY}")
    item: dict[str, object] = {"apiVersion": "keytrail.io/v1alpha1", "kind": "IdentityMapping"}
    item["metadata"] = {"name": "x", "namespace": "ml"}
    item["spec"] = {"identity": {"owner": "team \U0001f600"}, "evidence": {"argv": [{"contains": "x y"}]}}
    write(tmp_path, "a.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": [item]}, indent="\t"))
    write(tmp_path, "notes.txt", "not: [yaml")
    found = load_folder(tmp_path)
    assert [type(mapping) for mapping in found.identity_mappings] == [IdentityMapping, *[ClusterIdentityMapping] * 2]
    assert names(tmp_path) == ["ml/x", "openai-prod", "second"]
    assert found.identity_mappings[0].spec.identity.owner == "team \U0001f600"
    (policy,) = found.tracing_policies
    assert (policy.path, policy.line, policy.kind) == (str(tmp_path / "b/two.yml"), 24, "TracingPolicy")
    assert policy.data["spec"] == {"kprobes": []}


def quotes(expected: str, found: str, word: str) -> str:
    """Return the message about an unquoted word that YAML does not take as text."""
    return f'{expected}, found {found}; YAML does not take the unquoted word {word} as text, write "{word}"'


VARIABLE = "expected a variable's exact name, without value or wildcard (`pattern` takes RE2)"
HOST = "expected a host name in lower case without scheme, port or path; only its first label may be *"
NETWORK = "expected a network such as 10.0.0.0/8 or fd00::/8"
KINDS = "IdentityMapping, ClusterIdentityMapping, DetectionRule, PolicyLibrary, TracingPolicy, TracingPolicyNamespaced"
WRONG = [
    ("spec: {evidense: {}, evidence: {env: [{name: A}]}}", 4, "spec.evidense", "unknown field, did you mean evidence?"),
    ("spec:\n  priority: 1", 4, "spec.evidence", "is required"),
    (
        "spec:\n  evidence:\n    env:\n    - name: A\n    - {name: B, pattern: C}",
        8,
        "spec.evidence.env[1]",
        "expected exactly one of name, pattern, found name and pattern",
    ),
    (
        "spec:\n  priority: high\n  evidence: {env: [{name: A}]}",
        5,
        "spec.priority",
        "expected a whole number from -1000 to 1000, found text 'high'",
    ),
    (
        "spec:\n  evidence:\n    env:\n    - name:\n        no",
        7,
        "spec.evidence.env[0].name",
        quotes(VARIABLE, "the boolean false", "no"),
    ),
    (
        "spec:\n  evidence:\n    argv: [{contains: 1e3}]",
        6,
        "spec.evidence.argv[0].contains",
        quotes("expected text without control characters, at least 3 long", "the number 1000.0", "1e3"),
    ),
    (
        "spec:\n  identity: {owner: on}\n  evidence: {env: [{name: A}]}",
        5,
        "spec.identity.owner",
        quotes("expected text without control characters", "the boolean true", "on"),
    ),
    (
        "spec:\n  evidence:\n    env: [{name: A}]\n    files:\n    env: [{name: B}]",
        8,
        "spec.evidence.env",
        "is given twice, first on line 6",
    ),
    ("spec:\n  on: 1\n  evidence: {env: [{name: A}]}", 5, "spec", 'expected text as a field\'s name, write "on"'),
    (
        "spec:\n  evidence:\n    serverNames:\n    - api.openai.com\n    - HTTP://x",
        8,
        "spec.evidence.serverNames[1]",
        f"{HOST}, found 'HTTP://x'",
    ),
    (
        "spec:\n  evidence: {env: [{name: A}]}\n  allowed:\n    destinations:\n    - cidr: 10.9.0.0/8",
        8,
        "spec.allowed.destinations[0].cidr",
        f"{NETWORK}, found '10.9.0.0/8': host bits are set, did you mean 10.0.0.0/8?",
    ),
    ("spec: !!binary aGk=", 4, "spec", "cannot be read as 'binary'"),
    ("spec:\n  <<: {priority: 1}", 5, "spec", 'expected text as a field\'s name, write "<<"'),
]


@pytest.mark.parametrize(("body", "line", "field", "message"), WRONG)
def test_wrong_field(tmp_path: Path, body: str, line: int, field: str, message: str) -> None:
    """A wrong field is named with its file, its own line and what to do."""
    file = write(tmp_path, "wrong.yaml", HEAD + body + "\n")
    assert problems(tmp_path) == [Problem(str(file), line, field, message)]


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("a: [1,\nb}", 2, "", "not YAML: expected ',' or ']', but got '}'"),
        ("a:\n\t- b", 2, "", "not YAML: found character '\\t' that cannot start any token"),
        ("a:\n  \x07", 2, "", "not YAML: special characters are not allowed: U+0007"),
        ("a: *b", 1, "", "not YAML: found undefined alias 'b'"),
        ("\n- a", 2, "", "expected a manifest with apiVersion and kind, found a list"),
        ("metadata: {}", 1, "kind", f"is required, one of {KINDS}"),
        ("apiVersion: keytrail.io/v1alpha1\nkind: ClusterIdentityMaping", 2, "kind",
         "unknown kind 'ClusterIdentityMaping', did you mean ClusterIdentityMapping?"),
        ("apiVersion: v1\nkind: ConfigMap", 2, "kind", f"unknown kind 'ConfigMap', expected one of {KINDS}"),
        ("kind: IdentityMapping\napiVersion: keytrail.io/v1", 2, "apiVersion",
         "expected keytrail.io/v1alpha1, found text 'keytrail.io/v1'"),
        ("apiVersion: v1\nkind: List\nitems: 5", 3, "items", "expected a list, found the number 5"),
    ],
)  # fmt: skip
def test_wrong_document(tmp_path: Path, text: str, line: int, field: str, message: str) -> None:
    """What is no manifest at all is named with file and line too."""
    file = write(tmp_path, "wrong.yaml", text)
    assert problems(tmp_path) == [Problem(str(file), line, field, message)]


def test_all_problems_of_all_files(tmp_path: Path) -> None:
    """One run shows everything: files in order, lines in order, the items of a List under their own path."""
    write(tmp_path, "a.yaml", HEAD + "spec: {evidence: {env: [{nam: A}]}, x: 1}\n---\nkind: X\n")
    items = textwrap.indent(GOOD.replace("    env:", "    enw:"), "  ").replace("  # A", "- # A", 1)
    write(tmp_path, "b.yaml", f"apiVersion: v1\nkind: List\nitems:\n{items}")
    found = [(Path(problem.path).name, problem.line, problem.field) for problem in problems(tmp_path)]
    assert found == [
        ("a.yaml", 4, "spec.x"),
        ("a.yaml", 4, "spec.evidence.env[0].nam"),
        ("a.yaml", 4, "spec.evidence.env[0]"),
        ("a.yaml", 6, "kind"),
        ("b.yaml", 10, "items[0].spec.evidence"),
        ("b.yaml", 11, "items[0].spec.evidence.enw"),
    ]


def test_the_same_object_twice(tmp_path: Path) -> None:
    """Two objects of one kind and name name both places; another kind or namespace is another object."""
    tenant = GOOD.replace("ClusterIdentity", "Identity").replace(
        "name: openai-prod", "name: openai-prod\n  namespace: ml"
    )
    first = write(tmp_path, "a.yaml", f"{GOOD}---\n{tenant}")
    second = write(tmp_path, "b.yaml", GOOD)
    message = f"ClusterIdentityMapping 'openai-prod' is given twice, first at {first}:5"
    assert problems(tmp_path) == [Problem(str(second), 5, "metadata.name", message)]


def test_no_credential_in_a_problem(tmp_path: Path) -> None:
    """A value pasted beside a variable's name is not repeated."""
    write(tmp_path, "a.yaml", HEAD + "spec: {evidence: {env: [{name: 'OPENAI_API_KEY=sk-proj-1234567890'}]}}\n")
    assert "sk-proj" not in str(problems(tmp_path)[0])


def test_mounted_config_map(tmp_path: Path) -> None:
    """The links of a mounted ConfigMap are followed once each: no file is read twice, and no loop is entered."""
    write(tmp_path, "..2026_01_02_03/one.yaml", GOOD)
    write(tmp_path, "..2026_01_02_03/sub/two.yaml", GOOD.replace("openai-prod", "two"))
    (tmp_path / "..data").symlink_to("..2026_01_02_03")
    (tmp_path / "one.yaml").symlink_to("..data/one.yaml")
    (tmp_path / "sub").symlink_to("..data/sub")
    (tmp_path / "..2026_01_02_03/sub/loop").symlink_to(tmp_path)
    (tmp_path / "zz.yaml").symlink_to("one.yaml")
    write(tmp_path, ".hidden.yaml", "not: [yaml")
    assert names(tmp_path) == ["openai-prod", "two"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A dangling link, a pipe, wrong bytes and an oversized file are problems; the reader waits for none."""
    (tmp_path / "a.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_bytes(b"a: 1\nb: \xff")
    (tmp_path / "d.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert [(problem.line, problem.message) for problem in problems(tmp_path)] == [
        (0, "cannot be read: No such file or directory"),
        (0, "expected a regular file"),
        (2, "expected UTF-8, found the byte 0xff"),
        (0, f"expected at most {MAX_FILE_BYTES} bytes"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
            "200000 values",
        ),
        ("[" * 100 + "]" * 100, "60 levels of nesting"),
        ("[" * 2000 + "]" * 2000, "60 levels of nesting"),
        ("a: &a [*a]", "60 levels of nesting"),
    ],
    ids=["billion-laughs", "deep", "deeper-than-python", "endless"],
)
def test_yaml_bombs(tmp_path: Path, text: str, message: str) -> None:
    """A small file that stands for a huge value is refused before it is one."""
    write(tmp_path, "bomb.yaml", text)
    (problem,) = problems(tmp_path)
    assert message in problem.message


def test_aliases_work(tmp_path: Path) -> None:
    """An honest alias means what it stands for."""
    write(tmp_path, "a.yaml", HEAD + "spec: {evidence: {env: [&a {name: A}, *a]}}\n")
    assert [item.name for item in load_folder(tmp_path).identity_mappings[0].spec.evidence.env] == ["A", "A"]


def test_plain_words_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    """Words mean what they mean to kubectl: y is a boolean, 1e3 a number, dates and times are text."""
    words = {
        "y": True, "Off": False, "true": True, "truE": "truE", "1e3": 1000.0, "0o17": 15, "017": 15, "0x1F": 31,
        "0b11": 3, "1_000": 1000, "-5": -5, ".5": 0.5, "-.inf": float("-inf"), "12:30:00": "12:30:00",
        "2026-01-02": "2026-01-02", "~": None, "null": None, "08": 8.0, "1.2.3": "1.2.3", "'no'": "no",
        "!!str no": "no", "!!int '5'": 5,
        "18446744073709551616": 2.0**64,
    }  # fmt: skip
    file = write(tmp_path, "words.yaml", "".join(f"- {word}\n" for word in words))
    (document,) = read_documents(file)
    assert document.problems == []
    assert document.data == list(words.values())
    assert [type(value) for value in document.data] == [type(value) for value in words.values()]


def test_folder_that_is_none(tmp_path: Path) -> None:
    """A missing folder and a file in its place are settings errors, not manifest errors."""
    with pytest.raises(SettingsError, match="there is no such folder"):
        load_folder(tmp_path / "none")
    with pytest.raises(SettingsError, match="it is a file, name the folder that holds it"):
        load_folder(write(tmp_path, "a.yaml", GOOD))


def test_shipped_library() -> None:
    """The shipped library loads, and every provider mapping in it is marked as built in and names its provider."""
    found = load_builtin_identities()
    assert len(found) == sum(1 for _ in (builtin_folder() / "identities").glob("*.yaml"))
    for mapping in found:
        assert mapping.metadata.labels.get(BUILTIN_LABEL) == "true", mapping.name
        assert mapping.spec.identity.provider, mapping.name
    assert load_folder(builtin_folder()).tracing_policies
