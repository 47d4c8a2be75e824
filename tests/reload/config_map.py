"""A mounted ConfigMap, as the kubelet keeps it, and the manifests that the tests of this folder put in."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

RULE = """apiVersion: keytrail.io/v1alpha1
kind: DetectionRule
metadata: {{name: {name}}}
spec:
  title: A test's own rule
  description: Tells which version of it is in force.
  severity: low
  maturity: stable
  mitre: [{{tactic: TA0002, technique: T1059.004}}]
  events: [{events}]
  parameters: {{word: "{word}"}}
  condition: {condition}
  message: "{message}"
{more}"""
MAPPING = """apiVersion: keytrail.io/v1alpha1
kind: ClusterIdentityMapping
metadata: {{name: {name}}}
spec:
  identity: {{id: "{id}", kind: api_key, provider: openai}}
  evidence: {{env: [{{name: OPENAI_API_KEY}}]}}
"""
SUPPRESS = "  suppress: {by: [process.binary], window: 10m}\n"


def rule(
    name: str,
    *,
    events: str = "exec",
    condition: str = "process.pid > 1",
    message: str = "seen",
    word: str = "",
    more: str = "",
) -> str:
    """A DetectionRule."""
    return RULE.format(name=name, events=events, condition=condition, message=message, word=word, more=more)


def mapping(identity: str, name: str = "openai") -> str:
    """A mapping of OPENAI_API_KEY to an identity."""
    return MAPPING.format(name=name, id=identity)


class ConfigMap:
    """A folder whose files are links through `..data` into a folder that is swapped in one step."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self._versions = 0
        folder.mkdir()
        self.replace(files)

    def replace(self, files: Mapping[str, str]) -> None:
        """Put other content in place, by the kubelet's own steps."""
        self._versions += 1
        data = self.folder / "..data"
        before = data.resolve() if data.exists() else None
        content = self.folder / f"..2026_11_22_{self._versions}"
        content.mkdir()
        for name, text in files.items():
            (content / name).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(content.name)
        os.replace(link, data)  # noqa: PTH105 - the system call that the kubelet makes
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for path in self.folder.iterdir():
            if not path.name.startswith("..") and path.name not in files:
                path.unlink()
        if before is not None:
            shutil.rmtree(before)
