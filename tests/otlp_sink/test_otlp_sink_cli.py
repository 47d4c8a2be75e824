"""`keytrail otlp-sink` as a process: endpoints, records on disk, the count at the end."""

import argparse
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from keytrail.domain.errors import UsageError
from keytrail.testing.otlp_sink_cli import add_arguments, run_otlp_sink

PROGRAM = """
import argparse, sys
from keytrail.testing.otlp_sink_cli import add_arguments, run_otlp_sink
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run_otlp_sink(parser.parse_args()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_says_what_came(tmp_path: Path, number: signal.Signals) -> None:
    """The printed HTTP endpoint takes records, the signal ends it with status 0, a count and the rows on disk."""
    database = tmp_path / "records.db"
    command = [sys.executable, "-c", PROGRAM, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--database", str(database)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            grpc_line, http_line = process.stdout.readline(), process.stdout.readline()
            assert grpc_line.startswith("OTLP/gRPC http://127.0.0.1:")
            request = ExportLogsServiceRequest()
            request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
            headers = {"content-type": "application/x-protobuf"}
            url = http_line.split()[1]
            answer = requests.post(url, data=request.SerializeToString(), headers=headers, timeout=60)
            assert answer.status_code == 200
        finally:
            process.send_signal(number)
        assert process.stdout.read() == "records received: 1\n"
    assert process.returncode == 0
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT body FROM records").fetchall() == [("hello",)]
    connection.close()


def test_a_file_that_is_no_database_is_a_usage_error(tmp_path: Path) -> None:
    """The error names the option and the file, and the handlers of signals are put back."""
    file = tmp_path / "notes.txt"
    file.write_text("not a database, and long enough to be seen as none" * 100)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UsageError, match=r"--database .*notes\.txt"):
        run_otlp_sink(parser.parse_args(["--database", str(file)]))
    assert signal.getsignal(signal.SIGTERM) is before
