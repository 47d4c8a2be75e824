"""Process messages in, shared process and pod objects out.

Read once for each exec_id: the agent repeats the whole process in each of its events. Values of environment variables
are looked at here for one question, whether they are empty, and by `fingerprints`, where that is on; they are kept
nowhere. Must not know kinds of events.
"""

from functools import lru_cache
from sys import intern
from typing import Any, Protocol

from keytrail.decode.fingerprints import Fingerprinter
from keytrail.decode.redact import whole_words
from keytrail.decode.shallow import whole_pod
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
_READ_BEFORE = 16_384
"""Environments that are known again by their hash."""
_NAME_LIMIT = 256
"""Characters of a variable's name that are kept: a name is attacker-controlled text and may be 128 KiB long."""
_REMEMBERED_TEXT = 512
_REMEMBERED_TEXTS = 8_192
_REMEMBERED_REDACTED = 1_024
NANOSECONDS = 1_000_000_000
LAST_NS = (1 << 63) - 1
_KEY_TAG, _LONG = 0x0A, 0x80
"""Tag of EnvVar.Key; a length from 128 on takes more than one byte."""
_NO_POD: tuple[Pod | None, int] = (None, 0)


def nanoseconds(time: Any) -> int:
    """Nanoseconds since the epoch; 0 for a time that is absent, before the epoch or behind the year 2262."""
    found: int = time.seconds * NANOSECONDS + time.nanos
    return found if 0 < found <= LAST_NS else 0


class ProcessReader:
    """Makes `Process` objects, sharing pods by container and environments by content."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._pods: dict[tuple[str, bool], tuple[Pod | None, int]] = {}
        self._environments: dict[tuple[bytes, ...], tuple[str, ...]] = {}
        self._shared_names = 0
        self._read_before: dict[int, tuple[str, ...]] = {}
        self._harmless: dict[str, str] = {}
        self._redacted: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._captures = False
        self._capture_known = False
        self.from_file = False
        """What is read comes from the agent's export file, which may have been told to leave environments out."""
        self.fingerprints = Fingerprinter()

    def learn(self, facts: AgentFacts) -> None:
        """Take over what is known of the agent: it decides what an absent environment means."""
        self._capture_known = facts.captures_environment is not None
        self._captures = bool(facts.captures_environment)

    def read(self, message: Any) -> Process:
        """Build the object for one exec_id, from a process that `shallow` parsed."""
        flags = intern(message.flags)
        binary, binary_hits = self.text(message.binary)
        arguments, argument_hits = self.text(whole_words(message.arguments, flags), binary.rpartition("/")[2])
        cwd, _ = self.text(message.cwd)
        start_ns = nanoseconds(message.start_time)
        sent = tuple(message.environment_variables)
        # Interned is what most processes have in common: a message gives a new object for each text, 300 bytes in all.
        process = Process(
            message.exec_id,
            message.pid.value,
            intern(binary),
            arguments,
            intern(cwd),
            _user_id(message, "uid"),
            _user_id(message, "auid"),
            flags,
            start_ns,
            message.parent_exec_id,
            intern(message.docker),
            message.in_init_tree.value,
            _host_namespaces(message.ns),
            self.pod(message, start_ns),
            self._environment(sent) if sent else self._absent_environment(message, flags),
            argument_hits or binary_hits,
        )
        if process.environment and self.fingerprints.on:
            process.fingerprints = self.fingerprints.of(process, sent)
        return process

    def text(self, text: str, program: str = "") -> tuple[str, tuple[str, ...]]:
        """Redact, remembering what short texts became: nodes run the same programs in the same places.

        A text that holds a credential is known again by its salted hash, eight bytes that tell nothing of it, for it
        costs a hundred times as much as another, and a probe (`redis-cli -a PASSWORD ping`) comes every few seconds.
        """
        if not text:
            return text, ()
        known = self._harmless.get(text)
        if known is not None and known == program:
            return text, ()
        key = hash((text, program))
        found = self._redacted.get(key)
        if found is None:
            found = self._redact(text, program)
            if len(found[0]) <= _REMEMBERED_TEXT:
                self._remember(text, program, key, found)
        return found

    def _remember(self, text: str, program: str, key: int, found: tuple[str, tuple[str, ...]]) -> None:
        if found == (text, ()):
            if len(self._harmless) >= _REMEMBERED_TEXTS:
                self._harmless.clear()
            self._harmless[text] = program
        else:
            if len(self._redacted) >= _REMEMBERED_REDACTED:
                self._redacted.clear()
            self._redacted[key] = found

    def pod(self, message: Any, now_ns: int = LAST_NS) -> Pod | None:
        """Return the pod of a process, shared by all processes of its container; None when the agent sent none.

        Labels are of a process's exec, so a pod relabelled since is another object. They are compared at most once in
        a second of `now_ns`, the process's start.
        """
        sent = message.pod
        container = sent.container
        # Whether it may be a probe is the process's own, not its container's.
        key = container.id, container.maybe_exec_probe
        known, compared_ns = self._pods.get(key, _NO_POD)
        if known is not None and abs(now_ns - compared_ns) < NANOSECONDS and _is_same(known, sent):
            return known
        if not message.HasField("pod"):
            return None
        pod = _read_pod(whole_pod(sent))
        if known is not None and pod == known and pod.labels == known.labels:
            pod = known
        if len(self._pods) >= _POD_CAPACITY:
            self._pods.clear()
        self._pods[key] = pod, now_ns
        return pod

    def _environment(self, sent: tuple[bytes, ...]) -> tuple[str, ...]:
        """Names of the variables that are set to something."""
        if not self._capture_known:
            self._captures = True  # an agent that sends one environment captures them all
        # A container's processes mostly have the same variables with the same values: their salted hash, eight bytes
        # that tell nothing of a value, spares reading the names, half of what an environment costs.
        key = hash(sent)
        known = self._read_before.get(key)
        if known is not None:
            return known
        names = _set_names(sent)
        shared = self._environments.get(names)
        found = self._share(names) if shared is None else shared
        if names in self._environments:  # nothing but what is shared: the bound on names holds for both
            if len(self._read_before) >= _READ_BEFORE:
                self._read_before.clear()
            self._read_before[key] = found
        return found

    def _share(self, sent: tuple[bytes, ...]) -> tuple[str, ...]:
        names = tuple(name.decode("utf-8", "replace") for name in sent)
        # A name may itself be a secret (`env sk-...=1`), and two names may become one by redaction.
        redacted = tuple(dict.fromkeys(self._redact(name)[0] for name in names))
        if redacted == tuple(dict.fromkeys(names)):  # a secret that serves as a name is not kept even as a key
            self._shared_names += len(sent) + 1
            if self._shared_names > _SHARED_NAMES:
                self._environments.clear()
                self._read_before.clear()
                self._shared_names = len(sent) + 1
            self._environments[sent] = redacted
        return redacted

    def _absent_environment(self, message: Any, flags: str) -> tuple[str, ...] | None:
        binary = message.binary
        if binary == "<kernel>" or binary.startswith("["):
            return ()  # the kernel's own threads have none to look at
        # No binary: the exit of an image that a throttled agent never saw, or a process that it missed (`unknown`).
        if not binary or _UNREAD in (binary, message.cwd) or "procFS" in flags or "errorEnvs" in flags:
            return None
        return () if self._captures and not self.from_file else None


