"""deploy/release.sh from its first line to its last: what stays on this machine is real, what publishes is noted.

Real are git, the tree's checks, Helm's packages and their signatures. `docker` and `cosign`, which are not to be had
here, and Helm's two commands that go out of the machine, are programs that note how they were called.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chart.rendering import ROOT
from keytrail import __version__

pytestmark = [pytest.mark.cluster("helm"), pytest.mark.timeout(240)]
REPOSITORY = "registry.example.com/security/keytrail"
BASE, IMAGE = f"sha256:{'b' * 64}", f"sha256:{'1' * 64}"
KEY = "Key-Type: RSA\nKey-Length: 2048\nName-Real: release-test\nExpire-Date: 0\n%no-protection\n%commit\n"
NOTE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$NOTES"
"""
DOCKER = f"""{NOTE}
case "$3" in
  inspect) echo {BASE} ;;
  *) while [ "$1" != --metadata-file ]; do shift; done; echo '{{"containerimage.digest": "{IMAGE}"}}' > "$2" ;;
esac
"""
HELM = """#!/bin/sh
case "$1" in
  dependency) mkdir -p "$3/charts"; cp -r deploy/helm/keytrail "$3/charts"; cp -r "$STAND_IN" "$3/charts/tetragon" ;;
  push) echo "helm $*" >> "$NOTES" ;;
  *) exec "$HELM_PROGRAM" "$@" ;;
esac
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A committed copy of what a release is made of."""
    copy = tmp_path / "tree"
    for name in ("deploy", "Dockerfile", "collector/src/keytrail/__init__.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    (copy / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    for words in ("init --quiet", "add --all", "-c user.name=a -c user.email=a@example.com commit --quiet -m a"):
        subprocess.run(["git", *words.split()], check=True, cwd=copy)
    return copy


@pytest.fixture
def release(tree: Path, programs: Callable[[str], Path], tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Run the script; its exit code, what it said, and what was called."""
    found, notes = tmp_path / "bin", tmp_path / "notes"
    found.mkdir()
    notes.touch()
    for name, text in (("docker", DOCKER), ("cosign", NOTE), ("helm", HELM)):
        (found / name).write_text(text)
        (found / name).chmod(0o755)
    environ = {
        "PATH": f"{found}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GNUPGHOME": str(tmp_path / "gnupg"),
        "NOTES": str(notes),
        "STAND_IN": str(ROOT / "tests" / "chart" / "stand-in"),
        "HELM_PROGRAM": str(programs("helm") / "helm"),
    }

    def run(version: str = __version__, **more: str) -> tuple[int, str, list[str]]:
        command = [tree / "deploy" / "release.sh", REPOSITORY, version]
        ran = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environ | more, cwd=tmp_path, timeout=200
        )
        return ran.returncode, ran.stdout + ran.stderr, notes.read_text().splitlines()

    return run


def _keyring(home: Path) -> dict[str, str]:
    """A key for the test alone, in the form that Helm reads."""
    (home / "gnupg").mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "GNUPGHOME": str(home / "gnupg"), "HOME": str(home)}
    gpg = ["gpg", "--batch", "--quiet"]
    subprocess.run([*gpg, "--gen-key"], check=True, env=environ, input=KEY, text=True, timeout=120)
    for option, name in (("--export-secret-keys", "secret.gpg"), ("--export", "public.gpg")):
        (home / name).write_bytes(subprocess.check_output([*gpg, option], env=environ))
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=True, env=environ)
    return {"HELM_KEY": "release-test", "HELM_KEYRING": str(home / "secret.gpg")}


def test_every_step(
    release: Callable[..., tuple[int, str, list[str]]], tree: Path, programs: Callable[[str], Path], tmp_path: Path
) -> None:
    """Built on the base by digest, signed by digest, both charts packed, signed and pushed; the digest is said last."""
    code, said, (inspect, build, sign, *pushes) = release(**_keyring(tmp_path))
    assert code == 0, said
    assert said.splitlines()[-1] == f"{REPOSITORY}@{IMAGE}"
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tree, text=True).strip()
    base = "python:3.12-slim-bookworm"
    assert f"ARG BASE={base}\n" in (ROOT / "Dockerfile").read_text()
    assert inspect == f"docker buildx imagetools inspect {base} --format {{{{.Manifest.Digest}}}}"
    for words in (
        "docker buildx build --platform linux/amd64,linux/arm64",
        f"--build-arg BASE={base}@{BASE} --build-arg VERSION={__version__} --build-arg REVISION={commit}",
        "--sbom=true --provenance=mode=max",
        f"--tag {REPOSITORY}:{__version__}",
    ):
        assert words in build
    assert build.endswith("--push .")
    assert sign == f"cosign sign --yes --recursive {REPOSITORY}@{IMAGE}"
    charts = [f"dist/{chart}-{__version__}.tgz" for chart in ("keytrail", "keytrail-with-tetragon")]
    assert pushes == [f"helm push {chart} oci://registry.example.com/security/charts" for chart in charts]
    for chart in charts:
        verify = [programs("helm") / "helm", "verify", "--keyring", tmp_path / "public.gpg", tree / chart]
        subprocess.run(verify, check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_what_is_refused(release: Callable[..., tuple[int, str, list[str]]], tree: Path) -> None:
    """Nothing is published of another version, of a tree that is not committed, or without a program."""
    assert release("9.9.9") == (2, "release: this tree is not version 9.9.9\n", [])
    (tree / "Dockerfile").write_text("FROM scratch\n")
    assert release() == (2, "release: the tree has changes that are not committed\n", [])
    assert release(PATH=f"{tree}:/usr/bin:/bin")[::2] == (2, [])
