"""The real image without an engine: the Dockerfile built by buildah on a base that debootstrap makes.

In: the tree, `buildah`, `debootstrap` and root. Out: the image's root folder and configuration, kept in the cache of
real components and built again when anything that goes into it has changed. Knows nothing of how it is run.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.components.build import Unavailable, cache

ROOT = Path(__file__).parents[3]
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_TOOLS = ("buildah", "debootstrap", "unshare", "chroot", "setpriv")


@dataclass(frozen=True)
class Image:
    """A built image."""

    root: Path
    configuration: dict[str, Any]
    """As the image specification has it: User, Entrypoint, Env, Labels, ..."""
    seconds: float
    """How long the build took, without the base."""


@contextmanager
def built_image() -> Iterator[Image]:
    """The image of this tree, which nobody replaces meanwhile. Raises Unavailable with what is missing."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        need = f"there is no {', '.join(missing)}" if missing else "this user is not root"
        raise Unavailable(f"an image is built with {', '.join(_TOOLS)} as root, and {need}")
    folder = cache() / "image"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _kept(folder) != _key():
            _build(folder)
        fcntl.flock(lock, fcntl.LOCK_SH)
        facts = json.loads((folder / "facts.json").read_text())
        yield Image(folder / "root", facts["configuration"], facts["seconds"])


def _kept(folder: Path) -> str:
    facts = folder / "facts.json"
    return json.loads(facts.read_text())["key"] if facts.exists() else ""


def _key() -> str:
    """A hash of everything that the Dockerfile copies, and of the base's recipe."""
    copied = re.findall(r"(?m)^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text())
    names = ["Dockerfile", ".dockerignore", *(name for line in copied for name in line.split())]
    digest = hashlib.sha256(f"{SUITE} {PACKAGES}".encode())
    for name in names:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _build(folder: Path) -> None:
    """Build into the folder; what says that it is whole is written last."""
    (folder / "facts.json").unlink(missing_ok=True)
    key, base = _key(), _base(folder)
    storage = folder / "storage"
    buildah = ["buildah", "--root", str(storage), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    shutil.rmtree(folder / "root", ignore_errors=True)
    started = time.monotonic()
    with (folder / "build.log").open("w") as log:
        try:
            empty = _output([*buildah, "from", "scratch"])
            _run([*buildah, "copy", "--quiet", empty, base, "/"], log)
            _run([*buildah, "commit", "--quiet", empty, "localhost/base"], log)
            _say("image: building the Dockerfile")
            arguments = [
                "--build-arg",
                "BASE=localhost/base",
                "--build-arg",
                "REVISION=test",
                "--tag",
                "localhost/keytrail",
            ]
            _run([*buildah, "build", "--isolation", "chroot", *arguments, str(ROOT)], log)
            made = _output([*buildah, "from", "localhost/keytrail"])
            inspected = json.loads(_output([*buildah, "inspect", made]))
            _run(["cp", "--archive", _output([*buildah, "mount", made]), folder / "root"], log)
            _run([*buildah, "umount", made], log)
        finally:
            shutil.rmtree(storage, ignore_errors=True)  # a layer is a whole copy there
    facts = {"key": key, "seconds": time.monotonic() - started, "configuration": inspected["OCIv1"]["config"]}
    (folder / "facts.json").write_text(json.dumps(facts))


def _base(folder: Path) -> Path:
    """The base, made once: Debian's smallest, with Python."""
    base = folder / f"base-{hashlib.sha256(f'{SUITE} {PACKAGES}'.encode()).hexdigest()[:12]}"
    if not base.exists():
        partial = folder / "base.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _say("image: making the base with debootstrap")
        with (folder / "debootstrap.log").open("w") as log:
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, partial]
            if subprocess.run(command, check=False, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode:
                end = (folder / "debootstrap.log").read_text(errors="replace").splitlines()[-1:]
                raise Unavailable(f"the base cannot be made: {end}")
        # pip trusts what this machine trusts, which may have a proxy of its own.
        shutil.copy(_AUTHORITIES, partial / str(_AUTHORITIES).lstrip("/"))
        partial.rename(base)
    return base


def _run(command: list[str | Path], log: Any) -> None:
    log.flush()
    ran = subprocess.run(command, check=False, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    end = "\n".join(Path(log.name).read_text(errors="replace").splitlines()[-20:])
    assert ran.returncode == 0, f"`{' '.join(map(str, command[:8]))}` ended with {ran.returncode}:\n{end}"


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _say(text: str) -> None:
    print(f"components: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a build of minutes shows that it lives
