"""Real programs that tests run against, built from source once and kept outside the tree.

In: the recipes in `tests/cluster/components` (a go.mod with `tool` lines and its go.sum, a builder's manifest) and a
Go toolchain. Out: folders of programs in the cache, each named after a hash of all that went into it, so that a changed
version is a new folder and an unchanged one costs nothing. Knows nothing of how a program is run.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

TESTS = Path(__file__).parent.parent.parent
SOURCE = TESTS.parent / "collector" / "src"
PROTOS = SOURCE / "keytrail" / "proto" / "tetragon"
RECIPES = TESTS / "cluster" / "components"
INPUTS = {".go", ".mod", ".sum"}
MANIFEST = "manifest.yaml"
FLAGS = ("-trimpath", "-buildvcs=false", "-v")
ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
"""No C compiler, and nothing of the user's own Go settings but where modules come from."""
REPORT_EVERY = 30.0


class Unavailable(Exception):  # noqa: N818 - no error: this machine cannot build, and the tests say so
    """What the machine lacks for building."""


class BuildFailed(Exception):  # noqa: N818 - reads as what happened, with the end of the output
    """A build that ended badly; its whole output was kept."""


@dataclass(frozen=True)
class Component:
    """Programs that are built together."""

    name: str
    programs: tuple[str, ...]
    source: Path
    package: str = "tool"
    """What `go build` is given: `tool` stands for every tool line of go.mod."""
    link: str = "-s -w"
    renamed: tuple[tuple[str, str], ...] = ()
    """Go names a program after the last part of its path, which says nothing for some."""
    messages: tuple[str, ...] = ()
    """Tetragon's message files that are made into Go for it, as its package `tetragon`."""
    seldom: bool = False
    """Only the long tests need it: built when one of them asks for it."""


def _linked_as(version: str) -> str:
    """Flags that say which Kubernetes it is: unset, that is a template which kubectl and Helm refuse to parse."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items())])


KUBERNETES = Component(
    "kubernetes",
    ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
    RECIPES / "kubernetes",
    link=_linked_as("1.36.3"),
    renamed=(("server", "etcd"),),
)
OLDEST = Component("kubernetes-1.31", ("kube-apiserver",), RECIPES / "kubernetes-1.31", link=_linked_as("1.31.14"))
"""The oldest that the charts ask for: an API server alone, for which etcd and kubectl of the newest are good enough."""
BETWEEN = Component(
    "kubernetes-1.33", ("kube-apiserver",), RECIPES / "kubernetes-1.33", link=_linked_as("1.33.13"), seldom=True
)
"""One between the two, in the same way."""
KWOK = Component("kwok", ("kwok",), RECIPES / "kwok")
HELM = Component("helm", ("helm",), RECIPES / "helm")
COLLECTOR = Component("collector", ("otelcol",), RECIPES / "collector", renamed=(("builder", "otelcol"),))
LOKI = Component("loki", ("loki",), RECIPES / "loki")
GO_SERVER = Component("go-server", ("go_server",), TESTS / "source" / "go_server", package=".")
GO_CLIENT = Component(
    "go-client",
    ("go_client",),
    TESTS / "bench" / "go_client",
    package=".",
    messages=("events", "tetragon", "capabilities", "bpf"),
)
COMPONENTS = {one.name: one for one in (GO_SERVER, GO_CLIENT, COLLECTOR, KUBERNETES, OLDEST, BETWEEN, KWOK, LOKI, HELM)}


def cache() -> Path:
    """Where programs are kept."""
    return Path(os.environ.get("KEYTRAIL_TEST_CACHE") or Path.home() / ".cache" / "keytrail-tests")


def built(component: Component) -> Path | None:
    """The folder of a component's programs, if this version of it was built."""
    folder = cache() / f"{component.name}-{_key(component)}"
    return folder if folder.is_dir() else None


def build(component: Component) -> Path:
    """Build what is not there yet. Raises Unavailable without Go or modules, BuildFailed with the end of the output."""
    if shutil.which("go") is None:
        raise Unavailable("the real components are built with Go, and there is no `go`")
    if (folder := built(component)) is not None:
        return folder
    with _alone(component.name):
        # Another process may have built it while this one waited.
        return built(component) or _build(component)


