"""GetEvents read by ourselves: the socket around `http2_receiver`. About ten times as fast as grpcio.

In: an address and a serialized request. Out: batches, each of all the messages that one `recv` completed. Raises
`StreamError` and nothing else. Unix sockets and plain TCP; TLS, and every other call, are grpcio's.

One thread reads; `cancel` comes from any other.
"""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from keytrail.source.address import Address
from keytrail.source.base import Batch
from keytrail.source.channel import SERVICE
from keytrail.source.http2_frames import Http2Error
from keytrail.source.http2_receiver import Receiver
from keytrail.source.http2_request import opening
from keytrail.source.status import Reason, StreamError, reason_for

_CHUNK = 96 * 1024
"""Half of what a unix socket holds. With what is left of the chunk before, it stays below the 128 KiB from which malloc
maps memory anew and gives it back each time, unless by chance it has learned better: 0.6 us an event instead of 1.1 to
1.6 where much comes, 4.5 us instead of 16 for an event that comes alone."""
_PLENTY = 64 * 1024
"""Bytes. A `recv` that brought as many is followed by the next at once: who is behind does not pause."""
_ROOM = 128 * 1024
"""Bytes of messages that a unix socket surely holds. Who pauses longer than they take keeps the agent waiting: in 5 ms
steps a stream of 2 KB events came at 37,000 a second instead of 63,000, and the processor was idle for a third."""
_CONNECT_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
"""Until the server has answered the PING behind our call."""
_SEND_SECONDS = 5.0
"""What we send are a few bytes; a server that takes none of them for so long has stopped working."""
_TCP_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))
"""Seconds, seconds, probes: finds out that a host is gone, which on a silent stream nothing else would. By the kernel
instead of HTTP/2's PING, which an agent answers with GOAWAY when it comes more often than every five minutes."""
_ERRNO_REASONS = {
    errno.ENOENT: Reason.ABSENT,
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.EACCES: Reason.DENIED,
    errno.EPERM: Reason.DENIED,
}


