"""The process table: every process image that the stream told of, by exec_id, bounded.

In: processes as decode builds them. Out: the same object for the same exec_id, its parents, and the environment's
names of a process whose own event carried none (a fork without exec, a process that outlived its agent).

The agent sends each event with its whole process, so nothing here is needed to understand one event; the table saves
reading a process twice and knows what the agent forgets when it restarts. It must not know rules or identities.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile

from keytrail.decode.survivors import is_survivor
from keytrail.domain.process import Process

DEFAULT_CAPACITY = 32_768
"""As many processes as a busy node holds; some 600 bytes each, with a command line of 45 characters."""

_MAX_ANCESTORS = 64
"""Deeper than any real tree; bounds the cost of a walk through links that somebody forged."""

_MEAN_WEIGHT = 2_048
"""Characters of text that a process may have on average: a command line or environment may be 128 KiB long, and forty
thousand of those would be gigabytes."""
_NAME_WEIGHT = 32
"""Characters counted for a variable's name: counting each would cost more than it is worth."""


class ProcessTable:
    """Process images by exec_id: running ones, and exited ones for as long as there is room.

    Exited images are kept because events of a process arrive after its exit (the agent holds back what waits for pod
    metadata) and because children name them as parents. The least recently used make room.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._exited = _Bounded(max(1, capacity // 4), {})
        running = _Running(self._exited.images)
        self._running = _Bounded(capacity, running)
        self.get: Callable[[str], Process | None] = running.__getitem__
        """Return the image with this id, None when it is not known (any more). Asked twice of every event: this is
        the dictionary's own method."""
        self._by_pid: dict[int, Process] = {}
        self._remembered: dict[int, Process] = {}
        self.evicted_running = 0
        """Images thrown out although no exit was seen: their later events are decoded again, and what they were seen to
        do is remembered."""
        self.evicted_exited = 0
        self.survivors = 0
        """Images recognised under a new exec_id after their agent restarted."""

    def __len__(self) -> int:
        return len(self._running.images) + len(self._exited.images)

    def __iter__(self) -> Iterator[Process]:
        """Every image known, running ones first."""
        yield from self._running.images.values()
        yield from self._exited.images.values()

    def running(self) -> list[Process]:
        """Return the running images, copied in one step: safe from another thread."""
        return list(self._running.images.values())

    def add(self, process: Process, *, announced: bool) -> Process:
        """Enter a process; `announced` says that an exec event or the agent's process cache told of it.

        Completes it from what is known: the image of the same process before its agent restarted, or, for a fork
        without exec (which is never announced and gets an exec_id of its own), its parent.
        """
        earlier = self._by_pid.get(process.pid)
        if process.environment is None:
            self._complete(process, self.get(process.exec_id) or earlier, announced=announced)
        self._recall(process, announced=announced)
        if process.exec_id in self._exited.images:  # announced after its end: events are not strictly in order
            self._keep_exited(process)
            return process
        again = self._running.images.get(process.exec_id)
        if again is not None and self._by_pid.get(again.pid) is again:
            del self._by_pid[again.pid]
        if earlier is not None and earlier.exec_id != process.exec_id:
            if self._replaced(process, earlier):
                if again is not None:
                    self._running.remove(again)
                self._keep_exited(process)
                return process
            # Exec without fork, or an exit that was never seen: only the last image of a process gets an exit event.
            self.exit(earlier)
        for evicted in self._running.add(process):
            if self._by_pid.get(evicted.pid) is evicted:
                del self._by_pid[evicted.pid]
            if evicted.opened or evicted.reached:
                self._remember(evicted)
            self.evicted_running += 1
        self._by_pid[process.pid] = process
        return process

    def exit(self, process: Process) -> None:
        """Move an image to the exited ones."""
        if not self._running.remove(process):
            process.exited = True
            return
        if self._by_pid.get(process.pid) is process:
            del self._by_pid[process.pid]
        self._keep_exited(process)

    def ancestors(self, process: Process) -> Iterator[Process]:
        """Parent first, then its parent, as far as is known and at most 64; ends where links form a ring.

        The parent of an image that replaced itself (exec without fork) is its own earlier image, and the kernel's
        pseudo process is its own parent.
        """
        seen = {process.exec_id}
        parent = self.get(process.parent_exec_id)
        while parent is not None and parent.exec_id not in seen and len(seen) <= _MAX_ANCESTORS:
            yield parent
            seen.add(parent.exec_id)
            parent = self.get(parent.parent_exec_id)

    def remember(self, processes: Iterable[Process]) -> None:
        """Take what an earlier run of the collector knew: it serves when the processes are met again."""
        self._remembered = {process.pid: process for process in processes}

    def _remember(self, process: Process) -> None:
        if len(self._remembered) >= self._capacity:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[process.pid] = process

    def _keep_exited(self, process: Process) -> None:
        process.exited = True
        self.evicted_exited += len(self._exited.add(process))

    def _complete(self, process: Process, earlier: Process | None, *, announced: bool) -> None:
        """Take over what an earlier image or the parent knows."""
        if earlier is not None and (earlier.exec_id == process.exec_id or is_survivor(earlier, process)):
            process.environment, process.fingerprints = earlier.environment, earlier.fingerprints
            process.attribution, process.opened = earlier.attribution, earlier.opened
            process.reached = earlier.reached
            process.pod = process.pod or earlier.pod
            self.survivors += earlier.exec_id != process.exec_id
            return
        kept = self._kept(process)
        if kept is not None and kept.environment is not None:
            process.environment = kept.environment
            self.survivors += 1
        elif not announced and (parent := self._forked_from(process)) is not None:
            process.environment, process.fingerprints = parent.environment, parent.fingerprints

    def _recall(self, process: Process, *, announced: bool) -> None:
        """Take over what was seen of the image before it was announced, or of the parent whose memory a fork has."""
        seen = self._running.images.get(process.exec_id) or self._exited.images.get(process.exec_id)
        if seen is None and self._remembered and (seen := self._kept(process)) is not None:
            del self._remembered[process.pid]  # known here from now on: twice the memory for nothing
        if seen is not None:
            process.opened, process.reached = seen.opened, seen.reached
        elif process.opened:  # by an earlier image of the same process
            return
        elif not announced and (parent := self._forked_from(process)) is not None:
            process.opened = tuple(one for one in parent.opened if one[1] < process.start_ns)

    def _forked_from(self, process: Process) -> Process | None:
        """The parent of a fork without exec, which has its memory; None for any other process."""
        parent = self.get(process.parent_exec_id)
        return parent if parent is not None and _is_fork(process, parent) else None

    def _kept(self, process: Process) -> Process | None:
        """What is remembered of the process."""
        kept = self._remembered.get(process.pid)
        return kept if kept is not None and (kept.exec_id == process.exec_id or is_survivor(kept, process)) else None

    def _replaced(self, process: Process, running: Process) -> bool:
        """Whether the process is an image that `running` has replaced since, told of late as somebody's parent."""
        same_pid = takewhile(lambda image: image.pid == running.pid, self.ancestors(running))
        if any(image.parent_exec_id == process.exec_id for image in (running, *same_pid)):
            return True
        # What an agent finds in /proc has its fork's time, however many images the process has had.
        return process.start_ns < running.start_ns and not process.preexisting


