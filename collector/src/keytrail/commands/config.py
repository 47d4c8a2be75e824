"""`keytrail config show`: the settings in force, where each comes from, and what they ask of the agent."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from keytrail.commands.options import add_command, add_config, add_filters, add_redaction, add_settings_file
from keytrail.commands.terminal import say
from keytrail.domain.errors import SettingsError

if TYPE_CHECKING:
    from keytrail.settings import Settings


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "config", "show the settings in force", "keytrail config show --settings keytrail.yaml"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = add_command(
        actions,
        "show",
        "show every setting with its origin; secrets are masked",
        "keytrail config show --settings keytrail.yaml",
    )
    add_config(show)
    add_filters(show)
    add_redaction(show)
    add_settings_file(show)
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print settings, then what the OTLP variables amount to, then what the agent is asked for."""
    from keytrail.commands.live import asking
    from keytrail.commands.options import read_settings
    from keytrail.configuration import load_configuration
    from keytrail.decode.redact import Redactor
    from keytrail.settings_sources import show

    settings = read_settings(args)
    check_addresses(settings)
    # The manifests belong to the settings: a wrong one is an error here.
    configuration = load_configuration(settings, Redactor(settings.redact_patterns).redact, live=False, findings=True)
    say(show(settings, os.environ, otlp_rows()).rstrip("\n"))
    say(f"\n# Asked of the agent: {asking(settings, configuration)}")
    return 0


def check_addresses(settings: "Settings") -> None:
    """Judge what a start parses only when it connects. Raises SettingsError."""
    from keytrail.commands.live import agent_address
    from keytrail.observe.address import parse_address

    if settings.agent_address:
        agent_address(settings)
    try:
        parse_address(settings.http_address)
    except ValueError as error:
        raise SettingsError(f"http_address {settings.http_address!r}: {error}") from None


def otlp_rows() -> list[tuple[str, str, str]]:
    """Effective OTLP settings as name, value, origin; of headers only the names."""
    from keytrail.export.otlp_settings import otlp_settings

    try:
        otlp = otlp_settings(os.environ)
    except SettingsError as error:
        return [("otlp", f"not usable: {error}", "environment")]
    return [
        ("otlp.endpoint", otlp.endpoint, "environment"),
        ("otlp.protocol", str(otlp.protocol), "environment"),
        ("otlp.headers", ", ".join(f"{name}=***" for name, _ in otlp.headers), "environment"),
        ("otlp.timeout", f"{otlp.timeout_seconds:g} s", "environment"),
        ("otlp.compression", "gzip" if otlp.gzip else "none", "environment"),
        ("otlp.insecure", str(otlp.insecure).lower(), "environment"),
    ]