class Http2Stream:
    """One call of GetEvents; connects when its batches are first asked for."""

    def __init__(
        self,
        address: Address,
        request: bytes,
        *,
        gather_seconds: float = 0.0,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`request` has at most `http2_request.REQUEST_LIMIT` bytes.

        `gather_seconds` is how long the socket is left to fill after it brought little: the first event after silence
        is handed over at once, those that follow it together, with one wake-up of everybody behind.
        """
        self._address = address
        self._opening = opening(address.authority, f"/{SERVICE}/GetEvents", request)
        self._gather_seconds = gather_seconds
        self._now_ns = now_ns
        self._clock = clock
        self._receiver = Receiver()
        self._socket: socket.socket | None = None
        self._changing = threading.Lock()
        self._cancelled = False
        # Held until `cancel`; waiting for it with a timeout is the one pause that another thread can end and that costs
        # a single system call.
        self._living = threading.Lock()
        self._living.acquire()
        self._deadline = 0.0
        self._opened = threading.Event()
        self._failure: StreamError | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._ended

    def wait_open(self) -> None:
        """Wait for another thread's `batches` to open the stream; raise what hindered it. Bounded in time."""
        self._opened.wait()
        # A stream that ended after it was open may have delivered something: `batches` tells how it ended.
        if self._failure is not None and not self._receiver.opened:
            raise self._failure

    def batches(self, pause: float | None = None) -> Iterator[Batch]:
        """Yield until the stream ends, or raise StreamError; may be broken off and taken up again by another thread.

        With `pause`, in seconds, an empty batch is yielded whenever so long nothing came.
        """
        since, brought = self._clock(), 0
        while not self._ended:
            messages: list[bytes] = []
            size = 0
            try:
                size = self._receive(messages, pause)
            except StreamError as error:
                self._end(error)
            too_large = self._receiver.take_too_large()
            if messages or too_large or pause is not None:
                yield Batch(messages, self._now_ns(), too_large=too_large)
            brought += size
            if self._gather_seconds and size < _PLENTY and pause is None and not self._ended:
                now = self._clock()
                self._gather(brought, now - since)
                since, brought = now, 0
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """End it, from any thread."""
        with self._changing:
            if not self._cancelled:
                self._cancelled = True
                self._living.release()
            if self._socket is not None:
                with contextlib.suppress(OSError):  # not connected, or not any more
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._opened.set()

    def close(self) -> None:
        """Free the socket. Not while another thread reads."""
        self.cancel()
        with self._changing:
            if self._socket is not None:
                self._socket.close()

    def _end(self, failure: StreamError | None) -> None:
        self._failure = StreamError(Reason.CANCELLED, "") if self._cancelled else failure
        self._ended = True
        self._opened.set()

    def _gather(self, brought: int, seconds: float) -> None:
        """Let events gather in the socket while nobody is woken for each; so many bytes came in the last `seconds`."""
        longest = self._gather_seconds
        if brought > _PLENTY:
            longest = min(longest, seconds * _ROOM / brought)
        if self._living.acquire(timeout=longest):
            self._living.release()

    def _receive(self, messages: list[bytes], pause: float | None) -> int:
        """Wait for what comes next and append its messages; return how many bytes came, 0 when none did in time."""
        connection = self._socket or self._connect()
        opened = self._opened.is_set()
        wanted = pause if opened else min(pause or _HANDSHAKE_SECONDS, _HANDSHAKE_SECONDS)
        if connection.gettimeout() != wanted:
            connection.settimeout(wanted)
        try:
            chunk = connection.recv(_CHUNK)
        except TimeoutError:
            self._check_handshake()
            return 0
        except OSError as error:
            raise self._broken(str(error)) from None
        try:
            self._receiver.receive(chunk, messages)
        except Http2Error as error:
            raise StreamError(Reason.PROTOCOL if self._receiver.greeted else Reason.NOT_GRPC, str(error)) from None
        if self._receiver.to_send:
            self._send(connection, self._receiver.to_send)
            self._receiver.to_send.clear()
        if not opened:
            self._check_handshake()
        self._check_end(chunk)
        return len(chunk)

    def _check_handshake(self) -> None:
        if self._receiver.opened:
            self._opened.set()
        elif self._clock() > self._deadline:
            raise StreamError(Reason.NO_ANSWER, f"no answer within {_HANDSHAKE_SECONDS:.0f} s")

    def _check_end(self, chunk: bytes) -> None:
        status = self._receiver.status
        if status is not None:
            if status.code is not grpc.StatusCode.OK:
                raise StreamError(reason_for(*status), status.text)
            self._end(None)
        elif not chunk:
            raise self._broken("the connection was closed")

    def _broken(self, text: str) -> StreamError:
        text = self._receiver.goaway or text
        return StreamError(reason_for(grpc.StatusCode.UNAVAILABLE, text), text)

    def _send(self, connection: socket.socket, data: bytes | bytearray) -> None:
        before = connection.gettimeout()
        connection.settimeout(_SEND_SECONDS)
        try:
            connection.sendall(data)
        except TimeoutError:
            raise StreamError(Reason.NO_ANSWER, "the server takes nothing any more") from None
        except OSError:
            # It may have said why before it left: what it sent is still to be read, and then the end is.
            return
        connection.settimeout(before)

    def _connect(self) -> socket.socket:
        error: OSError | None = None
        for family, target in self._targets():
            with self._changing:
                if self._cancelled:
                    raise StreamError(Reason.CANCELLED, "")
                connection = self._socket = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._greet(connection, target)
            except OSError as failed:
                error = failed
                with self._changing:
                    self._socket = None
                    connection.close()
            else:
                return connection
        raise StreamError(
            _ERRNO_REASONS.get(error.errno or 0, Reason.UNREACHABLE) if error else Reason.ABSENT, str(error)
        )

    def _targets(self) -> list[tuple[int, object]]:
        path = self._address.socket
        if path is not None:
            return [(socket.AF_UNIX, str(path))]
        try:
            found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that no name can have
            raise StreamError(Reason.UNKNOWN_HOST, f"{self._address.host}: {error}") from None
        return [(family, target) for family, _, _, _, target in found]

    def _greet(self, connection: socket.socket, target: object) -> None:
        connection.settimeout(_CONNECT_SECONDS)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _TCP_KEEPALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.connect(target)  # type: ignore[arg-type]  # getaddrinfo's own address, of whichever family
        connection.sendall(self._opening)
        self._deadline = self._clock() + _HANDSHAKE_SECONDS
