"""`keytrail policies`: TracingPolicies of a running agent, as `tetra tracingpolicy` manages them."""

import argparse
from pathlib import Path
from typing import Any

from keytrail.commands.options import (
    add_agent,
    add_command,
    add_config,
    add_settings_file,
    at_least,
    read_settings,
)
from keytrail.commands.terminal import printable, say, table
from keytrail.domain.errors import AgentError, UsageError


def add(commands: Any) -> None:
    """Declare the command and its actions."""
    parser = add_command(
        commands,
        "policies",
        "list, load and delete TracingPolicies of a running agent, say which ones rules need, and check files",
        "keytrail policies list",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list the agent's policies with tetra's columns", "keytrail policies list")
    loading = add_command(
        actions, "load", "load policies and wait until each is loaded, or show the agent's own error",
        "keytrail policies load tcp-connect ./my-policy.yaml --wait 120",
    )  # fmt: skip
    loading.add_argument(
        "files", nargs="+", metavar="FILE", help="TracingPolicy manifest (YAML), or the name of a shipped one"
    )
    loading.add_argument(
        "--wait", type=at_least(0.0), default=60.0, metavar="SECONDS", help="how long to wait for each (default: 60)"
    )
    needing = add_command(
        actions, "needed", "show which shipped policies the rules that run wait for; exit code 1 when one is missing",
        "keytrail policies needed --rules all",
    )  # fmt: skip
    add_config(needing)
    deleting = add_command(actions, "delete", "unload policies", "keytrail policies delete tcp-connect")
    deleting.add_argument("names", nargs="+", metavar="NAME", help="names as `keytrail policies list` shows them")
    deleting.add_argument("--namespace", default="", help="namespace of namespaced policies")
    checking = add_command(
        actions, "check", "say what an agent would refuse or ignore in manifests, without an agent",
        "keytrail policies check policies/tracing/*.yaml",
    )  # fmt: skip
    checking.add_argument("files", nargs="+", metavar="FILE", help="TracingPolicy manifests (YAML or JSON)")
    checking.add_argument(
        "--observe-only",
        action="store_true",
        help="also refuse whatever changes what a process does (Sigkill, Override, enforcers, ...)",
    )
    checking.set_defaults(run=run_check)
    runs = ((listing, run_list), (loading, run_load), (needing, run_needed), (deleting, run_delete))
    for action, run in runs:
        add_agent(action)
        add_settings_file(action)
        action.set_defaults(run=run)


def run_check(args: argparse.Namespace) -> int:
    """Judge manifests."""
    from keytrail.tracing import cli

    return cli.run_check(args)


def run_list(args: argparse.Namespace) -> int:
    """Print the table."""
    with _client(args) as client:
        found = client.list_policies()
    rows = [
        (
            "ID",
            "NAME",
            "STATE",
            "FILTERID",
            "NAMESPACE",
            "SENSORS",
            "KERNELMEMORY",
            "MODE",
            "NPOST",
            "NENFORCE",
            "NMONITOR",
        )
    ]
    rows += [
        (
            str(policy.id),
            printable(policy.name),
            policy.state,
            str(policy.filter_id),
            printable(policy.namespace) or "(global)",
            ",".join(map(printable, policy.sensors)),
            _bytes(policy.kernel_memory_bytes),
            policy.mode,
            str(policy.npost),
            str(policy.nenforce),
            str(policy.nmonitor),
        )
        for policy in found
    ]
    table(rows)
    for policy in found:
        if policy.error:
            say(f"{printable(policy.name)}: {printable(policy.error)}")
    return 0


def run_load(args: argparse.Namespace) -> int:
    """Load one after another; a failure is reported and the next is tried. Exit code 1 when any failed."""
    manifests = [(path, _read(path)) for path in args.files]
    failed = 0
    with _client(args) as client:
        for path, manifest in manifests:
            try:
                policy = client.add_policy(manifest, args.wait)
            except AgentError as error:
                say(f"{printable(path)}: not loaded: {printable(str(error))}")
                failed += 1
            else:
                memory = _bytes(policy.kernel_memory_bytes)
                say(f"{printable(path)}: {printable(policy.name)} {policy.state}, {memory} of kernel memory")
    return 1 if failed else 0


def run_needed(args: argparse.Namespace) -> int:
    """Compare what the rules wait for with what the agent has."""
    from keytrail.commands.needed import show

    with _client(args) as client:
        there, version = client.list_policies(), client.version()
    return show(read_settings(args), there, version)


def run_delete(args: argparse.Namespace) -> int:
    """Delete one after another."""
    with _client(args) as client:
        for name in args.names:
            client.delete_policy(name, args.namespace)
            say(f"{printable(name)}: deleted")
    return 0


def _client(args: argparse.Namespace) -> Any:
    from keytrail.commands.live import agent_address, agent_tls
    from keytrail.source.agent import AgentClient

    settings = read_settings(args)
    return AgentClient(agent_address(settings), agent_tls(settings))


def _read(given: str) -> str:
    """Read a manifest: a file's, or a shipped one's by its name, which an installed Keytrail has at no handy path."""
    from keytrail.domain.shape import suggestion
    from keytrail.tracing import sensors

    path = Path(given)
    if "/" not in given and not path.suffix and not path.exists():
        if given not in sensors():
            raise UsageError(f"{given}: no file and no shipped policy, {suggestion(given, list(sensors()))}")
        path = sensors()[given].path
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{given}: {getattr(error, 'strerror', None) or error}") from None


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - decimal units, as tetra shows them
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count = count / 1000  # type: ignore[assignment] # a float from here on
    return f"{count:.2f} GB"
