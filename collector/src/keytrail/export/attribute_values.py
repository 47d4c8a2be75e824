"""Values of attributes that are more than a field of a domain object, as OpenTelemetry's conventions want them written.

In flow domain objects and texts of theirs, out go texts. Knows no attribute's name.
"""

from keytrail.domain.event import Network
from keytrail.domain.identity import Evidence
from keytrail.domain.process import Process

_TRANSPORTS = {"IPPROTO_TCP": "tcp", "IPPROTO_UDP": "udp"}


def image_name(image: str) -> str:
    """`registry:5000/team/app` of `registry:5000/team/app:1.2@sha256:...`."""
    reference = image.partition("@")[0]
    name, colon, tag = reference.rpartition(":")
    # A colon before a slash is a registry's port.
    return name if colon and "/" not in tag else reference


def image_tags(image: str) -> tuple[str, ...]:
    """`("1.2",)` of `registry:5000/team/app:1.2`; a digest is no tag."""
    tag = image.partition("@")[0][len(image_name(image)) + 1 :]
    return (tag,) if tag else ()


def host_name(host: str) -> str:
    """Cut the port off an HTTP Host header: `server.address` never has one. IPv6 hosts are in brackets there."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (":" not in name or name.endswith("]")) else host


def transport(network: Network) -> str:
    """`tcp`, `udp`, `unix`, or whatever else the kernel calls the protocol."""
    known = "unix" if network.family == "AF_UNIX" else _TRANSPORTS.get(network.protocol)
    return known or network.protocol.removeprefix("IPPROTO_").lower()


def evidence_text(evidence: Evidence) -> str:
    """`env:OPENAI_API_KEY:openai-prod`: kind, name, identity."""
    return f"{evidence.kind}:{evidence.name}:{evidence.identity_id}"


def command_line(process: Process) -> str:
    """Binary and redacted arguments."""
    return f"{process.binary} {process.arguments}" if process.arguments else process.binary
