"""The agent's process cache: exec and exit events go in as they are published, the dump of GetDebug comes out.

Reference counts follow the agent: an exec takes one for the process and one on its parent, an exit gives both back, and
an exec in place ends the image before it. The agent removes what nobody refers to after some 30 to 60 seconds; this
one keeps the latest such processes instead, so that no clock is needed.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from keytrail.proto.tetragon.sensors_pb2 import DumpProcessCacheReqArgs, ProcessInternal
from keytrail.proto.tetragon.tetragon_pb2 import Process

CAPACITY: Final = 65_536
"""Processes, the agent's `--process-cache-size`."""
_UNREFERENCED: Final = 1_000


@dataclass(slots=True)
class _Entry:
    process: bytes
    """Serialized: a submessage of an event would keep the event's whole memory alive."""
    parent: str
    references: int = 1
    exited: bool = False


class ProcessCache:
    """Processes by exec_id. Safe to use from several threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._live: OrderedDict[str, _Entry] = OrderedDict()
        self._unreferenced: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live) + len(self._unreferenced)

    def observe(self, kind: str, event: Any) -> None:
        """Take in a published event; only process_exec and process_exit change anything."""
        with self._lock:
            if kind == "process_exec":
                self._exec(event.process, event.parent)
            elif kind == "process_exit":
                self._exit(event.process.exec_id)
                self._release(event.parent.exec_id)

    def dump(self, options: DumpProcessCacheReqArgs) -> list[ProcessInternal]:
        """Answer DUMP_PROCESS_CACHE, oldest first."""
        with self._lock:
            entries = [*self._live.values()]
            if not options.skip_zero_refcnt:
                entries += self._unreferenced.values()
        return [
            _internal(entry)
            for entry in entries
            # The kernel's execve_map holds what runs; leaving it out shows entries that should have gone.
            if entry.exited or not options.exclude_execve_map_processes
        ]

    def _exec(self, process: Process, parent: Process) -> None:
        if not process.exec_id:
            return
        self._insert(process)
        if not parent.exec_id or parent.exec_id == process.exec_id:
            return
        known = parent.exec_id in self._live
        if not known:
            self._insert(parent)
        if parent.pid.value != process.pid.value:
            self._live[parent.exec_id].references += 1
        elif known:
            # An exec in place: the image before it counts as the parent of the new one, no longer as a process.
            self._release(self._live[parent.exec_id].parent)

    def _insert(self, process: Process) -> None:
        self._unreferenced.pop(process.exec_id, None)
        self._live[process.exec_id] = _Entry(process.SerializeToString(), process.parent_exec_id)
        while len(self._live) > self._capacity:
            self._live.popitem(last=False)

    def _exit(self, exec_id: str) -> None:
        if exec_id in self._live:
            self._live[exec_id].exited = True
        self._release(exec_id)

    def _release(self, exec_id: str) -> None:
        entry = self._live.get(exec_id)
        if entry is None:
            return
        entry.references -= 1
        if entry.references <= 0:
            self._unreferenced[exec_id] = self._live.pop(exec_id)
            while len(self._unreferenced) > _UNREFERENCED:
                self._unreferenced.popitem(last=False)


def _internal(entry: _Entry) -> ProcessInternal:
    internal = ProcessInternal(color="inUse" if entry.references else "deletePending")
    internal.process.ParseFromString(entry.process)
    internal.refcnt.value = entry.references
    return internal
