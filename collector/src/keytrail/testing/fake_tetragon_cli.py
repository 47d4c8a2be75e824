"""`keytrail fake-tetragon`: a recording comes in by name, a FakeTetragon that serves it runs until a signal."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keytrail.testing.fake_tetragon_listeners import DEFAULT_QUEUE_SIZE

if TYPE_CHECKING:
    from keytrail.testing.fake_tetragon import FakeTetragon

_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS: Final = 0.2
_DRAIN_SECONDS: Final = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "recording",
        metavar="RECORDING",
        help="folder of a recording, .pb or .pb.zst file, or the name of a shipped one",
    )
    parser.add_argument(
        "--listen",
        default="localhost:54321",
        metavar="ADDRESS",
        help="unix:///path or host:port (default: %(default)s)",
    )
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve the agent's metrics page there (default: none)")
    parser.add_argument("--info-file", type=Path, metavar="FILE", help="write the agent's tetragon-info.json there")
    parser.add_argument(
        "--pace", type=float, default=1.0, metavar="X", help="times the recorded speed; 0 = full (default: %(default)s)"
    )
    parser.add_argument("--wait-for-listener", action="store_true", help="publish nothing before a client is connected")
    parser.add_argument("--lossless", action="store_true", help="wait for slow clients, which a real agent never does")
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="publish it N times (default: %(default)s)")
    parser.add_argument(
        "--queue", type=int, default=DEFAULT_QUEUE_SIZE, metavar="N", help="events per client (default: %(default)s)"
    )
    parser.add_argument(
        "--release", type=_release, metavar="VERSION", help="such as 1.6: leave out what this release does not have"
    )
    parser.add_argument("--once", action="store_true", help="end when the recording was served, not on a signal")


def _release(text: str) -> str:
    from keytrail.testing.fake_tetragon_release import RELEASES

    if text not in RELEASES:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(RELEASES)}, found {text!r}")
    return text


def run_fake_tetragon(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, or with `--once` until the recording was sent; return the exit code.

    Raises UsageError for a recording that is not there, RecordingError for one that cannot be read.
    """
    from concurrent.futures import ThreadPoolExecutor

    from keytrail.commands.replay import recording_at
    from keytrail.testing.fake_tetragon import FakeTetragon
    from keytrail.testing.fake_tetragon_agent import AgentProfile

    recording = recording_at(args.recording)
    agent = FakeTetragon(
        args.listen,
        profile=AgentProfile.of_recording(recording),
        release=args.release,
        queue_size=args.queue,
        metrics_address=args.metrics,
        info_file=args.info_file,
    )
    with _signals_held(), ThreadPoolExecutor(1) as pool, _listening(agent, args):
        _say(f"listening on {agent.address}")
        if agent.metrics_address:
            _say(f"metrics on http://{agent.metrics_address}/metrics")
        playing = pool.submit(_play, agent, recording, args)
        while not signal.sigtimedwait(_ENDING, _POLL_SECONDS):
            if playing.done() and (args.once or playing.exception()):
                break
    playing.result()
    return 0


def _listening(agent: "FakeTetragon", args: argparse.Namespace) -> "FakeTetragon":
    from keytrail.domain.errors import UsageError

    try:
        agent.start()
    except RuntimeError:  # grpcio's
        raise UsageError(f"--listen {args.listen}: cannot listen there, expected unix:///path or host:port") from None
    except (OSError, ValueError) as error:
        agent.stop()
        given = {"--listen": args.listen, "--metrics": args.metrics, "--info-file": args.info_file}
        told = ", ".join(f"{name} {value}" for name, value in given.items() if value)
        raise UsageError(f"{told}: {error}") from None
    return agent


def _play(agent: "FakeTetragon", recording: Path, args: argparse.Namespace) -> None:
    """Publish as told; ends soon after the agent was stopped."""
    from keytrail.source.recording import read_recording

    while args.wait_for_listener and agent.running and not agent.wait_for_listeners(timeout=_POLL_SECONDS):
        pass
    for _ in range(args.loop):
        if not agent.running:
            return
        count = agent.publish(read_recording(recording), pace=args.pace or None, lossless=args.lossless)
        _say(f"published {count} events, {agent.overflowed} dropped for slow clients so far")
    if args.once:
        agent.wait_until_drained(timeout=_DRAIN_SECONDS)
        agent.go_away()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep SIGINT and SIGTERM from interrupting anything, also in threads begun from here: they are waited for."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _say(line: str) -> None:
    sys.stdout.write(f"fake-tetragon: {line}\n")
    sys.stdout.flush()
