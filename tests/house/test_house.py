"""The repository's own rules: layout, names, traces, and that the lock files are usable."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def tracked() -> list[Path]:
    """Files that git tracks; all files where there is no git, as in a source archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not {".venv", ".git"} & set(path.parts)]


def test_no_package_shadows_the_standard_library() -> None:
    """A folder `operator` with an `__init__.py` would replace the standard library's module and break even pip."""
    folders = [path.parent for path in tracked() if path.name == "__init__.py"]
    tops = [folder for folder in folders if not (folder.parent / "__init__.py").exists()]
    shadowing = [folder for folder in tops if folder.name in sys.stdlib_module_names]
    assert not shadowing


def test_operator_module_is_the_standard_librarys() -> None:
    """With the repository's root on the path, `import operator` still gives the standard library."""
    code = "import operator, sys; assert operator.add(1, 2) == 3; print(operator.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(ROOT / "operator") not in found.stdout


def test_top_level_is_fixed() -> None:
    """The folders and files that users and tools look for are where they are expected."""
    folders = "collector operator deploy/helm policies tests"
    files = "pyproject.toml Dockerfile README.md CHANGELOG.md CONTRIBUTING.md LICENSE"
    assert [name for name in f"{folders} {files}".split() if not (ROOT / name).exists()] == []


def test_no_trace_of_a_machine_or_registry() -> None:
    """No file names the folder it was written in or the host of a package registry."""
    hosts = rb"files\.pythonhosted\." rb"org|pypi\." rb"org/simple|proxy\.golang\." rb"org|--(extra-)?index-" rb"url"
    traces = re.compile(re.escape(str(ROOT).encode()) + rb"/|" + hosts)
    corpus = ROOT / "tests" / "corpus"
    found = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if corpus not in path.parents and path.suffix not in {".zst", ".pb"} and traces.search(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize("lock", ["collector", "image", "dev", "fuzz"])
def test_every_locked_package_has_hashes(lock: str) -> None:
    """Each pinned version is followed by at least two hashes (a wheel and a source archive, or two wheels)."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(entries) > 10
    assert [
        entry.split()[0] for entry in entries if entry.count("--hash=sha256:") < 1 or "==" not in entry.split()[0]
    ] == []


def test_locks_hold_every_declared_dependency() -> None:
    """What pyproject.toml asks for at run time is pinned in the collector's lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "requirements" / "collector.txt").read_text().lower()
    names = [re.split(r"[>=<\[ ]", entry)[0].lower() for entry in project["dependencies"]]
    assert [name for name in names if f"\n{name}==" not in f"\n{text}"] == []


def test_every_dependency_says_why() -> None:
    """Each runtime dependency has a line of reason above it in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [\n")[2].partition("\n]")[0]
    lines = [line.strip() for line in text.splitlines()]
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.startswith('"') and not before.startswith("#")
    ]
    assert bare == []
