"""A running agent for a command: where it is, its stream, a clean end on SIGINT and SIGTERM, a call on SIGHUP."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keytrail.configuration import Configuration
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


def open_stream(
    settings: "Settings", wanted: "EventFilter", *listeners: "Callable[[Transition], None]"
) -> "GrpcSource":
    """The agent's event stream, asked for only what is wanted; `listeners` hear of its connection."""
    from keytrail.source.grpc_stream import GrpcSource

    def tell(transition: "Transition") -> None:
        _log_transition(transition)
        for listener in listeners:
            listener(transition)

    return GrpcSource(
        agent_address(settings),
        filters=wanted,
        tls=agent_tls(settings),
        reader=settings.reader.value,
        gather_seconds=settings.gather_ms / 1000,
        on_transition=tell,
    )


def _log_transition(transition: "Transition") -> None:
    from keytrail.source.agent import ADVICE

    detail = f": {transition.detail}" if transition.detail else ""
    if transition.state.value == "connected":
        without = f", without {', '.join(transition.left_out)}" if transition.left_out else ""
        log.info("connected to the agent at %s%s%s", transition.address, detail, without)
    else:
        advice = f" ({ADVICE[transition.reason]})" if transition.reason in ADVICE else ""
        where = transition.address
        log.warning("no events from the agent at %s (%s)%s%s; trying again", where, transition.reason, detail, advice)


def asking(settings: "Settings", configuration: "Configuration") -> str:
    """What a collector asks the agent for, in a sentence."""
    from keytrail.source.request import Asked

    wanted = settings.event_filter()
    asked = Asked.for_(wanted if settings.sends_events else configuration.looked_at(wanted))
    names = ", ".join(asked.left_out)
    if not names:
        return "every type of event"
    by_user = set(Asked.for_(wanted).left_out).issuperset(asked.left_out)
    return f"all but {names}: they carry no kind of event that {'the filter names' if by_user else 'a rule looks at'}"


@contextmanager
def stop_on_signals(on_hangup: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; SIGHUP calls `on_hangup`, without which it ends the process as ever.

    The earlier handlers are put back at the end.
    """
    stop = threading.Event()
    # A handler runs between any two steps of the main thread, which may just then hold the lock inside of `stop`: it
    # only leaves a note, in the one queue whose `put` is reentrant, and a thread does what is to be done.
    notes: SimpleQueue[int] = SimpleQueue()

    def leave_note(number: int, _frame: FrameType | None) -> None:
        notes.put(number)

    def answer() -> None:
        while number := notes.get():
            if on_hangup is None or number in {signal.SIGINT, signal.SIGTERM}:
                stop.set()
            else:
                on_hangup()

    handled = [signal.SIGINT, signal.SIGTERM, *([] if on_hangup is None else [signal.SIGHUP])]
    answering = threading.Thread(target=answer, name="keytrail-signals", daemon=True)
    answering.start()
    earlier = {number: signal.signal(number, leave_note) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        notes.put(0)
        answering.join()
