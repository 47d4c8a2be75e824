"""What was observed of an installation in, checks with the exact line that mends them out. Pure: looks at nothing.

The lines name the places where the three usual ways of running Tetragon keep a flag: a drop-in file per flag
(systemd), the command line (docker), the ConfigMap that its chart mounts as a folder of flags (kubectl).
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

FIELD_FILTER = {
    "fields": "process.environment_variables,parent.environment_variables,ancestors.environment_variables",
    "action": "EXCLUDE",
}
"""Keeps environments out of the agent's own JSON export and leaves its gRPC stream alone (tried on 1.7.0)."""

_ENVIRONMENT_PATHS = frozenset(FIELD_FILTER["fields"].split(","))
_DROP_INS = "/etc/tetragon/tetragon.conf.d"
_OLDEST = (1, 4)
_WITH_ENVIRONMENT = (1, 7)


Lines = tuple[tuple[str, str], ...]
"""Where, and the line to type there."""


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    verdict: Verdict
    found: str
    mend: Lines = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """All that a diagnosis needs to know. None means that it could not be found out."""

    address: str
    error: str = ""
    """Why the agent did not answer; empty when it did."""
    version: str = ""
    flags: Mapping[str, object] | None = None
    policies: Sequence[tuple[str, str, str]] | None = None
    """Name, state, error."""
    uid: int = 0
    groups: Sequence[int] = ()
    asking: str = ""
    """What a collector with these settings asks the agent for, as far as files tell."""
    asking_error: str = ""
    """Why its manifests are not usable."""
    cluster: str = ""
    """What the API server was asked for and gave; empty outside of a cluster."""
    cluster_error: str = ""
    backend: str = ""
    """What the backend answered, or why none was asked."""
    backend_error: str = ""
    backend_named: bool = False
    """Whether somebody said where the backend is: then records are meant to get there."""


def diagnose(seen: Observed) -> list[Check]:
    """Every check, in the order in which things depend on each other."""
    checks = [_agent(seen), _rights(seen)]
    if not seen.error:
        checks += [_version(seen), *_flags(seen), _policies(seen)]
    if seen.asking or seen.asking_error:
        checks.append(_stream(seen))
    if seen.cluster or seen.cluster_error:
        checks.append(_cluster(seen))
    checks.append(_backend(seen))
    return checks


