"""Pods that cannot start for want of a Secret: a Pod as the API's JSON in, the Secrets that it waits for out.

Without the right to read Secrets this is the one way to learn that one is missing: the kubelet says so in the status of
the container. Only pods that are pending are asked for, and nothing else is kept of them. Where a Secret is mounted as
files, the kubelet says it in an Event only, and nothing is known here. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from keytrail.domain.declared import SecretKey
from keytrail.kube.json_stream import Json

_REASON: Final = "CreateContainerConfigError"
_LONGEST: Final = 1024
_NO_SECRET: Final = re.compile(r'secrets? "([a-z0-9.-]{1,253})" not found')
_NO_KEY: Final = re.compile(r"couldn't find key ([-._a-zA-Z0-9]{1,253}) in Secret [a-z0-9-]{1,63}/([a-z0-9.-]{1,253})")
"""The kubelet's words, the same since Kubernetes 1.6."""


@dataclass(frozen=True, slots=True)
class WaitingPod:
    """A Pod that waits for Secrets."""

    namespace: str
    name: str
    missing: tuple[SecretKey, ...]
    """Without a key where the whole Secret is missing."""


def waiting_pod(raw: Json) -> WaitingPod | None:
    """Keep a Pod that waits for a Secret; None for every other one."""
    metadata: Any = raw.get("metadata") or {}
    namespace = str(metadata.get("namespace") or "")
    missing = tuple(sorted(set(_missing(namespace, raw.get("status") or {})), key=lambda one: (one.name, one.key)))
    return WaitingPod(namespace, str(metadata.get("name") or ""), missing) if missing else None


def _missing(namespace: str, status: Any) -> Iterator[SecretKey]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(kind) or ():
            waiting = (one.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") != _REASON:
                continue
            message = str(waiting.get("message") or "")[:_LONGEST]
            if found := _NO_SECRET.search(message):
                yield SecretKey(namespace, found[1])
            elif found := _NO_KEY.search(message):
                yield SecretKey(namespace, found[2], found[1])
