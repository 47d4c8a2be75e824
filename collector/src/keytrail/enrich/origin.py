"""A process and its ancestors in; out how it came to bear a container's id.

The agent reads that id from the name of the process's cgroup, and root on a node can make a cgroup of any name: such a
process then shows another workload's pod in all its events (recording `kubernetes`, window forged-cgroup). What cannot
be had by a name alone: the first process of a container, and each that is brought in later, was started by a container
runtime, and has a pid and a mount namespace that are not both the node's. Root can still ask the runtime itself.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

from keytrail.domain.placement import Origin, Provenance
from keytrail.domain.process import Process

_RUNTIME: Final = (
    r"containerd-shim[-a-z0-9]*|containerd|dockerd|buildkitd|cri-dockerd|conmon|conmonrs|crio|crio-conmonrs"
    r"|podman|runc|crun|youki|runsc|sysbox-runc|nvidia-container-runtime[-.a-z]*|kata-[a-z]+"
)
_ANYONES: Final = ("/tmp/", "/var/tmp/", "/dev/shm/", "/root/", "/home/", "/run/user/", "/proc/", "/dev/fd/")  # noqa: S108 - compared with
"""Places for programs of anybody's: what lies there is no runtime, whatever its name."""
_INSTALLED_AT_HOME: Final = ("/home/kubernetes/", "/home/containerd/")
_STAGE: Final = re.compile(r"/proc/(self|[0-9]+)/(exe|fd/[0-9]+)|/dev/fd/[0-9]+|/memfd:.*")
"""runc executes a copy of itself before it becomes the container's program, at times in the container's cgroup."""

IsRuntime = Callable[[str], bool]


def runtime_test(more: Iterable[str] = ()) -> IsRuntime:
    """Make the test whether a path is a container runtime's; `more` are names of further ones, such as `my-shim`."""
    names = re.compile("|".join((_RUNTIME, *map(re.escape, more))))

    def is_runtime(path: str) -> bool:
        if path.startswith(_ANYONES) and not path.startswith(_INSTALLED_AT_HOME):
            return False
        return path.startswith("/") and names.fullmatch(path.rpartition("/")[2]) is not None

    return is_runtime


def origin_of(process: Process, ancestors: Iterable[Process], is_runtime: IsRuntime) -> Origin:
    """Judge the first process of the tree that bears this container's id; its descendants share the answer."""
    top, above = process, iter(ancestors)
    for one in above:
        if one.container_id != process.container_id:
            return Origin(_provenance(top, chain((one,), above), is_runtime), top.environment)
        if _is_runtime_itself(one, is_runtime):
            return Origin(Provenance.FORGED if top.host_namespaces else Provenance.GENUINE, top.environment)
        if _STAGE.fullmatch(one.binary) is None:
            if one.origin is not None:
                return one.origin
            top = one
    return Origin(_provenance(top, iter(()), is_runtime), top.environment)


def _is_runtime_itself(process: Process, is_runtime: IsRuntime) -> bool:
    """A runtime in the container's cgroup and yet on the node: CRI-O puts the monitor there, runc begins there."""
    return is_runtime(process.binary) and process.host_namespaces is not False


def _provenance(top: Process, above: Iterator[Process], is_runtime: IsRuntime) -> Provenance:
    if _is_runtime_itself(top, is_runtime):
        return Provenance.RUNTIME
    starter = next((one for one in above if _STAGE.fullmatch(one.binary) is None), None)
    started = starter is not None and is_runtime(starter.binary)
    if started and _STAGE.fullmatch(top.binary) is not None:
        return Provenance.RUNTIME
    if top.host_namespaces:
        return Provenance.FORGED
    if started:
        return Provenance.GENUINE
    if starter is not None and starter.binary and not top.preexisting:
        return Provenance.FORGED
    # Of what ran before the agent the parent may be who adopted it; without a parent the namespaces have the word.
    seen = starter is None and (top.host_namespaces is False or top.in_init_tree)
    return Provenance.GENUINE if seen else Provenance.UNVERIFIED