def flag_lines(flag: str, value: str) -> Lines:
    """How to set one flag of the agent, for each way of running it."""
    patch = json.dumps({"data": {flag: value}})
    return (
        (
            "systemd",
            f"printf %s {shlex.quote(value)} | sudo tee {_DROP_INS}/{flag} && sudo systemctl restart tetragon",
        ),
        ("docker", f"run the container again with {shlex.quote(f'--{flag}={value}')} behind /usr/bin/tetragon"),
        (
            "kubectl",
            (
                f"kubectl -n kube-system patch configmap tetragon-config --type merge -p {shlex.quote(patch)}"
                " && kubectl -n kube-system rollout restart daemonset/tetragon"
            ),
        ),
    )


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a version such as `v1.7.0`; (0, 0) for what is none."""
    numbers = text.removeprefix("v").split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (ValueError, IndexError):
        return 0, 0


def _agent(seen: Observed) -> Check:
    if not seen.error:
        return Check("agent", Verdict.OK, f"answers at {seen.address}")
    mend: Lines = (
        ("systemd", "sudo systemctl start tetragon"),
        ("docker", "docker start tetragon"),
        ("kubectl", "kubectl -n kube-system rollout status daemonset/tetragon"),
    )
    if "no such host" in seen.error:
        mend = (("here", "keytrail doctor --agent unix:///var/run/tetragon/tetragon.sock"),)
    elif seen.uid != 0 and "permission" in seen.error.lower():
        mend = (("here", "sudo keytrail doctor   # the agent's socket belongs to root, mode 0660"),)
    return Check("agent", Verdict.CRITICAL, f"no answer at {seen.address}: {seen.error}", mend)


def _rights(seen: Observed) -> Check:
    if seen.uid == 0:
        return Check(
            "rights", Verdict.OK, "runs as root: may open the agent's socket, and read /proc with --proc-fallback"
        )
    if 0 in seen.groups:
        found = f"runs as user {seen.uid} in group 0: may open the agent's socket; --proc-fallback wants root"
        return Check("rights", Verdict.OK, found)
    found = f"runs as user {seen.uid}: the agent's socket wants root or group 0, --proc-fallback wants root"
    return Check("rights", Verdict.NOTE, found)


def _version(seen: Observed) -> Check:
    version = version_of(seen.version)
    if version == (0, 0):
        return Check("version", Verdict.NOTE, f"{seen.version or 'unknown'}: not a release that Keytrail knows")
    if version < _OLDEST:
        return Check("version", Verdict.WARNING, f"{seen.version}: Keytrail is tested with 1.4 and newer", _UPGRADE)
    if version < _WITH_ENVIRONMENT:
        found = f"{seen.version}: sends no environments: identities come from command lines alone (or --proc-fallback)"
        return Check("version", Verdict.WARNING, found, _UPGRADE)
    return Check("version", Verdict.OK, seen.version)


_UPGRADE = (("kubectl", "helm upgrade tetragon cilium/tetragon -n kube-system --reuse-values --version 1.7.0"),)


def _flags(seen: Observed) -> list[Check]:
    flags = seen.flags
    if flags is None:
        return [Check("flags", Verdict.NOTE, "this agent does not tell its flags (it does from 1.7 on)")]
    return [_environment(flags), _exporter(flags), _credentials(flags), _ancestors(flags), _metrics(flags)]


def _environment(flags: Mapping[str, object]) -> Check:
    if flags.get("enable-process-environment-variables") is not True:
        # Capture without the exporter's filter would put keys into the container's log: both lines, filter first.
        mend = flag_lines("field-filters", json.dumps(FIELD_FILTER)) + flag_lines(
            "enable-process-environment-variables", "true"
        )
        return Check("environment", Verdict.WARNING, "environments are not captured: no identity from a variable", mend)
    names = flags.get("filter-environment-variables")
    if names:
        listed = ", ".join(map(str, names)) if isinstance(names, list | tuple) else str(names)
        return Check("environment", Verdict.NOTE, f"captured, but only {listed}: other variables are unknown")
    return Check("environment", Verdict.OK, "environments are captured")


def _exporter(flags: Mapping[str, object]) -> Check:
    if flags.get("enable-process-environment-variables") is not True or not flags.get("export-filename"):
        return Check("exporter", Verdict.OK, "the agent's JSON export holds no environments")
    if _filters_environment(str(flags.get("field-filters") or "")):
        return Check("exporter", Verdict.OK, "environments are filtered out of the agent's JSON export")
    found = f"the agent writes every variable's value to {flags['export-filename']}, which its chart prints to logs"
    return Check("exporter", Verdict.CRITICAL, found, flag_lines("field-filters", json.dumps(FIELD_FILTER)))


def _filters_environment(text: str) -> bool:
    """Whether filters, one JSON object after another, take environments out of process, parent and ancestors."""
    decoder, at, excluded = json.JSONDecoder(), 0, set[str]()
    while at < len(text):
        try:
            entry, at = decoder.raw_decode(text, at + (len(text[at:]) - len(text[at:].lstrip())))
        except ValueError:
            break
        everywhere = isinstance(entry, dict) and not entry.get("event_set") and not entry.get("invert_event_set")
        if everywhere and entry.get("action") == "EXCLUDE":
            excluded |= set(str(entry.get("fields", "")).split(","))
    return excluded >= _ENVIRONMENT_PATHS


def _credentials(flags: Mapping[str, object]) -> Check:
    if flags.get("enable-process-cred") is True:
        return Check("credentials", Verdict.OK, "user ids and capabilities of processes are captured")
    found = "user ids and capabilities of processes are not captured: no finding on SUID, capabilities, memfd"
    return Check("credentials", Verdict.NOTE, found, flag_lines("enable-process-cred", "true"))


def _ancestors(flags: Mapping[str, object]) -> Check:
    given = flags.get("enable-ancestors") or ()
    names = given.split(",") if isinstance(given, str) else given
    if isinstance(names, list | tuple) and "base" in names:
        return Check("ancestors", Verdict.OK, "all ancestors of a process are sent with it")
    found = "only the parent is sent: further ancestors are known of what was started since the collector was"
    return Check("ancestors", Verdict.NOTE, found, flag_lines("enable-ancestors", "base"))


def _metrics(flags: Mapping[str, object]) -> Check:
    if flags.get("metrics-server"):
        return Check("metrics", Verdict.OK, f"the agent's drop counter is at {flags['metrics-server']}")
    found = "the agent has no metrics server: what it drops for a slow reader nobody can count"
    return Check("metrics", Verdict.NOTE, found, flag_lines("metrics-server", "localhost:2112"))


def _policies(seen: Observed) -> Check:
    if seen.policies is None:
        return Check("policies", Verdict.NOTE, "the agent did not list them")
    broken = [f"{name}: {error or state}" for name, state, error in seen.policies if state in ("load_error", "error")]
    if broken:
        names = " ".join(shlex.quote(name) for name, state, _ in seen.policies if state in ("load_error", "error"))
        return Check("policies", Verdict.WARNING, "; ".join(broken), (("here", f"keytrail policies delete {names}"),))
    if not seen.policies:
        found = "none is loaded: executions are seen, connections are not"
        mend = (("here", "keytrail policies load tcp-connect"), ("here", "keytrail policies needed   # by the rules"))
        return Check("policies", Verdict.WARNING, found, mend)
    return Check("policies", Verdict.OK, ", ".join(f"{name} {state}" for name, state, _ in seen.policies))


def _stream(seen: Observed) -> Check:
    if not seen.asking_error:
        return Check("stream", Verdict.OK, f"asks the agent for {seen.asking}")
    return Check("stream", Verdict.CRITICAL, seen.asking_error, (("here", "keytrail config show"),))


def _cluster(seen: Observed) -> Check:
    if not seen.cluster_error:
        return Check("cluster", Verdict.OK, seen.cluster)
    mend = (("kubectl", "kubectl get clusterrole,clusterrolebinding --selector=app.kubernetes.io/part-of=keytrail"),)
    return Check("cluster", Verdict.CRITICAL, seen.cluster_error, mend)


def _backend(seen: Observed) -> Check:
    if not seen.backend_error:
        return Check("backend", Verdict.OK, seen.backend)
    if seen.backend_named:
        mend: Lines = (
            ("here", "OTEL_EXPORTER_OTLP_ENDPOINT is to name a receiver of OTLP logs that answers"),
            ("kubectl", "helm upgrade keytrail ... --reuse-values --set collector.otlp.endpoint=http://HOST:4317"),
        )
        return Check("backend", Verdict.CRITICAL, seen.backend_error, mend)
    mend = (("here", "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317"),)
    return Check("backend", Verdict.WARNING, seen.backend_error, mend)
