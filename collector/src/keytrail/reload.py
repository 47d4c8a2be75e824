"""Settings and manifests that change while the collector runs: loaded again, judged, and only then put in force.

In flow looks at the files behind a configuration, every few seconds and on SIGHUP; out flow a new `Configuration` to
whoever decides by it, a log level, and a state to show. What is wrong changes nothing: the last good version stays in
force and the log says why, once for each content. Where no fault of theirs kept them out, as for want of memory to
compile rules, they are loaded again, later each time. Knows neither pipeline nor stream: events are in no hurry here,
and this thread never makes them wait.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum, StrEnum, auto
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol, Self

from keytrail.aside import AsideError
from keytrail.configuration import Configuration, digest_of, files_below, watched_folders
from keytrail.domain.errors import KeytrailError, ManifestError, UsageError
from keytrail.domain.objects import Resource
from keytrail.kube.backoff import Backoff
from keytrail.observe.logs import set_level
from keytrail.settings import Settings

log = logging.getLogger(__name__)

_RELOADABLE = frozenset({"log_level"})
_AGAIN_SECONDS = 0.2
"""After SIGHUP met files that were just being written."""
_SHOWN_PROBLEMS = 20
_END_SECONDS = 0.5

Marks = tuple[tuple[str, int, int, int, int, int], ...]
"""What tells that a file is another one or was written to, without reading it."""


class Result(StrEnum):
    """How the last look at changed files ended."""

    IN_FORCE = "in_force"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ReloadState:
    """What is in force, and what stands on disk but is not."""

    generation: int
    """Configurations put in force, the one of the start included."""
    loaded_at: float
    """When the one in force was loaded, in seconds since the epoch."""
    result: Result = Result.IN_FORCE
    problems: tuple[str, ...] = ()
    """Why what stands on disk is not in force; each with file, line and field."""
    needs_restart: tuple[str, ...] = ()
    """Settings that changed and take no effect before a restart."""
    refused: int = 0
    """Looks at changed files that found something wrong."""
    failures: int = 0
    """Looks that ended in an error of our own."""


class _Request(Enum):
    LOOK = auto()
    END = auto()


class Load(Protocol):
    """Loads what the settings name; raises UsageError with everything that is wrong."""

    def __call__(self, *, previous: Configuration) -> Configuration:
        """What did not change since `previous` is the same object in the answer."""
        ...


class Reloader:
    """Looks at the files, within `with` in a thread of its own. `look_now` and `state` are for any thread."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        settings_file: Path | None,
        *,
        loaded: Configuration,
        load: Load,
        replace: Callable[[Configuration], None],
        applied: Callable[[], tuple[Resource, ...]] = tuple,
        every_seconds: float | None = None,
        retries: Backoff | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`reread` gives the settings as they would be at a start now; `every_seconds` defaults to their own.

        `applied` gives the API server's resources, as `load` takes them; whoever sees them change calls `look_now`.
        """
        self._settings = settings
        self._reread = reread
        self._folders = watched_folders(settings)
        self._watched = self._folders if settings_file is None else (settings_file, *self._folders)
        self._loaded = loaded
        self._load = load
        self._replace = replace
        self._applied = applied
        self._every = settings.reload_seconds if every_seconds is None else every_seconds
        self._retries = retries or Backoff(2.0, 300.0)  # each is a process and a second of CPU
        self._retry_at: float | None = None
        """When to load once more what failed without being wrong, by the monotonic clock."""
        self._now = now
        self._state = ReloadState(1, now())
        self._last: Marks | None = None
        """Marks of the last look."""
        self._judged: Marks | None = None
        """Marks of the files that were last judged; None at first: they may have changed since they were loaded."""
        self._content = ""
        """Digest of what was last judged."""
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="keytrail-reload", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._requests.put(_Request.END)
        self._thread.join(_END_SECONDS)

    def look_now(self) -> None:
        """Look at once, and say what was found even if nothing changed; as on SIGHUP."""
        self._requests.put(_Request.LOOK)

    def state(self) -> ReloadState:
        """What is in force, and what is not."""
        return self._state

    # -- looking

    def _run(self) -> None:
        asked = False
        while True:
            try:
                asked = not self.look(asked=asked) and asked
            except Exception as error:  # noqa: BLE001 - the boundary of this thread: it must look again
                # Its text could quote a value out of a file.
                log.error("cannot reload (%s); the last good version stays in force", type(error).__name__)  # noqa: TRY400 - no traceback either
                self._state = replace(self._state, failures=self._state.failures + 1)
                self._judged, self._retry_at, asked = self._last, None, False
            try:
                request = self._requests.get(timeout=self._pause(asked=asked))
            except Empty:
                continue
            if request is _Request.END:
                return
            asked = True

    def _pause(self, *, asked: bool) -> float | None:
        if asked:
            return _AGAIN_SECONDS
        left = 0.0 if self._retry_at is None else max(_AGAIN_SECONDS, self._retry_at - time.monotonic())
        return min(filter(None, (self._every, left)), default=None)

    def look(self, *, asked: bool = False) -> bool:
        """Look once, as the thread does; whether that settled it. Files in motion are judged at a later look.

        `asked` judges them at once, unless they change while they are read, and says so even if nothing changed.
        """
        marks = _marks(self._watched)
        steady, self._last = marks == self._last, marks
        again = self._retry_at is not None and time.monotonic() >= self._retry_at
        if not asked and not again and (marks == self._judged or not steady):
            return True
        content = digest_of(self._watched)
        if not asked and not again and content == self._content:
            self._judged = marks
            return True
        settings, configuration, problems, failed = self._judge()
        if _marks(self._watched) != marks:
            return False
        # A file written to twice within a tick of the file system's clock has the same marks: steady ones are proof.
        self._judged, self._content = marks if steady else None, content
        self._accept(settings, configuration, problems, asked=asked, again=again)
        if not failed:
            self._retries.reset()
        self._retry_at = time.monotonic() + self._retries.pause() if failed else None
        return True

    def _judge(self) -> tuple[Settings | None, Configuration | None, tuple[str, ...], bool]:
        """Load everything anew: settings and configuration, None where they are wrong; all that is; if it failed."""
        problems: list[str] = []
        failed = False
        settings, configuration = None, None
        try:
            settings = self._reread()
        except UsageError as error:
            problems += _each(error)
        try:
            unchanged = digest_of(self._folders) == self._loaded.digest and self._applied() == self._loaded.applied
            configuration = self._loaded if unchanged else self._load(previous=self._loaded)
        except (UsageError, AsideError) as error:
            problems += _each(error)
            failed = isinstance(error, AsideError)
        return settings, configuration, tuple(problems), failed

    # -- putting in force

    def _accept(
        self,
        settings: Settings | None,
        configuration: Configuration | None,
        problems: tuple[str, ...],
        *,
        asked: bool,
        again: bool,
    ) -> None:
        before = self._state
        said = again and not asked and problems == before.problems
        state = replace(before, result=Result.REFUSED if problems else Result.IN_FORCE, problems=problems)
        if problems and not said:
            state = replace(state, refused=state.refused + 1)
        if settings is not None:
            state = replace(state, needs_restart=self._accept_settings(settings, before.needs_restart))
        if configuration is not None and configuration is not self._loaded:
            self._loaded = configuration
            self._replace(configuration)
            state = replace(state, generation=state.generation + 1, loaded_at=self._now())
            log.info("reloaded as generation %d: %s", state.generation, _told(configuration))
        elif not problems and (asked or before.problems):
            log.info("generation %d is what stands on disk: %s", state.generation, _told(self._loaded))
        for problem in () if said else problems[:_SHOWN_PROBLEMS]:
            log.error("not reloaded, the last good version stays in force: %s", problem)
        if len(problems) > _SHOWN_PROBLEMS:
            log.error("not reloaded: %d more problems", len(problems) - _SHOWN_PROBLEMS)
        self._state = state

    def _accept_settings(self, settings: Settings, said: Sequence[str]) -> tuple[str, ...]:
        """Put in force what can be; return what cannot."""
        if settings.log_level != self._settings.log_level:
            set_level(settings.log_level)
            self._settings = replace(self._settings, log_level=settings.log_level)
            log.warning("log level is %s now", settings.log_level)
        waiting = tuple(
            one.name
            for one in fields(Settings)
            if one.compare
            and one.name not in _RELOADABLE
            and getattr(settings, one.name) != getattr(self._settings, one.name)
        )
        if waiting and waiting != said:
            log.warning("needs a restart: %s", ", ".join(waiting))
        return waiting


def _told(configuration: Configuration) -> str:
    rules = 0 if configuration.engine is None else len(configuration.engine.rules)
    return f"{rules} rules, {len(configuration.manifests.identity_mappings)} identity mappings"


def _each(error: KeytrailError) -> list[str]:
    return list(map(str, error.problems)) if isinstance(error, ManifestError) else str(error).splitlines()


def _marks(paths: Sequence[Path]) -> Marks:
    """Marks of every file below some paths; through links, so that the swap of `..data` shows in each of them."""
    return tuple(_mark(file) for path in paths for file in files_below(path))


def _mark(file: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return str(file), 0, 0, 0, 0, 0
    # The change time, too: `cp -p` and `touch -r` set the other one to what it was.
    return str(file), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
