"""Who runs in a container and who only bears its id."""

from collections.abc import Iterable

import pytest

from keytrail.domain.placement import Provenance
from keytrail.domain.process import Process
from keytrail.enrich.origin import origin_of, runtime_test

CONTAINER = "c" * 31
SHIM = "/usr/bin/containerd-shim-runc-v2"


def process(binary: str, *, inside: bool = False, host: bool | None = None, **fields: object) -> Process:
    """A process; `inside`: it bears the container's id, `host`: it has the node's namespaces."""
    container_id = CONTAINER if inside else ""
    return Process(binary, binary=binary, container_id=container_id, host_namespaces=host, **fields)  # type: ignore[arg-type] # fields by name


def provenance(*chain: Process, more: Iterable[str] = ()) -> Provenance:
    """What is concluded of the first of a chain, each the child of the next."""
    return origin_of(chain[0], chain[1:], runtime_test(more)).provenance


def test_started_by_a_runtime() -> None:
    """The container's program, its children and what kubectl exec brings in descend from a shim of the node."""
    app = process("/app", inside=True, host=False, in_init_tree=True)
    assert provenance(app, process(SHIM)) is Provenance.GENUINE
    assert provenance(process("/bin/sh", inside=True, host=False), app, process(SHIM)) is Provenance.GENUINE
    assert provenance(process("/bin/sh", inside=True, host=False), process(SHIM)) is Provenance.GENUINE


def test_forged_by_a_process_of_the_node() -> None:
    """The recorded one has the node's namespaces; one that made its own still was started by no runtime."""
    shell = process("/bin/sh", host=True)
    assert provenance(process("/usr/bin/curl", inside=True, host=True), shell) is Provenance.FORGED
    assert provenance(process("/usr/bin/curl", inside=True, host=False, in_init_tree=True), shell) is Provenance.FORGED
    assert provenance(process("/usr/bin/curl", inside=True), shell) is Provenance.FORGED


def test_forged_below_a_runtime() -> None:
    """What a runtime starts never has both of the node's namespaces at first."""
    assert provenance(process("/bin/sh", inside=True, host=True), process(SHIM)) is Provenance.FORGED


def test_entering_the_nodes_namespaces_later_is_no_forgery() -> None:
    """A privileged pod's nsenter is still that pod's process: descendants share the answer of their first."""
    shell = process("/bin/sh", inside=True, host=False)
    escaped = process("/usr/bin/nsenter", inside=True, host=True)
    assert provenance(process("/bin/bash", inside=True, host=True), escaped, shell, process(SHIM)) is Provenance.GENUINE


def test_answer_is_taken_from_the_nearest_ancestor_that_has_one() -> None:
    """The way up is walked once for a tree; its first process's variables are what the runtime gave."""
    first = process("/app", inside=True, host=False, environment=("PATH", "KEY"))
    first.origin = origin_of(first, [process(SHIM)], runtime_test())
    child = process("/bin/sh", inside=True, host=False, environment=("PATH", "KEY", "MORE"))
    assert origin_of(child, [first], runtime_test()) is first.origin
    assert first.origin.environment == ("PATH", "KEY")


@pytest.mark.parametrize(
    "runtime",
    [
        "/usr/bin/runc",
        "/usr/local/sbin/runc",
        "/usr/bin/crun",
        "/usr/libexec/crio/conmon",
        "/var/lib/rancher/k3s/data/abc/bin/containerd-shim-runc-v2",
        "/snap/microk8s/1/bin/containerd-shim-runc-v2",
        "/home/containerd/usr/local/bin/containerd-shim-runc-v2",
        "/x86_64-bottlerocket-linux-gnu/sys-root/usr/bin/containerd-shim-runc-v2",
        "/usr/local/nvidia/toolkit/nvidia-container-runtime.real",
        "/opt/vendor/special-shim",
    ],
)
def test_runtimes_of_many_distributions(runtime: str) -> None:
    """They are known by name, wherever a distribution installs them; further names can be given."""
    inside = process("/app", inside=True, host=False)
    assert provenance(inside, process(runtime), more=["special-shim"]) is Provenance.GENUINE


@pytest.mark.parametrize("imitation", ["/tmp/runc", "/dev/shm/conmon", "/home/eve/runc", "runc", "/usr/bin/not-runc"])
def test_imitated_runtimes(imitation: str) -> None:
    """A runtime's name on a file of anybody's proves nothing."""
    assert provenance(process("/app", inside=True, host=False), process(imitation)) is Provenance.FORGED


def test_stages_of_a_runtime_are_looked_through() -> None:
    """Runc executes itself from memory before the program: who started that decides."""
    inside, stage = process("/app", inside=True, host=False), process("/proc/self/exe")
    assert provenance(inside, stage, process("/usr/bin/runc")) is Provenance.GENUINE
    assert provenance(inside, stage, process("/bin/bash")) is Provenance.FORGED


def test_monitor_in_the_containers_own_group() -> None:
    """CRI-O's conmon bears the container's id without being in it; what it starts is in it."""
    conmon = process("/usr/bin/conmon", inside=True, host=True)
    init = process("/usr/lib/systemd/systemd", host=True)
    assert provenance(conmon, init) is Provenance.RUNTIME
    assert provenance(process("/app", inside=True, host=False), conmon, init) is Provenance.GENUINE
    assert provenance(process("/app", inside=True, host=True), conmon, init) is Provenance.FORGED


def test_runtime_that_begins_in_the_containers_group() -> None:
    """It may be moved there before it executes its copy: its variables are not those that the container gets."""
    shim = process(SHIM)
    stage = process("/proc/self/fd/6", inside=True, host=True, environment=("_LIBCONTAINER_INITPIPE",))
    assert provenance(stage, process("/usr/bin/runc", host=True)) is Provenance.RUNTIME
    stage.origin = origin_of(stage, [shim], runtime_test())
    app = process("/app", inside=True, host=False, environment=("PATH", "KEY"))
    found = origin_of(app, [stage, shim], runtime_test())
    assert (found.provenance, found.environment) == (Provenance.GENUINE, ("PATH", "KEY"))
    assert provenance(stage, process("/bin/bash", host=True)) is Provenance.FORGED


def test_copy_of_itself_inside_a_container() -> None:
    """Programs execute themselves as well: the answer is that of the process above."""
    app = process("/chrome", inside=True, host=False)
    app.origin = origin_of(app, [process(SHIM)], runtime_test())
    assert (
        origin_of(process("/x", inside=True), [process("/proc/self/exe", inside=True), app], runtime_test())
        is app.origin
    )


def test_nothing_known_of_the_parent() -> None:
    """Then the namespaces have the word; without them nothing does, and that is said."""
    assert provenance(process("/app", inside=True, host=False)) is Provenance.GENUINE
    assert provenance(process("/app", inside=True, host=True)) is Provenance.FORGED
    assert provenance(process("/app", inside=True, in_init_tree=True)) is Provenance.GENUINE
    assert provenance(process("/app", inside=True)) is Provenance.UNVERIFIED


def test_orphan_of_before_the_agent() -> None:
    """What the agent found in /proc may have been adopted since: its parent proves nothing."""
    orphan = process("/app", inside=True, host=False, flags="procFS")
    assert provenance(orphan, process("/usr/lib/systemd/systemd")) is Provenance.UNVERIFIED
