"""A small HTTP server that speaks list and watch of one collection, and can be as nasty as a real one on a bad day.

In: changes, cuts and compactions that a test asks for. Out: what clients of the protocol get. It streams lists
(WatchList) or does not, sends objects in the order that a test wants, and ends connections in the middle of a line.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import urllib3

from keytrail.kube.access import Access
from keytrail.kube.api import Api

Json = dict[str, Any]


@dataclass
class Collection:
    """Objects, their history, and who watches them."""

    streams_lists: bool = True
    refuse: tuple[int, str, dict[str, str]] | None = None
    """Status, message and headers that every request gets instead of an answer."""
    version: int = 1
    compacted: int = 0
    objects: dict[str, Json] = field(default_factory=dict)
    history: list[tuple[int, str, Json]] = field(default_factory=list)
    generation: int = 0
    """Connections of an older one are cut."""
    requests: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, name: str, value: int) -> None:
        """Create or change an object."""
        with self.changed:
            self.version += 1
            kind = "MODIFIED" if name in self.objects else "ADDED"
            uid = self.objects[name]["metadata"]["uid"] if name in self.objects else f"{name}-{self.version}"
            metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(self.version)}
            self.objects[name] = {"kind": "Thing", "metadata": metadata, "value": value}
            self._happened(kind, self.objects[name])

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self.changed:
            if name in self.objects:
                self.version += 1
                gone = self.objects.pop(name)
                gone["metadata"] = gone["metadata"] | {"resourceVersion": str(self.version)}
                self._happened("DELETED", gone)

    def cut(self) -> None:
        """End all connections."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget the history so far, and cut: who comes back finds it gone."""
        self.compacted = self.version
        self.cut()

    def values(self) -> dict[str, int]:
        """What a client should know."""
        return {name: found["value"] for name, found in self.objects.items()}

    def _happened(self, kind: str, found: Json) -> None:
        self.history.append((self.version, kind, json.loads(json.dumps(found))))
        self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collection: Collection

    def do_GET(self) -> None:
        """Answer a list or a watch."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.collection.requests.append(self.path)
        if self.collection.refuse is not None:
            self._status(*self.collection.refuse)
        elif "watch" not in query:
            self._list()
        elif "sendInitialEvents" in query and not self.collection.streams_lists:
            self._status(422, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
        else:
            self._watch(query.get("resourceVersion"))

    def _list(self) -> None:
        with self.collection.changed:
            metadata = {"resourceVersion": str(self.collection.version)}
            found = {"kind": "ThingList", "items": list(self.collection.objects.values()), "metadata": metadata}
            body = json.dumps(found).encode()
        self._begin({"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _watch(self, since: str | None) -> None:
        collection = self.collection
        with collection.changed:
            generation = collection.generation
            at = collection.version if since is None else int(since)
            events = []
            if since is None:
                events = [("ADDED", found) for found in collection.objects.values()]
                mark = {"resourceVersion": str(at), "annotations": {"k8s.io/initial-events-end": "true"}}
                events.append(("BOOKMARK", {"kind": "Thing", "metadata": mark}))
            elif at < collection.compacted:
                events = [("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})]
            lines = [_line(kind, found) for kind, found in events]
        self._begin({"Transfer-Encoding": "chunked"})
        while collection.generation == generation:
            for line in lines:
                self._chunk(line)
            with collection.changed:
                if collection.generation == generation and collection.version == at:
                    collection.changed.wait(20)
                lines = [_line(kind, found) for when, kind, found in collection.history if when > at]
                at = collection.version
        if generation % 2:  # a clean end, else one in the middle of a line
            self._chunk(b"")
        else:
            self._chunk(_line("ADDED", {"metadata": {"name": "never", "namespace": "ns", "uid": "x"}})[:20])
        self.close_connection = True

    def _status(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"kind": "Status", "code": code, "message": message}).encode()
        self._begin({"Content-Length": str(len(body)), **(headers or {})}, code)
        self.wfile.write(body)

    def _begin(self, headers: dict[str, str], code: int = 200) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


def _line(kind: str, found: Json) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


class ModelServer:
    """A collection behind HTTP on loopback. A context manager."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

        class Handler(_Handler):
            pass

        Handler.collection = collection
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.pool = urllib3.PoolManager(retries=False)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.collection.cut()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.pool.clear()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def api(self) -> Api:
        """Return a client of it."""
        return Api(lambda: Access(self.url, self.pool, dict))