def _set_names(sent: Any) -> tuple[bytes, ...]:
    """Names of the variables that have a value, read off the serialized EnvVar: objects for each cost three times that.

    Key is field 1 and Value field 2, each left out when empty; a message in any other form is parsed.
    """
    names = []
    for raw in sent:
        size = raw[1] if len(raw) > 1 and raw[0] == _KEY_TAG else _LONG
        if size >= _LONG:
            variable = pb.EnvVar.FromString(raw)
            if variable.Value:
                names.append(variable.Key[:_NAME_LIMIT].encode())
        elif len(raw) > size + 2:
            names.append(raw[2 : size + 2])
    return tuple(names)


def _user_id(message: Any, name: str) -> int:
    value: int = getattr(message, name).value
    if value:
        return -1 if value == _UNSET else _shared(value)
    return 0 if message.HasField(name) else -1


@lru_cache(maxsize=256)
def _shared(number: int) -> int:
    """One object for all who have the same: a message gives a new one each time, 32 bytes."""
    return number


@lru_cache(maxsize=1_024)  # a node's containers have a set each; parsing one for each exec took 1.5 us
def _host_namespaces(sent: bytes) -> bool | None:
    namespaces = pb.Namespaces.FromString(sent)
    pid, mnt = namespaces.pid, namespaces.mnt
    if not (pid.inum and mnt.inum):
        return None  # a process that was gone before the agent could look
    return bool(pid.is_host and mnt.is_host)


def _is_same(known: Pod, sent: Any) -> bool:
    """Whether it is the same pod but for labels; agents before 1.6 send no uid."""
    if known.uid:
        return bool(known.uid == sent.uid)
    return bool(not sent.uid and known.name == sent.name and known.namespace == sent.namespace)


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
