"""One worker process: its AWS clients, its status server, its signals, and the supervisor that runs its queues."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib import metadata

import structlog

from worker.aws.s3 import S3Objects
from worker.aws.session import AwsAccess, AwsClients
from worker.aws.sqs import SqsSource
from worker.engine.receiver import max_loops
from worker.engine.room import places
from worker.engine.watchdog import Watchdog
from worker.fleet.fit import refuse_misfits, refuse_unknown_limits, refuse_without_store
from worker.fleet.marks import marks_store
from worker.fleet.relays import OpenTopic
from worker.fleet.stacks import log_stacks
from worker.fleet.supervisor import Supervisor
from worker.publisher.topic import SnsTopic
from worker.router import Router, load_router
from worker.server import StatusServer
from worker.settings import FleetSettings, QueueSettings
from worker.telemetry.metrics import Metrics, QueueMetrics

__all__ = ["Process", "aws_access", "load_routers", "open_clients", "sqs_source"]

LAST_RESORT_SECONDS = 0.5
MOST_SETTLING = 1000
"""Messages of one queue, ten a call, beyond which settlements may wait for a connection."""
MOST_FETCHING = 50
"""Large payloads that are fetched at once; no connection is opened before there is one."""
RELAY_CONNECTIONS = 8
"""Calls at once of one topic's relay."""

log = structlog.get_logger("process")


def aws_access(settings: FleetSettings) -> AwsAccess:
    """Return where the settings say that AWS is."""
    aws = settings.aws
    return AwsAccess(aws.region, aws.endpoint_url, aws.service_endpoint_urls)


def load_routers(settings: FleetSettings, queues: Sequence[str] = ()) -> dict[str, Router]:
    """Import the handlers of the queues (all when none is named); raise `ConfigError` for what cannot be run."""
    loaded: dict[str, Router] = {}
    routers = {}
    for name in queues or settings.queues:
        reference = settings.queues[name].handlers
        if reference not in loaded:
            loaded[reference] = load_router(reference)
        refuse_misfits(settings.queues[name], loaded[reference])
        refuse_without_store(settings, loaded[reference])
        routers[name] = loaded[reference]
    refuse_unknown_limits(settings, routers)
    return routers


def open_clients(rooms: Iterable[int], access: AwsAccess) -> AwsClients:
    """Return clients for queues with so many places each: a connection for every receive loop, and enough for all that settles meanwhile."""
    rooms = list(rooms)
    receives = sum(max_loops(room) for room in rooms)
    settlements = sum(4 + min(room, MOST_SETTLING) // 5 for room in rooms)
    return AwsClients(access, receive_connections=receives, settle_connections=settlements)


def sqs_source(clients: AwsClients, settings: QueueSettings, metrics: QueueMetrics) -> SqsSource:
    """Return the queue of the settings on SQS; its calls are counted."""
    dead_letter = None if settings.dead_letter == "none" else settings.dead_letter.queue
    return SqsSource(clients, settings.address, dead_letter=dead_letter, observer=metrics.api_call)


class Process:
    """Runs queues of one fleet file until SIGTERM or Ctrl-C.

    A second signal cuts the drain short. The process ends by `drain_seconds` even if a handler blocks its event loop.
    `open_topic` is for what is to be done with the outbox's events besides sending them to SNS.
    """

    def __init__(
        self,
        settings: FleetSettings,
        routers: Mapping[str, Router],
        access: AwsAccess,
        *,
        open_topic: OpenTopic | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.info(service=settings.service, version=metadata.version("longshore"))
        self.supervisor = Supervisor(settings, routers, self.metrics, on_drain=self._arm_last_resort)
        self._routers = routers
        self._access = access
        self._open_topic = open_topic or (lambda address: SnsTopic(address, access, connections=RELAY_CONNECTIONS))
        self._consuming: asyncio.Future[int] | None = None
        self._last_resort: threading.Timer | None = None

    async def run(self, *, started: Callable[[int], None] = lambda _: None) -> int:
        """Serve and consume; return the exit status. `started` is told the status server's port.

        Raises `UsageError` when the port is taken or AWS cannot be spoken to at all (no region, no credentials).
        """
        try:
            async with AsyncExitStack() as stack:
                server = StatusServer(
                    self.settings.server.host,
                    self.settings.server.port,
                    status=self.supervisor.health,
                    metrics=self.metrics,
                )
                await stack.enter_async_context(server)
                rooms = [places(self.settings.queues[name], router) for name, router in self._routers.items()]
                clients = await stack.enter_async_context(open_clients(rooms, self._access))
                objects = S3Objects(clients, connections=min(sum(rooms), MOST_FETCHING))
                stack.push_async_callback(objects.close)
                self.supervisor.store = marks_store(self.settings, self._routers, clients)
                stack.enter_context(_Signals(self._told_to_stop))
                log.info("started", service=self.settings.service, queues=list(self._routers), status=_url(self.settings.server.host, server.port))  # fmt: skip
                started(server.port)
                stack.enter_context(self._watchdog())
                self._consuming = asyncio.ensure_future(
                    self.supervisor.run(
                        lambda queue, verbs: sqs_source(clients, queue, verbs), objects, self._open_topic
                    )
                )
                return await self._consuming
        except asyncio.CancelledError:
            if not self.supervisor.is_draining or _is_cancelled():
                raise
            log.info("ended before it consumed")
            return 0
        finally:
            if self._last_resort is not None:
                self._last_resort.cancel()

    def _watchdog(self) -> Watchdog:
        supervisor = self.supervisor
        return Watchdog(
            supervisor.ticker, supervisor.clock, lambda: (each.keeper for each in list(supervisor.consumers.values()))
        )

    def _told_to_stop(self) -> None:
        """Drain; while lifespans are still being entered there is nothing to drain, and they may take for ever."""
        self.supervisor.drain()
        if self._consuming is not None and not self.supervisor.consumers:
            self._consuming.cancel()

    def _arm_last_resort(self) -> None:
        """A thread needs no event loop: it ends the process although a handler may block the loop."""
        seconds = self.settings.drain_seconds - LAST_RESORT_SECONDS
        self._last_resort = threading.Timer(seconds, _end_process)
        self._last_resort.daemon = True
        self._last_resort.start()


class _Signals:
    """SIGTERM and Ctrl-C drain, SIGUSR1 logs where everything stands; while inside."""

    def __init__(self, drain: Callable[[], None]) -> None:
        self._actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: drain,
            signal.SIGINT: drain,
            signal.SIGUSR1: partial(log_stacks, "SIGUSR1"),
        }

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number, action in self._actions.items():
            loop.add_signal_handler(number, action)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._actions:
            loop.remove_signal_handler(number)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_cancelled() -> bool:
    """Whether the running task itself was cancelled, not only what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _end_process() -> None:
    """Exit without the loop; what was in hand comes back after its lease."""
    sys.stderr.write(
        "longshore: ended at drain_seconds although the event loop was blocked or a lifespan had not ended; "
        "what was in hand comes back after its lease\n"
    )
    sys.stderr.flush()
    os._exit(1)
