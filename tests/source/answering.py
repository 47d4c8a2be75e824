"""A server that says what no agent does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 60


@contextmanager
def answering(*answers: bytes, close: bool = True) -> Iterator[tuple[str, list[bytes]]]:
    """Run a TCP server that sends each of its clients something after each thing it hears; keep what it heard."""
    heard: list[bytes] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                client, _ = listening.accept()
            except TimeoutError:
                continue
            with client:
                client.settimeout(SECONDS)  # who reads here closes when the test ends
                for answer in answers:
                    try:
                        heard.append(client.recv(100_000))
                        client.sendall(answer)
                    except OSError:  # the client left before it heard all
                        break
                while not (close or stop.wait(0.05)):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", heard
        finally:
            stop.set()
            thread.join()