class _Running(dict[str, Process]):
    """Running images. Who is not among them is looked for among the exited ones."""

    __slots__ = ("_exited",)

    def __init__(self, exited: dict[str, Process]) -> None:
        super().__init__()
        self._exited = exited

    def __missing__(self, exec_id: str) -> Process | None:
        found = self._exited.pop(exec_id, None)
        if found is not None:
            self._exited[exec_id] = found  # used last
        return found


class _Bounded:
    """Images in order of use, bounded in number and in the text that they hold."""

    __slots__ = ("_capacity", "_together", "_weight", "images")

    def __init__(self, capacity: int, images: dict[str, Process]) -> None:
        self._capacity = capacity
        self.images = images
        # A dict keeps the places of what went and walks over them to its first key: 21 us at 32,768 processes, so that
        # many go together. An OrderedDict finds it at once, and takes 80 bytes more for each process.
        self._together = max(1, capacity // 256)
        self._weight = 0

    def add(self, process: Process) -> Sequence[Process]:
        """Enter as the newest; return what had to go."""
        earlier = self.images.pop(process.exec_id, None)
        if earlier is not None:
            self._weight -= _weight(earlier)
        self.images[process.exec_id] = process
        self._weight += _weight(process)
        return self._evict() if self._is_full() else ()

    def _is_full(self) -> bool:
        return len(self.images) > self._capacity or self._weight > self._capacity * _MEAN_WEIGHT

    def _evict(self) -> list[Process]:
        """Take out the oldest, never the newest."""
        evicted: list[Process] = []
        while self._is_full() and len(self.images) > 1:
            oldest = list(islice(self.images.values(), min(self._together, len(self.images) - 1)))
            for process in oldest:
                self.remove(process)
            evicted += oldest
        return evicted

    def remove(self, process: Process) -> bool:
        """Take out; False when it is not here."""
        found = self.images.pop(process.exec_id, None)
        if found is None:
            return False
        self._weight -= _weight(found)
        return True


def _weight(process: Process) -> int:
    names = process.environment
    text = len(process.binary) + len(process.arguments) + len(process.cwd)
    return text if names is None else text + _NAME_WEIGHT * len(names)


def _is_fork(process: Process, parent: Process) -> bool:
    """A fork without exec shows the command line of its parent, whose environment it has; others have their own."""
    return (
        not process.preexisting
        and not process.truncated
        and (process.binary, process.arguments) == (parent.binary, parent.arguments)
    )
