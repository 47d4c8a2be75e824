"""The alerts, judged by Prometheus's own promtool."""

import shutil
import subprocess
from pathlib import Path

import pytest

from chart.rendering import CHART

pytestmark = [pytest.mark.cluster(), pytest.mark.timeout(60)]


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    """Each fires in time, and none on a node that is well."""
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("there is no promtool on the PATH; Debian has it in the package prometheus")
    shutil.copy(CHART / "files" / "alerts.yaml", tmp_path)
    shutil.copy(Path(__file__).parent / "alerts_test.yaml", tmp_path)
    for arguments in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        ran = subprocess.run([promtool, *arguments], check=False, capture_output=True, text=True, cwd=tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr
