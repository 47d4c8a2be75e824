"""The sockets of the fake, where grpcio alone cannot do what an agent does: binding safely, breaking connections.

A server and a path go in, an address comes out that names the accepted connections later. Knows nothing of the API.
"""

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc


def bind_unix(server: grpc.Server, path: Path) -> str:
    """Bind in a private folder, set the mode, rename into place: never is there a socket with wider rights.

    The agent does the same, so that every start makes a new inode: who mounted the file alone keeps the dead one.
    Returns the name that the kernel keeps for the socket and its connections, which is the one before the renaming.
    """
    folder = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    try:
        bound = folder / "s"
        server.add_insecure_port(f"unix:{bound}")
        bound.chmod(0o660)
        bound.rename(path)
    finally:
        folder.rmdir()
    return str(bound)


def connections_of(bound: str) -> Iterator[socket.socket]:
    """Find this process's accepted connections of a listening address; duplicates of them, to be closed by the caller.

    grpcio has no way to break a connection: it can only end calls in good order, and a dying agent does not.
    """
    port = None if bound.startswith("/") else int(bound.rpartition(":")[2] or 0)
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208  # names are numbers here, not paths
        try:
            if not stat.S_ISSOCK(os.fstat(int(entry)).st_mode):
                continue
            candidate = socket.socket(fileno=os.dup(int(entry)))
        except OSError:  # closed meanwhile by another thread
            continue
        with contextlib.suppress(OSError):
            name = candidate.getsockname()
            ours = name == bound if port is None else isinstance(name, tuple) and name[1:2] == (port,)
            if ours and not candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield candidate
                continue
        candidate.close()
