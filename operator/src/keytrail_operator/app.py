"""The operator, composed: settings in, a running operator out, which ends in order when it is told to.

The main thread runs kopf's loop, whose handlers fill the stores; one thread decides and acts; with `leader_elect`
another one competes for the Lease. The order of the reconcilers is here: policies first, since a hook that is not
loaded loses events, while a status that is late loses nothing.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import kopf

from keytrail.commands.redaction import redacted
from keytrail.detect.library import load_rules
from keytrail.domain.errors import SettingsError
from keytrail.hardening import keep_errors_private, keep_memory_private
from keytrail.kube.access import Access, from_kubeconfig, from_pod
from keytrail.kube.api import Api
from keytrail.manifests import builtin_folder
from keytrail.observe.logs import set_up_logs
from keytrail.observe.watchdog import Pulse, Watchdog
from keytrail.tracing import sensors
from keytrail_operator.beside import Beside
from keytrail_operator.handlers import connection_of, operator_settings, registry_of
from keytrail_operator.lease import Lease
from keytrail_operator.pages import Pages, served
from keytrail_operator.reconcile import AnyReconciler
from keytrail_operator.reconcile.policies import policies
from keytrail_operator.reconcile.rules import rules
from keytrail_operator.settings import OperatorSettings
from keytrail_operator.stores import Stores
from keytrail_operator.worker import Worker

log = logging.getLogger(__name__)

_LONGEST_RUN_SECONDS: Final = 300.0
"""Of the worker: hundreds of writes after the API server was away, each of which may take seconds."""
_LONGEST_BEAT_SECONDS: Final = 60.0
_BEAT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 0.75
"""For the request under way, and then for the Lease to be given back: an API server that is there needs a few ms."""


def reconcilers_of(settings: OperatorSettings, beside: Beside) -> tuple[AnyReconciler, ...]:
    """Return all reconcilers, in their order."""
    return (policies(gather_seconds=settings.gather_seconds), *beside.reconcilers(), rules())


def run(settings: OperatorSettings, environ: Mapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT. Raises SettingsError; returns 1 when the Lease was lost."""
    set_up_logs(settings.log_level, settings.log_format, redact=redacted)
    keep_memory_private()
    keep_errors_private()
    # `set_up_logs` sets the level of the package that both share; this one has another name.
    logging.getLogger("keytrail_operator").setLevel(settings.log_level.upper())
    # kopf tells of every try of every watch while the API server is away; the worker's own lists tell of that once.
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
    scanning = logging.getLogger("kopf._core.reactor.observation")
    scanning.addFilter(lambda record: not str(record.msg).startswith("Request attempt"))

    # kopf asks for this user's name even with its peering off, and in an image nobody has any.
    os.environ.setdefault("LOGNAME", "keytrail")

    def open_access() -> Access:
        if settings.kubeconfig is None:
            return from_pod(environ)
        return from_kubeconfig(settings.kubeconfig, settings.context)

    def give_up() -> None:
        lost.set()
        os.kill(os.getpid(), signal.SIGTERM)  # kopf ends its loop on it: the same way out as for everybody else

    api, watchdog, lost = Api(open_access), Watchdog(), threading.Event()
    lease = Lease(
        api,
        settings.namespace,
        settings.identity or socket.gethostname(),
        won=lambda: worker.changed(),  # noqa: PLW0108 - the worker is made below
        lost=give_up,
    )
    leads = lease.held if settings.leader_elect else lambda: True
    beside = Beside(settings, api, lambda: worker.changed())  # noqa: PLW0108 - as above
    worker = Worker(
        api,
        _stores(settings),
        reconcilers_of(settings, beside),
        watchdog.watch("keytrail-worker", _LONGEST_RUN_SECONDS),
        may_act=leads,
        look_seconds=settings.look_seconds,
    )
    pages = Pages(api, worker, watchdog, time.time, leads)
    log.info("working on the cluster at %s", api.url)
    worker.start()
    beside.start()
    if settings.leader_elect:
        lease.start()
    try:
        loop = watchdog.watch("kopf", _LONGEST_BEAT_SECONDS)
        asyncio.run(_observe(settings.http_address, worker.stores, lambda: connection_of(open_access()), pages, loop))
    finally:
        worker.close(_CLOSE_SECONDS)
        beside.close()
        lease.close(_CLOSE_SECONDS)
        api.close()
    return 1 if lost.is_set() else 0


def _stores(settings: OperatorSettings) -> Callable[[Callable[[], None]], Stores]:
    rules, problems = load_rules(builtin_folder() / "rules", sensors=sensors())
    if problems:
        raise SettingsError(f"this installation of Keytrail is damaged: {problems[0]}")
    return lambda changed: Stores(
        changed,
        shipped_rules=rules,
        sensors=sensors(),
        owner_name=settings.release_owner,
        given_ranges=settings.cluster_cidrs,
    )


async def _observe(
    address: str, stores: Stores, login: Callable[[], kopf.ConnectionInfo], pages: Pages, pulse: Pulse
) -> None:
    """Run kopf's loop until a signal ends it."""
    told_to_end, ready = asyncio.Event(), asyncio.Event()
    _end_by(told_to_end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # which `keytrail_operator.cli` held back so far
    beating = asyncio.create_task(_beat(pulse))
    try:
        async with served(address, pages):
            operator = asyncio.create_task(
                kopf.operator(
                    registry=registry_of(stores, login),
                    settings=operator_settings(),
                    clusterwide=True,
                    standalone=True,
                    ready_flag=ready,
                )
            )
            ending = asyncio.create_task(_end(operator, told_to_end, ready))
            with suppress(asyncio.CancelledError):
                await operator
            ending.cancel()
    finally:
        beating.cancel()


def _end_by(told_to_end: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)


async def _end(operator: asyncio.Task[None], told_to_end: asyncio.Event, ready: asyncio.Event) -> None:
    """End kopf by cancelling it: its own way leaves 5 s to requests, which are repeated without an API server."""
    await ready.wait()
    _end_by(told_to_end)  # again: kopf has put handlers of its own in place
    await told_to_end.wait()
    operator.cancel()


async def _beat(pulse: Pulse) -> None:
    """Show that the loop gets on: a handler that blocks it would stop every watch."""
    pulse.started()
    while True:
        pulse.busy()
        await asyncio.sleep(_BEAT_SECONDS)
