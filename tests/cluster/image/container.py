"""Processes of an image as a kubelet's runtime starts them: the image as their root, read-only, and almost no rights.

In: an image, a command, an environment, folders to mount. Out: a command line for `support.components.child.Child` or
subprocess. No network, process or user namespace of its own: what it talks to is on the loopback of the test.
"""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MOUNTS = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount --options remount,bind,ro "$root"
mount --types proc proc "$root/proc"
mount --rbind /dev "$root/dev"
{binds}
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Container:
    """What a container of a pod may be and see."""

    root: Path
    binds: Mapping[Path, str] = field(default_factory=dict)
    """Folder of the test -> where it is mounted; with `:ro` read-only."""
    user: int = 65532
    group: int = 0
    capabilities: Sequence[str] = ()
    tmp: bool = False
    """A /tmp in memory."""

    def command(self, argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
        """The command line; every process in it becomes the next, so that its pid is that of the container."""
        lines = []
        for source, target in self.binds.items():
            place, _, mode = target.partition(":")
            at = shlex.quote(str(self._mount_point(place)))
            lines.append(f"mount --bind {shlex.quote(str(source))} {at}")
            if mode == "ro":
                lines.append(f"mount --options remount,bind,ro {at}")
        if self.tmp:
            lines.append('mount --types tmpfs --options mode=1777 tmpfs "$root/tmp"')
        rights = ",".join(["-all", *(f"+{name.lower()}" for name in self.capabilities)])
        drop = [
            "setpriv", "--pdeathsig", "KILL", f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups",
            f"--bounding-set={rights}", f"--inh-caps={rights}", "--no-new-privs", "--",
        ]  # fmt: skip
        variables = ["env", "--ignore-environment", *(f"{name}={value}" for name, value in environ.items())]
        script = _MOUNTS.format(binds="\n".join(lines))
        inside = [*drop, *variables, *argv]
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(self.root), *inside]

    def _mount_point(self, place: str) -> Path:
        """Make a mount point, as the runtime does; /var/run is a link, whose target is below the image's root."""
        made = ["chroot", self.root, "sh", "-c", 'mkdir --parents "$1" && realpath "$1"', "sh", place]
        return self.root / subprocess.run(made, check=True, stdout=subprocess.PIPE, text=True).stdout.strip().lstrip(
            "/"
        )