def _key(component: Component) -> str:
    """A hash of everything that decides what comes out."""
    flags = (component.programs, component.package, component.link, FLAGS, sorted(ENVIRONMENT.items()))
    digest = hashlib.sha256(repr(flags).encode())
    digest.update(subprocess.check_output(["go", "env", "GOVERSION", "GOOS", "GOARCH"]))
    for path in sorted(component.source.rglob("*")):
        if path.suffix in INPUTS or path.name == MANIFEST:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in component.messages:
        digest.update((PROTOS / f"{name}.proto").read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the component's lock, which the kernel takes back from a process that dies."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{name}: another process is building it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(component: Component) -> Path:
    """Build into a folder that gets its name when it is whole."""
    for left in cache().glob(f"{component.name}.partial-*"):
        shutil.rmtree(left)  # of a build that was killed: this process holds the lock
    partial = cache() / f"{component.name}.partial-{os.getpid()}"
    programs = partial / "bin"
    programs.mkdir(parents=True)
    log = cache() / f"{component.name}.log"
    started = time.monotonic()
    _say(f"{component.name}: building {', '.join(component.programs)}; the output is in {log}")
    try:
        with log.open("w") as output:
            _compile(component, partial, output)
        for old, new in component.renamed:
            (programs / old).rename(programs / new)
        sizes = [(programs / program).stat().st_size >> 20 for program in component.programs]
        target = cache() / f"{component.name}-{_key(component)}"
        programs.rename(target)
    except BuildFailed as error:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise BuildFailed(f"{component.name}: {error}; the end of {log}:\n{end}") from None
    finally:
        shutil.rmtree(partial)
    _say(f"{component.name}: built in {time.monotonic() - started:.0f} s, {' + '.join(map(str, sizes))} MiB")
    return target


def _compile(component: Component, partial: Path, output: TextIO) -> None:
    """Fetch, then compile: only the first may fail for want of a network."""
    source = component.source
    if _run(component.name, ["go", "mod", "download"], source, output):
        said = Path(output.name).read_text(errors="replace").splitlines() or [""]
        raise Unavailable(f"the modules of {component.name} cannot be had: {said[-1]}")
    if (manifest := source / MANIFEST).exists():
        source = partial / "generated"
        options = ["--skip-compilation", "--config", str(manifest), "--output-path", str(source)]
        _require(component.name, ["go", "tool", "builder", *options], component.source, output)
    if component.messages:
        source = Path(shutil.copytree(source, partial / "source"))
        _translate(component, partial, source, output)
    package = "." if source != component.source else component.package
    command = ["go", "build", *FLAGS, "-ldflags", component.link, "-o", f"{partial / 'bin'}/", package]
    _require(component.name, command, source, output)


def _translate(component: Component, partial: Path, source: Path, output: TextIO) -> None:
    """Make Go of Tetragon's messages, by the generator that the component's go.mod names."""
    generator = partial / "protoc-gen-go"
    plugin = ["go", "build", "-o", str(generator), "google.golang.org/protobuf/cmd/protoc-gen-go"]
    _require(component.name, plugin, source, output)
    module = component.programs[0]
    files = [str(PROTOS / f"{name}.proto") for name in component.messages]
    packages = [f"--go_opt=M{Path(file).relative_to(SOURCE)}={module}/tetragon" for file in files]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--plugin={generator}", f"--proto_path={SOURCE}"]
    _require(
        component.name, [*command, f"--go_out={source}", f"--go_opt=module={module}", *packages, *files], source, output
    )


def _require(name: str, command: list[str], folder: Path, output: TextIO) -> None:
    if code := _run(name, command, folder, output):
        raise BuildFailed(f"`{' '.join(command[:3])}` ended with {code}")


def _run(name: str, command: list[str], folder: Path, output: TextIO) -> int:
    """Run one step in a process group of its own, as compilers are grandchildren; say now and then that it lives."""
    with subprocess.Popen(
        command, cwd=folder, stdout=output, stderr=output, env=os.environ | ENVIRONMENT, start_new_session=True
    ) as process:
        started = time.monotonic()
        try:
            while True:
                try:
                    return process.wait(REPORT_EVERY)
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - started
                    done = Path(output.name).read_bytes().count(b"\n")  # `go build -v` names each package
                    _say(f"{name}: `{' '.join(command[:3])}` for {seconds:.0f} s, {done} lines of output")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _say(text: str) -> None:
    print(f"components: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a build of minutes shows that it lives
