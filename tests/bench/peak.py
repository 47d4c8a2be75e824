"""The most memory that a plain `keytrail collect` ever has, on a host, while it comes to know a busy node's processes.

In: how many processes, and whether findings go to standard output or to a backend by OTLP, as in an installation. Out:
megabytes, as the kernel counted them (VmHWM), with all that the product brings: its threads and queue, its watch for
loss, its own HTTP pages. Events come from the paced sender at a pace that leaves the collector time. The process that
compiles its rules is another one, which ended before the first event.
"""

import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from peers import Cores, Peer

RATE = 2_000
"""Events a second, two for each process."""
_PATIENCE_SECONDS = 120.0
_FOREIGN = ("OTEL_", "KEYTRAIL_", "KUBERNETES_")


def peak(processes: int, cores: Cores, output: str) -> dict[str, Any]:
    """Run a collector with the stable rules until it knows so many processes; its `output` is findings or otlp."""
    count = processes * 2  # a start and a connection for each
    on = ("--core", str(cores.others))
    sender, receiver = Peer("peers.py", "pace", "--events", str(count), *on), Peer("peers.py", "receive", *on)
    port = _free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environ["KEYTRAIL_HTTP_ADDRESS"] = f"127.0.0.1:{port}"
    if output == "otlp":  # metrics of its own go there, too
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{receiver.address['otlp']}"
    command = [sys.executable, "-m", "keytrail", "collect", "--output", output]
    command += ["--agent", f"unix://{sender.address['socket']}"]
    collector = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(collector.pid, {cores.client})
        before = _wait(collector, port, 0)
        sender.tell(rate=RATE, seconds=count / RATE)
        after = _wait(collector, port, count)
    finally:
        collector.kill()
        collector.wait()
        sender.stop()
        receiver.stop()
    return {"output": output, "processes": processes, "idle_mb": before, "peak_mb": after}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait(collector: "subprocess.Popen[bytes]", port: int, count: int) -> float:
    """Wait until it has decided on so many events; its peak until then in megabytes."""
    end = time.monotonic() + count / RATE + _PATIENCE_SECONDS
    while _received(port) < count:
        if collector.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the collector did not take {count} events")
        time.sleep(0.5)
    fields = Path(f"/proc/{collector.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in fields if line.startswith("VmHWM:")) * 1024 / 1e6


def _received(port: int) -> int:
    """Events that it counts as received; -1 while it does not answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/status")
        return int(json.loads(connection.getresponse().read())["accounting"]["events"]["received"])
    except (OSError, ValueError):
        return -1
    finally:
        connection.close()


def main() -> None:
    """Measure once."""
    print(json.dumps(peak(int(sys.argv[1]), Cores(), sys.argv[2])))


if __name__ == "__main__":
    main()
