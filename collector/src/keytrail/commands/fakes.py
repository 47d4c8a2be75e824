"""`keytrail fake-tetragon` and `keytrail otlp-sink`: the two fakes that ship with Keytrail, from the command line."""

import argparse
from typing import Any

from keytrail.commands.options import add_command


def add(commands: Any) -> None:
    """Declare both commands."""
    from keytrail.testing import fake_tetragon_cli, otlp_sink_cli

    tetragon = add_command(
        commands, "fake-tetragon", "serve a recording as a Tetragon agent would, over real gRPC",
        "keytrail fake-tetragon recording.pb.zst --listen unix:///tmp/tetragon.sock --wait-for-listener",
    )  # fmt: skip
    fake_tetragon_cli.add_arguments(tetragon)
    tetragon.set_defaults(run=_run_fake_tetragon)
    sink = add_command(
        commands, "otlp-sink", "receive OTLP logs over gRPC and HTTP into an SQLite file",
        "keytrail otlp-sink --grpc 127.0.0.1:4317 --database logs.sqlite",
    )  # fmt: skip
    otlp_sink_cli.add_arguments(sink)
    sink.set_defaults(run=_run_otlp_sink)


def _run_fake_tetragon(args: argparse.Namespace) -> int:
    from keytrail.testing.fake_tetragon_cli import run_fake_tetragon

    return run_fake_tetragon(args)


def _run_otlp_sink(args: argparse.Namespace) -> int:
    from keytrail.testing.otlp_sink_cli import run_otlp_sink

    return run_otlp_sink(args)
