"""What the OTLP records of one process share, made once for each process.

An event of the process comes in; out come its resource and the encoded attributes of the process, of its identity and
of its pod. What many processes share is made once for all of them, and is one text in memory. Objects that many events
share are known by their id (and kept, so that it stays theirs): hashing a pod or an attribution by its fields costs as
much as encoding an event. Which attributes there are is said in `attributes`; next comes `otlp_encode`.
"""

from collections.abc import Mapping
from typing import Final, NewType

from keytrail.domain.event import Event
from keytrail.domain.identity import NO_IDENTITY, Attribution
from keytrail.export import attributes
from keytrail.export.attributes import Subject
from keytrail.export.bounded import Bounded
from keytrail.export.otlp_table import Shared, Table
from keytrail.export.otlp_wire import RECORD_ATTRIBUTES, RESOURCE_ATTRIBUTES, IntegerTexts, attribute_writer
from keytrail.export.output import Fragments, ProcessMemo
from keytrail.export.record_uid import process_digest
from keytrail.export.terminal_line import identity_text, process_text

ResourceKey = NewType("ResourceKey", bytes)
"""The encoded Resource itself: records belong together when, and only when, their resources are equal."""

_RESOURCES = 4096
_ATTRIBUTIONS = 1024

_HOST: Final = Table(attributes.HOST)
_CONTAINER: Final = Table(attributes.CONTAINER)
_WORKLOAD: Final = Table(attributes.WORKLOAD)
_IDENTITY: Final = Table(attributes.IDENTITY)
_POD: Final = Table(attributes.POD)
_PROCESS: Final = Table(
    attributes.PROCESS,
    # A node runs the same programs in the same way again and again; what is left is of this process alone.
    shared=(
        Shared("process.executable.path", "process.executable.name", "s.binary"),
        Shared("process.working_directory", "process.user.id", "s.cwd, s.uid"),
        Shared(
            "keytrail.process.auid",
            "keytrail.process.claimed_pod",
            "s.auid, s.in_init_tree, s.flags, s.truncated, s.argument_credentials, s.placement, s.pod is None,"
            " not s.container_id",
        ),
    ),
)
THREAD: Final = IntegerTexts(RECORD_ATTRIBUTES, attributes.THREAD_ID)
_OBSERVED_ONLY: Final = frozenset(
    name for group in (attributes.CONTAINER, attributes.WORKLOAD) for name, _, _, _ in group.rows
)


class Known(Fragments):
    """What the records of one process share. Texts of attributes are encoded, a character for each byte."""

    # No NamedTuple: every record reads these eight, which takes 0.03 us here and 0.11 there.
    __slots__ = (
        "attributes",
        "identified",
        "identity",
        "placed",
        "process",
        "resource",
        "thread",
        "uid",
    )

    def __init__(self, event: Event, resource: ResourceKey, identified: str, placed: str, identity: str) -> None:
        process = event.process
        self.resource = resource
        self.attributes = _PROCESS.text(process)
        self.size = len(self.attributes)
        self.identified = identified
        """Attributes of its identity, the same text for all processes that have it: most of a process is in memory
        once."""
        self.placed = placed
        """Attributes of its pod, likewise."""
        self.thread = THREAD[process.pid]
        """The thread's attribute when it is the first one, as nearly always."""
        self.uid = process_digest(event)
        """Digest of what identifies the process image and its identity."""
        self.process = process_text(process)
        self.identity = identity
        """Words for the body, with a blank before them; empty when there is none."""


class KnownProcesses:
    """A bounded memory of processes and of what they share. For one thread."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        self._resource = {
            # A collector's own pod, say from OTEL_RESOURCE_ATTRIBUTES, must not be taken for the observed one.
            name: attribute_writer(RESOURCE_ATTRIBUTES, name, "string")(value)
            for name, value in resource.items()
            if name not in _OBSERVED_ONLY
        }
        self._subjects: Bounded[tuple[int, str, str], tuple[object, ResourceKey, str]] = Bounded(_RESOURCES)
        self._identities: Bounded[int, tuple[object, str, str]] = Bounded(_ATTRIBUTIONS)
        self._memo = ProcessMemo(self._learn)
        self.of = self._memo.of
        """What the records of an event's process share."""

    def _learn(self, event: Event) -> Known:
        resource, placed = self._subject(event)
        identified, identity = self._identity(event.process.attribution or NO_IDENTITY)
        return Known(event, resource, identified, placed, identity)

    def _identity(self, attribution: Attribution) -> tuple[str, str]:
        known = self._identities.get(id(attribution))
        if known is None:
            text = identity_text(attribution)
            made = (attribution, _IDENTITY.text(attribution), f" {text}" if text else "")
            known = self._identities.keep(id(attribution), made)
        return known[1], known[2]

    def _subject(self, event: Event) -> tuple[ResourceKey, str]:
        process = event.process
        pod = process.pod
        key = (id(pod), event.node, process.container_id)
        known = self._subjects.get(key)
        if known is None:
            resource = self._resource_of(Subject(event.node, pod, process.container_id))
            known = self._subjects.keep(key, (pod, resource, _POD.text(pod)))
        return known[1], known[2]

    def _resource_of(self, subject: Subject) -> ResourceKey:
        own = dict(self._resource)
        if subject.node:
            # The agent knows where it runs; a recording's node is not that of the collector which reads it.
            own.pop("host.name", None)
            if subject.pod is not None:
                own.pop("k8s.node.name", None)
        made = (*own.values(), _HOST.encode(subject), _CONTAINER.encode(subject), _WORKLOAD.encode(subject.pod))
        return ResourceKey(b"".join(made))
