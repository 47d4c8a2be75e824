"""What the owners of the recorded cluster's three keys would write of their use; for tests that judge use."""

from typing import Any

from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.domain.shape import read

CLIENTS = ["/usr/bin/curl", "/usr/bin/python3*"]
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "openai-prod": ("OPENAI_API_KEY", {"destinations": [{"host": "api.openai.com", "ports": [443]}]}),
    "anthropic-prod": (
        "ANTHROPIC_API_KEY",
        {
            "workloads": [{"namespace": "ml", "kind": "Deployment", "name": "trainer"}],
            "binaries": CLIENTS,
            "destinations": [{"host": "api.anthropic.com"}],
        },
    ),
    "stripe-prod": (
        "STRIPE_API_KEY",
        {
            "workloads": [
                {"namespace": "payments", "kind": "Deployment", "name": "checkout"},
                {"namespace": "payments", "kind": "Deployment", "name": "refunder"},
            ],
            "binaries": CLIENTS,
            "destinations": [{"host": "api.stripe.com"}],
        },
    ),
}
ONLY_PYTHON: dict[str, tuple[str, dict[str, Any]]] = {
    "stripe-prod": ("STRIPE_API_KEY", {"binaries": ["/usr/bin/python3*"]})
}
"""An owner who wants to hear of every other client."""


def mappings(wanted: dict[str, tuple[str, dict[str, Any]]]) -> tuple[ClusterIdentityMapping, ...]:
    """Mappings as manifests would give them."""
    return tuple(_mapping(name, variable, allowed) for name, (variable, allowed) in wanted.items())


def _mapping(name: str, variable: str, allowed: dict[str, Any]) -> ClusterIdentityMapping:
    spec = {"evidence": {"env": [{"name": variable}]}, "allowed": allowed}
    made, faults = read(ClusterIdentityMapping, {"metadata": {"name": name}, "spec": spec})
    assert made is not None, faults
    return made
