"""Events for the benchmarks, the same ones in every run: half execs, half connections of recent processes.

In: how many events and how many processes. Out: serialized `tetragon.GetEventsResponse`. Shaped like a cluster's: the
event's whole process with pod, labels, image, environment and, for half of the pods, capabilities, then its parent;
1.4 to 1.6 KB on average. Knows nothing of the product beyond its message types.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.recording import read_recording

PODS = 60
_RECENT = 512
"""A connection comes from one of the processes that started last, as a tool's does; few are of long-lived ones."""
_START = 1_790_000_000
_PER_SECOND = 20_000
_TOOLS = (
    ("/usr/bin/python3.11", "/srv/app/worker.py --queue {n} --shard 3"),
    ("/usr/bin/curl", "-sS https://api.example.com/v1/items/{n} -o /tmp/{n}.json"),
    ("/bin/sh", '-c "test -f /srv/app/ready && cat /srv/app/{n}"'),
    ("/usr/local/bin/node", "/srv/app/index.js --port 8080 --id {n}"),
    ("/usr/bin/git", "fetch --quiet origin refs/heads/topic-{n}"),
    ("/usr/bin/psql", "-h db.internal -U app -c 'select {n}'"),
    ("/usr/bin/grep", "-rn needle-{n} /srv/app/src"),
    ("/usr/local/bin/healthcheck", ""),
)
_PLAIN = (
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/"),
    ("LOG_LEVEL", "info"),
    ("LANG", "C.UTF-8"),
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
    ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.observability:4317"),
    ("APP_CONFIG", "/etc/app/config.yaml"),
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
)
_CREDENTIALS = ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "BILLING_API_TOKEN")
_VALUE = "not-a-real-value-0000"
_RENEWED = 65_536
"""Events after which messages are made anew."""


def events(count: int, processes: int, seed: int = 1) -> Iterator[bytes]:
    """Yield `count` events of `processes` processes; when all have started, they start again under their ids."""
    chosen = random.Random(seed)  # noqa: S311 - a benchmark wants the same events every time
    shapes = [_Shape(pod, chosen) for pod in range(PODS)]
    recent: deque[int] = deque(maxlen=_RECENT)
    for number in range(count):
        if number % _RENEWED == 0:
            for shape in shapes:
                shape.renew()
        if number % 2 == 0:
            process = number // 2 % processes
            recent.append(process)
            yield shapes[process % PODS].exec(process, number)
        else:
            yield shapes[(process := chosen.choice(recent)) % PODS].connect(process, number)


