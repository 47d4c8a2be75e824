"""A host without Kubernetes: settings that the collector takes, a service without rights, an example that works."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from chart.rendering import CHART, ROOT
from keytrail.export.otlp_settings import otlp_settings
from keytrail.settings_sources import load_settings

SYSTEMD = ROOT / "deploy" / "systemd"


def test_the_services_settings_are_taken() -> None:
    """The settings file is one, and the environment file names a backend and no credential."""
    settings = load_settings({}, {}, SYSTEMD / "settings.yaml")
    assert settings.state_dir == Path("/var/lib/keytrail")
    lines = (SYSTEMD / "otlp.env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert otlp_settings(environ).endpoint == "localhost:4317"
    assert not [name for name in environ if "HEADERS" in name]


def test_the_service_has_no_rights() -> None:
    """The unit names the files that are there, gives up every capability, and keeps memory off the disk."""
    unit = (SYSTEMD / "keytrail.service").read_text().splitlines()
    assert {"CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict", "LimitCORE=0"} <= set(unit)
    assert {"DynamicUser=yes", "Group=root", "StateDirectory=keytrail"} <= set(unit)


def test_the_page_keeps_environments_out_of_files() -> None:
    """The flag that docs/install.md has for the agent's exporter is the chart's."""
    assert (CHART / "files" / "field-filters.json").read_text().strip() in (ROOT / "docs" / "install.md").read_text()


def test_the_chat_client() -> None:
    """It sends the key as a header and prints the answer."""
    spec = importlib.util.spec_from_file_location("chatbot", ROOT / "examples" / "chatbot.py")
    assert spec is not None
    assert spec.loader is not None
    chatbot = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chatbot)
    seen: list[str] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            answer = json.dumps({"choices": [{"message": {"content": question[::-1]}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert chatbot.ask("abc", "not-a-key", f"http://127.0.0.1:{server.server_port}/") == "cba"
        thread.join(20)
    assert seen == ["Bearer not-a-key"]
