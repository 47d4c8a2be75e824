"""ClickHouse and OpenSearch, brought into the cache of real components, each by its own package manager.

In: the recipes in `tests/cluster/components`, whose every file is named by its SHA-256. Out: folders to run from. Knows
nothing of how they are asked.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.components.build import RECIPES, Unavailable, cache

CLICKHOUSE, OPENSEARCH = RECIPES / "clickhouse", RECIPES / "opensearch"
JAVA_TOOLS = ("mvn", "javac", "java")


def clickhouse() -> Path:
    """Return a folder for `sys.path` with chDB, which is ClickHouse's engine as a module. Raises Unavailable."""

    def fill(folder: Path) -> None:
        # Alone: what it depends on is for data frames.
        options = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", folder)
        _run([sys.executable, "-m", "pip", "install", "--quiet", *options, "-r", CLICKHOUSE / "requirements.txt"])

    return _kept("clickhouse", CLICKHOUSE, fill)


def opensearch() -> Path:
    """Return a folder of jars and the class OneNode, OpenSearch's server. Raises Unavailable."""

    def fill(folder: Path) -> None:
        copy = ["mvn", "--batch-mode", "--quiet", "--file", OPENSEARCH / "pom.xml", "dependency:copy-dependencies"]
        _run([*copy, f"-DoutputDirectory={folder}"])
        _run(["sha256sum", "--quiet", "--strict", "--check", OPENSEARCH / "jars.sha256"], at=folder)
        _run(["javac", "-cp", f"{folder}/*", "-d", folder, OPENSEARCH / "OneNode.java"])

    return _kept("opensearch", OPENSEARCH, fill)


def _kept(name: str, recipe: Path, fill: Callable[[Path], None]) -> Path:
    """The folder of this version of the recipe, which gets its name when it is whole."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(recipe.iterdir()))).hexdigest()[:16]
    folder, partial = cache() / f"{name}-{digest}", cache() / f"{name}.partial"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fill(partial)
            partial.rename(folder)
    return folder


def _run(command: list[str | Path], at: Path | None = None) -> None:
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=at, timeout=900)
    if ran.returncode:
        raise Unavailable(f"`{' '.join(map(str, command[:3]))}` failed: {(ran.stdout + ran.stderr)[-500:]}")
