"""A running agent for a command: where it is, its stream, and a clean end on SIGINT and SIGTERM."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keytrail.domain.filters import EventFilter
    from keytrail.settings import Settings
    from keytrail.source.address import Address
    from keytrail.source.channel import TlsOptions
    from keytrail.source.grpc_stream import GrpcSource, Transition

log = logging.getLogger("keytrail.source")


def agent_address(settings: "Settings") -> "Address":
    """The address the user gave, or where an agent on this machine says it is."""
    from keytrail.source.address import find_agent, parse_address

    return parse_address(settings.agent_address) if settings.agent_address else find_agent()


def agent_tls(settings: "Settings") -> "TlsOptions | None":
    """TLS options when any was given."""
    from keytrail.source.channel import TlsOptions

    options = TlsOptions(
        settings.agent_tls_ca, settings.agent_tls_cert, settings.agent_tls_key, settings.agent_tls_server_name or ""
    )
    return None if options == TlsOptions() else options


def open_stream(settings: "Settings", wanted: "EventFilter") -> "GrpcSource":
    """The agent's event stream, asked for only what is wanted."""
    from keytrail.source.grpc_stream import GrpcSource

    return GrpcSource(
        agent_address(settings),
        filters=wanted,
        tls=agent_tls(settings),
        reader=settings.reader.value,
        on_transition=_log_transition,
    )


def _log_transition(transition: "Transition") -> None:
    detail = f": {transition.detail}" if transition.detail else ""
    if transition.state.value == "connected":
        log.info("connected to the agent at %s%s", transition.address, detail)
    else:
        log.warning(
            "no events from the agent at %s (%s)%s; trying again", transition.address, transition.reason, detail
        )


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; the earlier handlers are put back at the end."""
    stop = threading.Event()

    def set_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    earlier = {number: signal.signal(number, set_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
