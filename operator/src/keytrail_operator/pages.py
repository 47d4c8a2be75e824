"""What the operator says of itself: /healthz, /readyz and /metrics.

In flow figures of the worker, the stores and the door to the API server; out flow pages. They are served by kopf's own
loop: when that hangs, /healthz does not answer, which is the same as saying no. Liveness fails only for what a restart
mends: a stuck watch, a thread that ended or is at one thing for too long.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from keytrail import __version__
from keytrail.kube.api import Api
from keytrail.observe import exposition
from keytrail.observe.address import parse_address
from keytrail.observe.usage import usage
from keytrail.observe.watchdog import Watchdog
from keytrail_operator.worker import Worker

_SHARE: Final = "keytrail.operator."
Labels = Mapping[str, str]
Read = Callable[[], Iterable[tuple[float, Labels]]]


class Pages:
    """What is asked over HTTP."""

    def __init__(
        self, api: Api, worker: Worker, watchdog: Watchdog, now: Callable[[], float], leads: Callable[[], bool]
    ) -> None:
        self._api = api
        self._worker = worker
        self._watchdog = watchdog
        self._now = now
        self._leads = leads
        self._reader = InMemoryMetricReader()
        provider = MeterProvider(
            (self._reader,),
            resource=Resource({"service.name": "keytrail-operator", "service.version": __version__}),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = provider.get_meter("keytrail.operator", __version__)
        for name, unit, description, read in self._counters():
            meter.create_observable_counter(_SHARE + name, [_callback(read)], unit, description)
        for name, unit, description, read in self._gauges():
            meter.create_observable_gauge(_SHARE + name, [_callback(read)], unit, description)

    def sick(self) -> list[str]:
        """Why the process should be restarted; empty when it should not."""
        threads = [
            f"thread {one.name} has ended" if not one.alive else f"thread {one.name} is stuck"
            for one in self._watchdog.parts()
            if not one.alive or one.busy_seconds > one.longest_seconds
        ]
        stuck = self._worker.stores.stuck(self._now()).items()
        return threads + [f"the watch of {name} does not tell of {count} objects" for name, count in stuck]

    def not_ready(self) -> list[str]:
        """Why it does not do its work; empty when it does. A replica that stands by does what it should."""
        troubles = [f"{name}: {error}" for name, error in sorted(self._worker.stores.trouble.items())]
        waits = ["not everything is known yet"] if self._leads() and not self._worker.figures.synced else []
        return [*self.sick(), *waits, *troubles]

    def metrics(self, accept: str) -> tuple[str, str]:
        """Content type and page."""
        form = exposition.content_type(accept)
        return form, exposition.render(self._reader.get_metrics_data(), form)

    def _counters(self) -> Iterator[tuple[str, str, str, Read]]:
        figures, stores = self._worker.figures, self._worker.stores
        yield "runs", "{run}", "Times that everything was reconciled.", lambda: [(figures.runs, {})]
        yield (
            "run.failures",
            "{run}",
            "Runs that ended in an error of the operator's own.",
            lambda: [(figures.failures, {})],
        )
        yield "run.time", "s", "Time spent reconciling, requests among it.", lambda: [(figures.seconds, {})]
        yield (
            "actions",
            "{action}",
            "Writes to the API server, by what and how they went.",
            lambda: [(n, {"action": a, "outcome": o}) for (a, o), n in sorted(self._worker.actor.counts().items())],
        )
        yield (
            "requests",
            "{request}",
            "Requests to the API server of the operator's own; watches are kopf's.",
            lambda: [(one.requests, {"verb": v, "resource": r}) for (v, r), one in self._api.usage().items()],
        )
        yield (
            "missed",
            "{change}",
            "Changes that a list showed and the watch had not told.",
            lambda: [(shelf.missed, {"kind": name}) for name, shelf in stores.shelves.items()],
        )
        yield "cpu.time", "s", "CPU time.", _cpu

    def _gauges(self) -> Iterator[tuple[str, str, str, Read]]:
        stores = self._worker.stores
        yield (
            "objects",
            "{object}",
            "Objects that are known.",
            lambda: [(len(shelf), {"kind": name}) for name, shelf in stores.shelves.items()],
        )
        yield "leader", "1", "1 while this replica acts.", lambda: [(float(self._leads()), {})]
        yield "memory", "By", "Resident memory.", lambda: [(usage().memory_bytes, {})]


def _cpu() -> list[tuple[float, Labels]]:
    found = usage()
    return [(found.cpu_user_seconds, {"cpu.mode": "user"}), (found.cpu_system_seconds, {"cpu.mode": "system"})]


def _callback(read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, labels) for value, labels in read()]


@asynccontextmanager
async def served(address: str, pages: Pages) -> AsyncIterator[None]:
    """Serve the pages at `host:port` or `:port`; not at all for `off`."""
    where = parse_address(address)
    if where is None:
        yield
        return

    def verdict(faults: list[str]) -> web.Response:
        return web.Response(status=503 if faults else 200, text="".join(f"{one}\n" for one in faults) or "ok\n")

    async def metrics(request: web.Request) -> web.Response:
        form, text = pages.metrics(request.headers.get("accept", ""))
        return web.Response(body=text.encode(), headers={"Content-Type": form})

    async def healthz(_: web.Request) -> web.Response:
        return verdict(pages.sick())

    async def readyz(_: web.Request) -> web.Response:
        return verdict(pages.not_ready())

    site = web.Application(client_max_size=1024)
    site.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(site, access_log=None, keepalive_timeout=15.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, where[0] or None, where[1]).start()
        yield
    finally:
        await runner.cleanup()
