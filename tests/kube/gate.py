"""A network between a client and the API server that a test can cut: TCP, so that TLS goes through it untouched."""

import contextlib
import selectors
import socket
import threading
from typing import Self


class Gate:
    """Forwards connections to a port of loopback while it is open. A context manager."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = True
        self._ended = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended = True
        self.shut()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._thread.join()
        self._server.close()

    def shut(self) -> None:
        """Cut what goes through, and let nothing more through."""
        with self._lock:
            self._open = False
            for pair in self._pairs:
                for one in pair:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Let connections through again."""
        self._open = True

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            if self._ended:
                client.close()
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target), 5) as server:
            pair = client, server
            with self._lock:
                if not self._open:
                    return
                self._pairs.add(pair)
            try:
                _pump(client, server)
            finally:
                with self._lock:
                    self._pairs.discard(pair)


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if not data:
                    return
                target.sendall(data)
