"""Process messages in, shared process and pod objects out.

Read once for each exec_id: the agent repeats the whole process in each of its events. Values of environment variables
are looked at here for one question, whether they are empty, and kept nowhere. Must not know kinds of events.
"""

from typing import Any, Protocol

from keytrail.domain.agent import AgentFacts
from keytrail.domain.process import Container, Pod, Process
from keytrail.proto.tetragon import tetragon_pb2 as pb


class Redact(Protocol):
    """Text in; redacted text and the names of the patterns that matched out."""

    def __call__(self, text: str, program: str = "", /) -> tuple[str, tuple[str, ...]]:
        """Redact; `program` is the name of the binary whose arguments these are."""
        ...


_UNREAD = "<enomem>"
"""What the agent puts for a path when an event did not fit its ring buffer: arguments and environment are gone too."""
_UNSET = 4_294_967_295
"""A user id of -1 as the kernel's unsigned number."""
_POD_CAPACITY = 4_096
_SHARED_NAMES = 262_144
_NAME_LIMIT = 256
"""Characters of a variable's name that are kept: a name is attacker-controlled text and may be 128 KiB long."""
_REMEMBERED_TEXT = 512
_REMEMBERED_TEXTS = 8_192
_NANOSECONDS = 1_000_000_000
_LAST_NS = (1 << 63) - 1


def nanoseconds(time: Any) -> int:
    """Nanoseconds since the epoch; 0 for a time that is absent, before the epoch or behind the year 2262."""
    found: int = time.seconds * _NANOSECONDS + time.nanos
    return found if 0 < found <= _LAST_NS else 0


class ProcessReader:
    """Makes `Process` objects, sharing pods by container and environments by content."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._pods: dict[tuple[str, bool], Pod] = {}
        self._environments: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._shared_names = 0
        self._harmless: dict[str, str] = {}
        self._captures = False
        self._capture_known = False

    def learn(self, facts: AgentFacts) -> None:
        """Take over what is known of the agent: it decides what an absent environment means."""
        self._capture_known = facts.captures_environment is not None
        self._captures = bool(facts.captures_environment)

    def read(self, message: pb.Process) -> Process:
        """Build the object for one exec_id."""
        binary, binary_hits = self._text(message.binary)
        arguments, argument_hits = self._text(message.arguments, binary.rpartition("/")[2])
        cwd, _ = self._text(message.cwd)
        flags = message.flags
        return Process(
            message.exec_id,
            pid=message.pid.value,
            binary=binary,
            arguments=arguments,
            cwd=cwd,
            uid=_user_id(message, "uid"),
            auid=_user_id(message, "auid"),
            flags=flags,
            start_ns=nanoseconds(message.start_time),
            parent_exec_id=message.parent_exec_id,
            container_id=message.docker,
            in_init_tree=message.in_init_tree.value,
            pod=self.pod(message),
            environment=self._environment(message, flags),
            argument_credentials=argument_hits or binary_hits,
        )

    def _text(self, text: str, program: str = "") -> tuple[str, tuple[str, ...]]:
        """Redact, remembering short texts that hold nothing: nodes run the same programs in the same places."""
        known = self._harmless.get(text)
        if known is not None and known == program:
            return text, ()
        redacted, hits = self._redact(text, program)
        if redacted == text and not hits and len(text) <= _REMEMBERED_TEXT:
            if len(self._harmless) >= _REMEMBERED_TEXTS:
                self._harmless.clear()
            self._harmless[text] = program
        return redacted, hits

    def pod(self, message: pb.Process) -> Pod | None:
        """Return the pod of a process, shared by all processes of its container; None when the agent sent none."""
        if not message.HasField("pod"):
            return None
        sent = message.pod
        # Whether it may be a probe is the process's own, not its container's.
        key = sent.container.id, sent.container.maybe_exec_probe
        known = self._pods.get(key)
        if known is not None and _is_same(known, sent):
            return known
        pod = _read_pod(sent)
        if len(self._pods) >= _POD_CAPACITY:
            self._pods.clear()
        self._pods[key] = pod
        return pod

    def _environment(self, message: pb.Process, flags: str) -> tuple[str, ...] | None:
        """Names of the variables that are set to something; None when the environment was not captured."""
        sent = message.environment_variables
        if not sent:
            return self._absent_environment(message, flags)
        if not self._capture_known:
            self._captures = True  # an agent that sends one environment captures them all
        names = tuple([variable.Key[:_NAME_LIMIT] for variable in sent if variable.Value])
        shared = self._environments.get(names)
        return self._share(names) if shared is None else shared

    def _share(self, names: tuple[str, ...]) -> tuple[str, ...]:
        self._shared_names += len(names) + 1
        if self._shared_names > _SHARED_NAMES:
            self._environments.clear()
            self._shared_names = len(names) + 1
        # A name may itself be a secret (`env sk-...=1`), and two names may become one by redaction.
        redacted = tuple(dict.fromkeys(self._redact(name)[0] for name in names))
        # A secret that serves as a name is not kept even as a key.
        self._environments[redacted if redacted != names else names] = redacted
        return redacted

    def _absent_environment(self, message: pb.Process, flags: str) -> tuple[str, ...] | None:
        binary = message.binary
        if binary == "<kernel>" or binary.startswith("["):
            return ()  # the kernel's own threads have none to look at
        # No binary: the exit of an image that a throttled agent never saw, or a process that it missed (`unknown`).
        if not binary or _UNREAD in (binary, message.cwd) or "procFS" in flags or "errorEnvs" in flags:
            return None
        return () if self._captures else None


def _user_id(message: pb.Process, name: str) -> int:
    if not message.HasField(name):
        return -1
    value: int = getattr(message, name).value
    return -1 if value == _UNSET else value


def _is_same(known: Pod, sent: pb.Pod) -> bool:
    """Labels are of the process's exec, so a pod relabelled since is another object; agents before 1.6 send no uid."""
    if known.uid != sent.uid or known.name != sent.name or known.namespace != sent.namespace:
        return False
    labels = sent.pod_labels
    return len(labels) == len(known.labels) and all(labels.get(key) == value for key, value in known.labels.items())


def _read_pod(sent: pb.Pod) -> Pod:
    container = sent.container
    return Pod(
        namespace=sent.namespace,
        name=sent.name,
        uid=sent.uid,
        workload=sent.workload,
        workload_kind=sent.workload_kind,
        container=Container(
            id=container.id.rpartition("//")[2],
            name=container.name,
            image=container.image.name,
            image_id=container.image.id,
            privileged=container.security_context.privileged,
        ),
        labels=dict(sent.pod_labels),
        maybe_exec_probe=container.maybe_exec_probe,
    )
