"""The operator's settings: flags and environment in, one frozen object out, or a SettingsError with all that is wrong.

Each setting has one default, here. A flag outranks its environment variable, which is KEYTRAIL_OPERATOR_ and the
flag's name. What is to be watched for is not here: that is said by objects in the cluster.
"""

import argparse
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from keytrail.domain.errors import SettingsError
from keytrail.observe.address import parse_address

PREFIX: Final = "KEYTRAIL_OPERATOR_"
_LEVELS: Final = ("debug", "info", "warning", "error")
_FORMATS: Final = ("text", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """What the operator is told when it starts."""

    kubeconfig: Path | None = None
    context: str = ""
    namespace: str = "keytrail"
    release_owner: str = ""
    cluster_cidrs: tuple[str, ...] = ()
    fingerprint_secrets: tuple[str, ...] = ()
    leader_elect: bool = False
    identity: str = ""
    http_address: str = ":8080"
    look_seconds: int = 600
    gather_seconds: int = 600
    log_level: str = "info"
    log_format: str = "text"


HELP: Final[Mapping[str, str]] = {
    "kubeconfig": "kubeconfig to use; without one, what the Pod was given",
    "context": "context in the kubeconfig; by default its current one",
    "namespace": "namespace of the release: where the Lease and the fingerprints are",
    "release_owner": "name of the ClusterRole that owns all that is made, so that uninstalling the release removes it",
    "cluster_cidrs": "the cluster's ranges, comma-separated, where they cannot be found: then these decide",
    "fingerprint_secrets": "Secrets that may be read, as namespace/name, comma-separated: fingerprints of those that "
    "mappings name are published; none: there are no fingerprints",
    "leader_elect": "act only while holding a Lease, so that a second replica may stand by",
    "identity": "name of this replica in the Lease; by default the host's name",
    "http_address": "host:port of /healthz, /readyz and /metrics; off: none",
    "look_seconds": "seconds between two comparisons of everything watched with what there is",
    "gather_seconds": "seconds for which changes of the cluster's ranges are gathered",
    "log_level": f"least important entries of the log: {', '.join(_LEVELS)}",
    "log_format": f"form of the log: {', '.join(_FORMATS)}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for each setting."""
    for one in fields(OperatorSettings):
        text = f"{HELP[one.name]} ({PREFIX}{one.name.upper()}; default: {_shown(one.default)})"
        flag = "--" + one.name.replace("_", "-")
        if isinstance(one.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument(flag, default=None, metavar="VALUE", help=text)


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> OperatorSettings:
    """Return the settings. Raises SettingsError."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for one in fields(OperatorSettings):
        given, origin = flags.get(one.name), "--" + one.name.replace("_", "-")
        if given is None:
            given, origin = environ.get(PREFIX + one.name.upper()), PREFIX + one.name.upper()
        if given is None or given == "":
            continue
        try:
            values[one.name] = _parsed(one.name, one.default, given)
        except ValueError as error:
            problems.append(f"{origin}: {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return OperatorSettings(**values)


def _parsed(name: str, default: Any, given: Any) -> Any:
    text = str(given).strip()
    if isinstance(default, bool):
        return _truth(text)
    if isinstance(default, int):
        if not text.isdecimal() or not int(text):
            raise ValueError(f"expected a number of seconds, found {text!r}")
        return int(text)
    if name == "cluster_cidrs":
        return tuple(_network(part.strip()) for part in text.split(",") if part.strip())
    if name == "fingerprint_secrets":
        return tuple(_place(part.strip()) for part in text.split(",") if part.strip())
    choices = {"log_level": _LEVELS, "log_format": _FORMATS}.get(name, ())
    if choices and text not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}, found {text!r}")
    if name == "http_address":
        parse_address(text)
    return Path(text) if name == "kubeconfig" else text


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"expected true or false, found {text!r}")
    return text.lower() == "true"


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"expected a range such as 10.244.0.0/16, found {text!r}") from None


def _place(text: str) -> str:
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise ValueError(f"expected a Secret as namespace/name, found {text!r}")
    return text


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default not in (None, "", ()) else "none"
