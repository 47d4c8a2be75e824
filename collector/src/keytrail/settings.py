"""The collector's settings: one frozen object, with the meaning, unit and bounds of each.

What is declared here is all there is: `keytrail.settings_sources` reads it from file, environment and flags, and
nothing is started before that. Where records are sent is not here: OpenTelemetry's own OTEL_ variables say that.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final

from keytrail.choices import Choice, LogFormat, LogLevel, OtlpRecords, Output, Peers, Reader
from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.domain.objects import CIDR
from keytrail.domain.shape import (
    RE2_EXPRESSION,
    Doc,
    Fault,
    Rules,
    suggestion,
)

RULE_WORDS: Final = ("stable", "all", "none")
"""What `rules` takes beside a folder."""


def _file(description: str, example: str) -> Doc:
    return Doc(description, example, max_length=4096)


def _text(description: str, example: str) -> Doc:
    return Doc(description, example, min_length=0, max_length=4096)


def _amount(description: str, example: int, unit: str, *, minimum: float = 1, maximum: float = 10_000_000) -> Doc:
    return Doc(description, example, unit=unit, minimum=minimum, maximum=maximum)


def _expressions(description: str, example: str) -> Doc:
    full = f"{description} Expressions in RE2's syntax, found anywhere in the text; any of them suffices. Empty: all."
    return Doc(full, [example], max_items=64, max_length=256, format=RE2_EXPRESSION)


def _names(description: str, *example: str, min_length: int = 1) -> Doc:
    return Doc(f"{description} Empty: all.", list(example), max_items=256, min_length=min_length, max_length=253)


def _tls_fits(settings: "Settings") -> Iterator[Fault]:
    files = {name: getattr(settings, name) for name in ("agent_tls_ca", "agent_tls_cert", "agent_tls_key")}
    for name, path in files.items():
        if path is not None and not path.is_file():
            yield Fault((name,), "there is no such file")
    for name, other in (("agent_tls_cert", "agent_tls_key"), ("agent_tls_key", "agent_tls_cert")):
        if files[name] and not files[other]:
            yield Fault((name,), f"needs {other} too")
    given = [name for name in (*files, "agent_tls_server_name") if getattr(settings, name)]
    if given and settings.agent_address.startswith(("unix:", "/")):
        yield Fault((given[0],), "TLS is for an agent at host:port, and agent_address is a socket")


def _kubeconfig_fits(settings: "Settings") -> Iterator[Fault]:
    if settings.kubeconfig is not None and not settings.kubeconfig.is_file():
        yield Fault(("kubeconfig",), "there is no such file")
    if settings.kubeconfig_context and settings.kubeconfig is None:
        yield Fault(("kubeconfig_context",), "needs kubeconfig too")


def _rules_fit(settings: "Settings") -> Iterator[Fault]:
    if settings.rules not in RULE_WORDS and not Path(settings.rules).exists():
        hint = suggestion(settings.rules, RULE_WORDS)
        near = f", {hint}" if hint.startswith("did you mean") else ""
        yield Fault(
            ("rules",), f"expected {', '.join(RULE_WORDS)} or a folder of rules, and there is no such folder{near}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the collector. `origins` says where each one that is not the default came from."""

    agent_address: Annotated[
        str,
        _text(
            "Where Tetragon's gRPC API is: unix:///path, a socket's path, or host:port. Empty: found from the agent's "
            "tetragon-info.json, then its usual sockets, then localhost:54321.",
            "unix:///var/run/tetragon/tetragon.sock",
        ),
    ] = ""
    agent_tls_ca: Annotated[
        Path | None,
        _file("PEM file of the CAs to trust. Any agent_tls_ setting switches TLS on.", "/etc/keytrail/ca.crt"),
    ] = None
    agent_tls_cert: Annotated[
        Path | None, _file("PEM file of our certificate, for an agent that asks for one.", "/etc/keytrail/tls.crt")
    ] = None
    agent_tls_key: Annotated[
        Path | None, _file("PEM file of the private key of agent_tls_cert.", "/etc/keytrail/tls.key")
    ] = None
    agent_tls_server_name: Annotated[
        str, _text("Name expected in the agent's certificate. Empty: the host of agent_address.", "tetragon.local")
    ] = ""
    reader: Annotated[
        Reader,
        Doc(
            "Who reads the stream: http2 (our own, quicker), grpcio (also TLS), or auto: http2 while it can.", "grpcio"
        ),
    ] = Reader.AUTO
    config: Annotated[
        Path | None,
        _file(
            "Folder of manifests, such as identity mappings, read at start and when it changes.",
            "/etc/keytrail/manifests",
        ),
    ] = None
    output: Annotated[
        tuple[Output, ...],
        Doc(
            "Where records go: json and line write events to standard output, findings writes findings as JSON lines, "
            "otlp sends to the backend that the variable OTEL_EXPORTER_OTLP_ENDPOINT names.",
            ["otlp", "json"],
            min_items=1,
            max_items=4,
        ),
    ] = (Output.OTLP,)
    otlp_records: Annotated[
        tuple[OtlpRecords, ...],
        Doc("What otlp sends. events: every event, many times the volume.", ["events"], min_items=1, max_items=2),
    ] = (OtlpRecords.FINDINGS,)
    rules: Annotated[
        str,
        Doc(
            "Detection rules that run: stable, all, none, or a folder of rules in place of the shipped ones. "
            "Rules in the folder of `config` come on top.",
            "all",
            max_length=4096,
        ),
    ] = "stable"
    color: Annotated[Choice, Doc("Colours of line output. auto: on a terminal that wants them.", "never")] = Choice.AUTO
    queue_capacity: Annotated[
        int,
        _amount(
            "How many events may wait, in 2 KiB of memory each: 128 MiB together. Beyond either, new ones are dropped "
            "and counted: the agent does not wait.",
            65536,
            "events",
        ),
    ] = 65536
    gather_ms: Annotated[
        int,
        Doc(
            "How long events gather in the agent's socket after it brought few, to be read and decided on together: "
            "most of what a quiet stream costs is waking up. The first after a silence never waits. "
            "0: each at once, at more CPU; so does the reader grpcio.",
            5,
            unit="milliseconds",
            minimum=0,
            # At an agent's best, 76,000 events a second, its queue of 10,000 holds what comes in 130 ms.
            maximum=100,
        ),
    ] = 5
    process_capacity: Annotated[
        int, _amount("How many processes are remembered. Beyond, evictions are counted.", 32768, "processes")
    ] = 32768
    state_dir: Annotated[
        Path | None,
        _file(
            "Folder that survives a restart: records not yet delivered (in spool/), and which names of credentials "
            "running processes carry. Empty: both in memory only, and lost with the process.",
            "/var/lib/keytrail",
        ),
    ] = None
    spool_bytes: Annotated[
        int,
        _amount(
            "How much undelivered records may take on disk in state_dir; in memory, without one, at most 64 MiB. "
            "Beyond, the oldest of the lowest severity go first, counted.",
            1 << 30,
            "bytes",
            minimum=1 << 20,
            maximum=1 << 40,
        ),
    ] = 1 << 30
    spool_age_hours: Annotated[
        int,
        _amount("How long an undelivered record is kept. Beyond, it is dropped, counted.", 72, "hours", maximum=8760),
    ] = 72
    requests_in_flight: Annotated[
        int,
        _amount(
            "How many requests to the OTLP backend may wait for an answer. Records of one workload stay in order.",
            2,
            "requests",
            maximum=32,
        ),
    ] = 2
    http_address: Annotated[
        str,
        _text(
            "Where /metrics (Prometheus), /healthz, /readyz and /status are served, as host:port. off: nowhere.",
            "0.0.0.0:9464",
        ),
    ] = "127.0.0.1:9464"
    agent_metrics_address: Annotated[
        str,
        _text(
            "host:port of the agent's own metrics, watched for events that it dropped. Empty: found from the agent's "
            "tetragon-info.json. off: not watched.",
            "localhost:2112",
        ),
    ] = ""
    backfill_file: Annotated[
        Path | None,
        _file(
            "The agent's JSON export file. After a gap the missing interval is read from it and its rotated files.",
            "/var/run/cilium/tetragon/tetragon.log",
        ),
    ] = None
    reload_seconds: Annotated[
        int,
        Doc(
            "How often the files of `config`, `rules` and the settings file are looked at for a change. "
            "0: only after SIGHUP.",
            2,
            unit="seconds",
            minimum=0,
            maximum=3600,
        ),
    ] = 2
    kubernetes: Annotated[
        Choice,
        Doc(
            "Ask the API server: for pods, for manifests in the cluster, to say how this node is doing. auto: when "
            "`kubeconfig` is given, or in a Pod that has a ServiceAccount's token.",
            "never",
        ),
    ] = Choice.AUTO
    kubeconfig: Annotated[
        Path | None,
        _file("How to reach the API server. Empty: as the Pod that this runs in.", "/etc/keytrail/kubeconfig"),
    ] = None
    kubeconfig_context: Annotated[
        str, _text("Which context of `kubeconfig` to use. Empty: its current one.", "production")
    ] = ""
    node_name: Annotated[
        str,
        _text(
            "Name of the Node that this runs on, in a Pod from the field spec.nodeName. Empty: the host's name.",
            "worker-1",
        ),
    ] = ""
    pod_wait_ms: Annotated[
        int,
        Doc(
            "How long an event waits for its pod, which the API server may tell of later. 0: not at all.",
            2000,
            unit="milliseconds",
            minimum=0,
            maximum=60_000,
        ),
    ] = 2000
    pod_annotations: Annotated[
        tuple[str, ...],
        Doc("Annotations of pods that are kept, by exact key. Empty: none.", ["team"], max_items=32, max_length=316),
    ] = ()
    container_runtimes: Annotated[
        tuple[str, ...],
        Doc(
            "Further programs that start containers, by file name. Others cannot bring a process into a pod.",
            ["my-runtime-shim"],
            max_items=32,
            max_length=255,
        ),
    ] = ()
    fingerprints_file: Annotated[
        Path | None,
        _file(
            "The operator's fingerprints of Secrets, as its Secret keytrail-fingerprints is mounted. Read again when "
            "it changes; while there is no such file, nothing is compared. Empty: never.",
            "/etc/keytrail/fingerprints/fingerprints.json",
        ),
    ] = None
    peers: Annotated[
        Peers,
        Doc(
            "Whose addresses are known by name, with Kubernetes. services: Services, the pods behind them, nodes and "
            "this node's pods, by as many watches of the API server as kube-proxy has; all: every pod and its "
            "workload too, and each change of any pod then reaches every node; none: nobody's.",
            "all",
        ),
    ] = Peers.SERVICES
    cluster_ranges: Annotated[
        tuple[str, ...],
        Doc(
            "Networks of pods and Services that the Nodes do not name in spec.podCIDRs, in CIDR notation. With them, a "
            "private address in none of the cluster's ranges counts as outside; without, as unknown.",
            ["10.244.0.0/16"],
            max_items=64,
            max_length=43,
            format=CIDR,
        ),
    ] = ()
    resolve_hosts: Annotated[
        bool,
        Doc(
            "Resolve the hosts that mappings name about once a minute, so that records name an address's host where no "
            "name was seen. Proves nothing. Off: a node asks its resolver for nothing.",
            example=True,
        ),
    ] = False
    proc_fallback: Annotated[
        bool,
        Doc(
            "Read the names in /proc/PID/environ when the agent captures no environment. Needs root and SYS_PTRACE.",
            example=True,
        ),
    ] = False
    proc_root: Annotated[Path, _file("Where the host's /proc is.", "/host/proc")] = Path("/proc")
    pace: Annotated[
        float | None,
        _amount(
            "Speed of a recording: 1 as it happened, 10 ten times faster. Empty: at full speed.",
            10,
            "times real time",
            minimum=0.001,
        ),
    ] = None
    event_kinds: Annotated[
        tuple[EventKind, ...], Doc("Kinds of events to read. Empty: all.", ["exec", "connect"], max_items=64)
    ] = ()
    namespaces: Annotated[
        tuple[str, ...],
        _names('Namespaces to read events of, exact; "" is for processes outside of Pods.', "ml", "", min_length=0),
    ] = ()
    pods: Annotated[tuple[str, ...], _expressions("Names of Pods to read events of.", "^chat-api-")] = ()
    binaries: Annotated[tuple[str, ...], _expressions("Paths of executables to read events of.", "/curl$")] = ()
    policy_names: Annotated[
        tuple[str, ...], _names("TracingPolicies to read events of, by exact name.", "tcp-connect")
    ] = ()
    duplicates_window_ms: Annotated[
        int,
        _amount(
            "How far apart several policies' reports of one kernel call may be and still be merged. 0: never merged.",
            5,
            "milliseconds",
            minimum=0,
            maximum=1000,
        ),
    ] = 5
    redact_patterns: Annotated[
        tuple[str, ...],
        Doc(
            "Credentials that only you know of, such as your company's own tokens, as expressions in RE2's syntax. "
            "What fits goes from all text, beside what is known as a credential anyway; of an expression with groups "
            "only the groups. An expression, not the credential itself: settings are shown.",
            ["acme_live_[a-z0-9]{32}"],
            max_items=64,
            max_length=1024,
            format=RE2_EXPRESSION,
        ),
    ] = ()
    unmapped_credentials: Annotated[
        bool, Doc("Report variables that look like credentials and that no mapping names.", example=False)
    ] = True
    log_level: Annotated[LogLevel, Doc("Least important of our own log records that is written.", "debug")] = (
        LogLevel.INFO
    )
    log_format: Annotated[LogFormat, Doc("Form of our own log records, on standard error.", "json")] = LogFormat.TEXT
    origins: Mapping[str, str] = field(default_factory=lambda: types.MappingProxyType({}), compare=False, repr=False)
    """Field -> `file settings.yaml:3`, `environment KEYTRAIL_PACE` or `flag --pace`."""

    RULES: ClassVar[Rules] = Rules(naming=str, checks=(_tls_fits, _kubeconfig_fits, _rules_fit))

    @property
    def sends_events(self) -> bool:
        """Whether events themselves go anywhere, not only what is found in them."""
        lines = {Output.JSON, Output.LINE}.intersection(self.output)
        return bool(lines) or (Output.OTLP in self.output and OtlpRecords.EVENTS in self.otlp_records)

    def event_filter(self) -> EventFilter:
        """Return the filter that these settings describe."""
        return EventFilter(
            kinds=frozenset(self.event_kinds),
            namespaces=frozenset(self.namespaces),
            pods=self.pods,
            binaries=self.binaries,
            policies=frozenset(self.policy_names),
        )
