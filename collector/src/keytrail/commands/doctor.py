"""`keytrail doctor`: what is here, what is missing, and the line that mends it."""

import argparse
import json
import os
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from keytrail.commands.options import add_agent, add_command, add_settings_file, read_settings
from keytrail.commands.terminal import printable, say
from keytrail.domain.errors import AgentError, SettingsError

if TYPE_CHECKING:
    from keytrail.diagnosis import Observed
    from keytrail.settings import Settings

_ANSWER_SECONDS = 5.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "doctor",
        "check agent, rights, flags, policies and backend, and say what to change",
        "sudo keytrail doctor",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a check")
    add_agent(parser)
    add_settings_file(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the checks; exit code 1 when one is critical."""
    from keytrail.diagnosis import Verdict, diagnose

    checks = diagnose(observe(args))
    for check in checks:
        if args.json:
            say(json.dumps(asdict(check)))
            continue
        say(f"{check.verdict:<9} {check.name}: {printable(check.found)}")
        for where, line in check.mend:
            say(f"{'':<9}   {where}: {printable(line)}")
    return 1 if any(check.verdict is Verdict.CRITICAL for check in checks) else 0


def observe(args: argparse.Namespace) -> "Observed":
    """Look at everything once. Nothing is changed, and no event stream is opened."""
    from keytrail.commands.live import agent_address, agent_tls
    from keytrail.diagnosis import Observed
    from keytrail.source.agent import AgentClient

    settings = read_settings(args)
    rest: dict[str, Any] = {
        "uid": os.geteuid(),
        "groups": (os.getegid(), *os.getgroups()),
        **_cluster(settings),
        **_backend(settings),
        **_asking(settings),
    }
    address = agent_address(settings)
    with AgentClient(address, agent_tls(settings), timeout=_ANSWER_SECONDS) as client:
        try:
            version = client.version()
        except AgentError as error:
            return Observed(str(address), error=str(error).removeprefix(f"agent at {address}: "), **rest)
        flags = policies = None
        with suppress(AgentError):  # agents before 1.7 do not know the call
            flags = client.info().flags
        with suppress(AgentError):  # said as "did not list them"
            policies = [(policy.name, policy.state, policy.error) for policy in client.list_policies()]
    return Observed(str(address), version=version, flags=flags, policies=policies, **rest)


def _asking(settings: "Settings") -> dict[str, str]:
    """What a collector with these settings asks the agent for, or why its manifests are none."""
    from keytrail.commands.live import asking
    from keytrail.configuration import load_configuration
    from keytrail.decode.redact import Redactor
    from keytrail.domain.errors import UsageError

    try:
        configuration = load_configuration(
            settings, Redactor(settings.redact_patterns).redact, live=False, findings=True
        )
    except UsageError as error:
        return {"asking_error": str(error)}
    return {"asking": asking(settings, configuration)}


def _cluster(settings: "Settings") -> dict[str, str]:
    """Ask the API server for the least of all that a collector lists."""
    from keytrail.commands.cluster_access import own
    from keytrail.commands.collect import in_cluster
    from keytrail.domain.crds import KINDS
    from keytrail.domain.errors import KubeError
    from keytrail.kube.api import Api
    from keytrail.kube.places import PODS

    if not in_cluster(settings):
        return {}
    lists = [own(kind.name) for kind in KINDS if kind.name != "CollectorStatus"]  # of those it writes its node's
    try:
        api = Api.open(settings.kubeconfig, settings.kubeconfig_context, os.environ)
    except SettingsError as error:
        return {"cluster_error": str(error)}
    try:
        for at in (PODS.at(), *lists):
            api.get(at, limit="1")
    except KubeError as error:
        return {"cluster_error": str(error)}
    finally:
        api.close()
    return {"cluster": f"{api.url} lists pods and Keytrail's objects"}


def _backend(settings: "Settings") -> dict[str, Any]:
    """Send an empty request, which every OTLP receiver accepts: what it answered, or what is wrong."""
    from keytrail.choices import Output
    from keytrail.export.otlp_settings import otlp_settings
    from keytrail.export.otlp_transport import Accepted, open_transport

    if Output.OTLP not in settings.output:
        return {"backend": f"none is asked: output is {', '.join(settings.output)}"}
    named = any(os.environ.get(name) for name in _ENDPOINTS)
    try:
        otlp = otlp_settings(os.environ)
    except SettingsError as error:
        return {"backend_error": str(error), "backend_named": named}
    transport = open_transport(otlp)
    try:
        answer = transport.send(b"", _ANSWER_SECONDS)
    finally:
        transport.close()
    if isinstance(answer, Accepted):
        return {"backend": f"{otlp.endpoint} accepts OTLP logs ({otlp.protocol})"}
    why = getattr(answer, "error", "") or type(answer).__name__
    return {"backend_error": f"{otlp.endpoint}: {why}", "backend_named": named}
