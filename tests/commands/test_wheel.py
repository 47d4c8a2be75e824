"""The distribution: what a user installs holds all that the commands need."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_wheel_holds_packages_library_and_recordings(tmp_path: Path) -> None:
    """A built wheel has both packages, the shipped manifests and the demo's recordings, and no test or corpus file."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "keytrail/cli.py",
        "keytrail/py.typed",
        "keytrail/library/identities/openai.yaml",
        "keytrail/library/tracing/tcp-connect.yaml",
        "keytrail/proto/tetragon/events_pb2.py",
        "keytrail/testing/recordings/seed-demo/grpc.pb.zst",
        "keytrail_operator/__init__.py",
    ):
        assert wanted in names
    assert not [name for name in names if name.startswith("tests/") or "corpus" in name]