def looped(path: Path, count: int) -> list[bytes]:
    """Return `count` messages of a recording, from its beginning again when it is too short."""
    recorded = list(read_recording(path))
    return (recorded * (count // len(recorded) + 1))[:count]


@dataclass(slots=True)
class _Templates:
    exec: Any
    connect: Any


class _Shape:
    """One pod's messages, filled in anew for each event: building them from nothing takes twice as long."""

    def __init__(self, pod: int, chosen: random.Random) -> None:
        self._pod = pod
        self._messages = _Templates(GetEventsResponse(), GetEventsResponse())
        hexadecimal = [f"{chosen.getrandbits(256):064x}" for _ in range(2)]
        for message, inner in (
            (self._messages.exec, self._messages.exec.process_exec),
            (self._messages.connect, self._messages.connect.process_kprobe),
        ):
            message.node_name = "worker-1"
            self._fill(inner.process, *hexadecimal)
            for number, (name, value) in enumerate(_PLAIN):
                inner.process.environment_variables.add(Key=name, Value=value)
                if number == pod % len(_PLAIN) and pod % 3 == 0:
                    inner.process.environment_variables.add(Key=_CREDENTIALS[pod // 3 % 4], Value=_VALUE)
            self._fill_parent(inner.parent, hexadecimal[0])
        connect = self._messages.connect.process_kprobe
        connect.function_name, connect.policy_name = "tcp_connect", "tcp-connect"
        connect.action = 1
        connect.args.add().sock_arg.family = "AF_INET"

    def renew(self) -> None:
        """Copy the messages: all that one was ever filled with stays in its memory, 200 bytes an event."""
        exec_, connect = (
            GetEventsResponse.FromString(one.SerializeToString())
            for one in (self._messages.exec, self._messages.connect)
        )
        self._messages = _Templates(exec_, connect)

    def exec(self, number: int, event: int) -> bytes:
        """The event of a process's start."""
        self._fill_in(self._messages.exec, self._messages.exec.process_exec.process, number, event)
        serialized: bytes = self._messages.exec.SerializeToString(deterministic=True)
        return serialized

    def connect(self, number: int, event: int) -> bytes:
        """The event of a connection that it opens."""
        message = self._messages.connect
        self._fill_in(message, message.process_kprobe.process, number, event)
        sock = message.process_kprobe.args[0].sock_arg
        sock.type, sock.protocol, sock.state = "SOCK_STREAM", "IPPROTO_TCP", "TCP_SYN_SENT"
        sock.saddr, sock.sport = f"10.244.1.{self._pod}", 32_768 + event % 28_000
        sock.daddr, sock.dport = f"104.18.{number % 250}.{event % 250}", 443
        sock.cookie = 0xFFFF_8880_0000_0000 + event * 64
        serialized: bytes = message.SerializeToString(deterministic=True)
        return serialized

    def _fill_in(self, message: Any, process: Any, number: int, event: int) -> None:
        message.time.seconds, message.time.nanos = _START + event // _PER_SECOND, event % _PER_SECOND * 50_000
        process.exec_id = f"d29ya2VyLTE6{number:024d}"
        process.pid.value = process.tid.value = 1_000 + number
        process.start_time.seconds, process.start_time.nanos = (
            _START + number // _PER_SECOND,
            number % _PER_SECOND * 100,
        )
        # Tools turn slower than pods, so that every pod runs all of them.
        process.binary, arguments = _TOOLS[number // PODS % len(_TOOLS)]
        process.arguments = arguments.format(n=number)

    def _fill(self, process: Any, container_id: str, digest: str) -> None:
        pod, name = process.pod, f"service-{self._pod % 20}"
        process.uid.value, process.auid.value = 10_001, 4_294_967_295
        process.cwd, process.flags = "/srv/app", "execve clone inInitTree"
        process.docker, process.parent_exec_id, process.refcnt = container_id[:31], self._parent_id, 1
        process.in_init_tree.value = True
        pod.namespace, pod.name, pod.workload, pod.workload_kind = (
            "shop",
            f"{name}-{digest[:10]}-{self._pod:05d}",
            name,
            "Deployment",
        )
        pod.uid = f"{digest[:8]}-1e81-4077-ab26-{digest[8:20]}"
        pod.container.id, pod.container.name = f"containerd://{container_id}", "app"
        pod.container.image.id = f"registry.example/shop/{name}@sha256:{digest}"
        pod.container.image.name = f"registry.example/shop/{name}:1.4.2"
        pod.container.start_time.seconds, pod.container.pid.value = _START - 600, 7
        pod.pod_labels.update({"app": name, "app.kubernetes.io/name": name, "pod-template-hash": digest[:10]})
        if self._pod % 2:
            pod.pod_labels["team"] = "shop"
            process.cap.permitted.extend(range(41))
            process.cap.effective.extend(range(41))

    def _fill_parent(self, parent: Any, container_id: str) -> None:
        parent.exec_id, parent.parent_exec_id = self._parent_id, "d29ya2VyLTE6MDox"
        parent.pid.value = parent.tid.value = 200 + self._pod
        parent.binary, parent.cwd, parent.flags = "/usr/bin/containerd-shim-runc-v2", "/", "execve clone"
        parent.arguments = f"-namespace k8s.io -id {container_id} -address /run/containerd/containerd.sock"
        parent.start_time.seconds, parent.auid.value = _START - 700, 4_294_967_295
        parent.uid.SetInParent()

    @property
    def _parent_id(self) -> str:
        return f"d29ya2VyLTE6cGFyZW50{self._pod:08d}"
