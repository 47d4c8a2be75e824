"""The image, really built: what is in it, and that it runs as the chart runs it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.image.building import Image, built_image
from cluster.image.container import Container
from keytrail import __version__
from keytrail.source.recording import read_recording
from keytrail.testing.fake_tetragon import FakeTetragon
from support.components.build import Unavailable
from support.components.child import Child, answers, free_ports
from support.processes import wait_until
from support.recordings import folder

pytestmark = [pytest.mark.cluster(), pytest.mark.timeout(1800)]
SECONDS = 60.0
PYTHON = "/opt/keytrail/bin/python"
_PACKAGES = """
import importlib.metadata as metadata, json
print(json.dumps(sorted((one.name.lower(), one.version) for one in metadata.distributions())))
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image of this tree."""
    try:
        with built_image() as found:
            yield found
    except Unavailable as error:
        pytest.skip(str(error))


def _environ(image: Image) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in image.configuration["Env"])


def _run(image: Image, *argv: str, tmp: bool = False, fails: bool = False) -> str:
    command = Container(image.root, tmp=tmp).command(argv, _environ(image))
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert bool(ran.returncode) is fails, ran.stdout[-3000:] + ran.stderr[-3000:]
    return ran.stderr if fails else ran.stdout


def test_configuration(image: Image) -> None:
    """User, group, entry point and labels are what the chart and a registry expect."""
    said = image.configuration
    assert said["User"] == "65532:0"
    assert said["Entrypoint"] == ["/opt/keytrail/bin/keytrail"]
    assert said["Cmd"] == ["collect"]
    assert _environ(image)["PYTHONSAFEPATH"] == "1"
    labels = {name.rpartition(".")[2]: value for name, value in said["Labels"].items()}
    assert labels["version"] == __version__
    assert labels["revision"] == "test"
    assert labels["licenses"] == "Apache-2.0"


def test_what_is_in_it(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly the locked packages, no installer, nothing of the tests, and nothing that runs as another user."""
    packages = dict(json.loads(_run(image, PYTHON, "-c", _PACKAGES)))
    lines = (Path(__file__).parents[3] / "requirements/image.txt").read_text().splitlines()
    pins = [line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith((" ", "#"))]
    locked = {name.lower(): version for name, version in pins}
    assert packages.pop("keytrail") == __version__
    unknown = {name: version for name, version in packages.items() if locked.get(name.replace("_", "-")) != version}
    assert unknown == {}
    assert not {"pip", "setuptools", "hatchling", "pytest"} & set(packages)
    site = next(image.root.glob("opt/keytrail/lib/python3*/site-packages"))
    assert not list(site.glob("*.pth")), "an editable install points at a tree that is not there"
    assert not (image.root / "src").exists()
    system = _run(image, "dpkg-query", "--show", "--showformat=${Package} ${Version}\n").splitlines()
    whole, ours = (_size(image.root / part) >> 20 for part in ("", "opt/keytrail"))
    report = (
        f"image: {whole} MiB, of them {ours} in /opt/keytrail; built in {image.seconds:.0f} s",
        f"Python packages ({len(packages) + 1}): " + ", ".join(f"{name} {packages[name]}" for name in packages),
        f"Debian packages of this base ({len(system)}): " + ", ".join(line.split(" ")[0] for line in system),
    )
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(report) + "\n")


def _size(folder_: Path) -> int:
    return sum(os.lstat(Path(at, name)).st_size for at, _, names in os.walk(folder_) for name in names)


def test_nothing_may_be_gained_or_written(image: Image) -> None:
    """A process of it has no capability, gains none, and writes nowhere."""
    status = _run(image, "cat", "/proc/self/status")
    held = {
        line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs"))
    }
    assert held.pop("NoNewPrivs") == "1"
    assert set(held.values()) == {"0000000000000000"}
    for place in ("/x", "/opt/keytrail/x", "/tmp/x", "/var/lib/x"):
        assert "Read-only file system" in _run(image, "touch", place, fails=True)


def test_demo(image: Image) -> None:
    """`keytrail demo` runs from the image, and nothing is lost."""
    assert "lost = 0" in _run(image, "/opt/keytrail/bin/keytrail", "demo", tmp=True)


def test_both_programs(image: Image) -> None:
    """Both entry points are there and of this version."""
    for program in ("keytrail", "keytrail-operator"):
        assert __version__ in _run(image, f"/opt/keytrail/bin/{program}", "--version")


def test_a_module_in_the_working_directory_is_not_taken(image: Image, tmp_path: Path) -> None:
    """A folder that somebody mounts and works in cannot replace a module of the standard library."""
    (tmp_path / "operator.py").write_text("raise SystemExit('taken')\n")
    tmp_path.chmod(0o755)
    command = ["sh", "-c", "cd /mnt && exec /opt/keytrail/bin/keytrail --version"]
    ran = subprocess.run(
        Container(image.root, {tmp_path: "/mnt:ro"}).command(command, _environ(image)),
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert __version__ in ran.stdout, ran.stderr


def test_collector(image: Image, tmp_path: Path) -> None:
    """The collector reads a socket of root:root, mode 0660, keeps a spool in a folder of its own, and ends as asked."""
    run, state = tmp_path / "tetragon", tmp_path / "state"
    for each in (run, state):
        each.mkdir()
    os.chown(state, 65532, 0)
    state.chmod(0o700)
    (port,) = free_ports(1)
    environ = _environ(image) | {
        "KEYTRAIL_OUTPUT": "findings",
        "KEYTRAIL_HTTP_ADDRESS": f"127.0.0.1:{port}",
        "KEYTRAIL_STATE_DIR": "/var/lib/keytrail",
        "KEYTRAIL_AGENT_METRICS_ADDRESS": "off",
    }
    container = Container(image.root, {run: "/var/run/tetragon:ro", state: "/var/lib/keytrail"})
    command = container.command([*image.configuration["Entrypoint"], "collect"], environ)
    with FakeTetragon(f"unix://{run}/tetragon.sock") as agent:
        assert _mode(run / "tetragon.sock") == 0o660
        ready = f"http://127.0.0.1:{port}/readyz"
        with Child("collector", command, tmp_path, ready=lambda: answers(ready)) as collector:
            agent.publish(read_recording(folder("seed-demo")))
            assert wait_until(lambda: '"rule":"unmapped-credential"' in collector.log, SECONDS), collector.log
            assert collector._process is not None
            collector._process.send_signal(signal.SIGTERM)
            assert collector._process.wait(20) == 0, collector.log
    assert "sk-test-not-a-real-key" not in collector.log
    assert any(state.iterdir())


def _mode(socket_: Path) -> int:
    """Give a socket the rights that an agent gives it."""
    assert socket_.is_socket()
    os.chown(socket_, 0, 0)
    socket_.chmod(0o660)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(socket_))
    return socket_.stat().st_mode & 0o777
