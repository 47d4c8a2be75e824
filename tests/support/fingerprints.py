"""What tests of fingerprints share: a key, a book, mappings, and events of processes with values."""

from collections.abc import Mapping
from typing import Any

from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.domain.declared import Declared, SecretKey
from keytrail.domain.fingerprint import Book, ClusterKey
from keytrail.domain.placement import Placement
from keytrail.domain.process import Pod
from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.domain.shape import read
from keytrail.fingerprint_file import wanted_variables
from support.synthetic import exec_event, process

KEY = ClusterKey("2026-11-22T14:00:00Z", bytes(range(32)))
VALUE = "sk-proj-9fX2mQ7bT4vK8cR1wY6z"
OPENAI = SecretKey("ml", "openai", "api-key")


def book(values: Mapping[SecretKey, str], key: ClusterKey = KEY) -> Book:
    """A book of these values."""
    made = {at: key.digest(value.encode()) for at, value in values.items()}
    return Book((key,), {at: (digest,) for at, digest in made.items() if digest is not None})


def mapping(name: str = "openai-prod", **evidence: Any) -> ClusterIdentityMapping:
    """A mapping of the cluster."""
    given = evidence or {"secrets": [{"namespace": "ml", "name": "openai"}], "env": [{"name": "LLM_ACCESS"}]}
    made, faults = read(ClusterIdentityMapping, {"metadata": {"name": name}, "spec": {"evidence": given}})
    assert made is not None, faults
    return made


def decoder(published: Book, *mappings: ClusterIdentityMapping) -> Decoder:
    """A decoder that fingerprints."""
    made = Decoder(Redactor().redact)
    made.fingerprints.use(published, wanted_variables(mappings, published))
    return made


def started(
    by: Decoder, environment: Mapping[str, str], *, pid: int = 100, container: str = "c1", **fields: Any
) -> DecodedEvent:
    """A process begins with these variables."""
    raw = exec_event(process(pid, binary="/usr/bin/app", environment=environment, docker=container, **fields))
    event = by.decode(raw)
    assert isinstance(event, DecodedEvent)
    return event


def place(event: DecodedEvent, namespace: str, *secrets: str, known: bool = True) -> None:
    """The process runs in a pod that is given these Secrets."""
    event.process.pod = Pod(namespace, "pod-0", "uid-1")
    event.process.placement = Placement(None, Declared(secrets_of_pod=frozenset(secrets)) if known else None)
