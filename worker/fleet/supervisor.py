"""The supervisor of one process: starts a consumer per queue, drains them together, says how it ended."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import structlog

from worker.engine.clock import Clock, SystemClock, Ticker
from worker.engine.consumer import Consumer
from worker.engine.context import QueueContext
from worker.engine.room import most_in_hand, places
from worker.engine.vitals import Vitals
from worker.fleet.fit import limits_of, unfit, unused_limits
from worker.fleet.health import Health
from worker.fleet.lifespans import lifespan
from worker.fleet.marks import kept_open
from worker.fleet.memory_limit import memory_warning
from worker.fleet.relays import OpenTopic, Relays, open_relays
from worker.fleet.state import State
from worker.idempotency import Store
from worker.limits import Limiter, open_limits
from worker.objects import Objects
from worker.router import Router
from worker.settings import FleetSettings, QueueSettings
from worker.source import Source
from worker.telemetry.exceptions import said
from worker.telemetry.metrics import Metrics, QueueMetrics

__all__ = ["Supervisor"]

CUT_SECONDS = 3.0
"""What the end of a drain may take: cancel, give back, flush. Handlers run until then."""

PUT_AWAY_SECONDS = 1.0
"""What is left of `drain_seconds` when the last call of the outbox has to be noted."""

OpenSource = Callable[[QueueSettings, QueueMetrics], Source]

log = structlog.get_logger("supervisor")


class Supervisor:
    """Runs the queues of one process.

    1. `run` consumes until told to drain, and returns the exit status: 0, or 1 when a part of it could not go on.
    2. `drain` is SIGTERM: nothing new is received, handlers go on, leases are kept, at `drain_seconds - 3` they are cut short.
    3. A second `drain` cuts short at once.
    4. Relays of the outbox end after the handlers, whose last events they send while `drain_seconds` allow it.
    """

    def __init__(
        self,
        settings: FleetSettings,
        routers: Mapping[str, Router],
        metrics: Metrics,
        *,
        clock: Clock | None = None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.consumers: dict[str, Consumer] = {}
        self.health = Health(self, self.consumers, metrics)
        self.failure: str | None = None
        """Why the process cannot go on, in one sentence."""
        self.warnings = _warnings(settings, routers)
        """What somebody should look at before it hurts, one sentence each."""
        self.store: Store | None = None
        """Where work with an idempotency key is marked; set before running."""
        self.relays = Relays()
        """What sends the outbox."""
        self._routers = routers
        self.clock = clock or SystemClock()
        self._on_drain = on_drain
        self.ticker = Ticker(self.clock, metrics.event_loop_lag)
        self._draining = asyncio.Event()
        self._cutting: asyncio.Task[None] | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self._ends_at = 0.0

    @property
    def is_draining(self) -> bool:
        """Whether the process is on its way out."""
        return self._draining.is_set()

    @property
    def left_behind(self) -> int:
        """Messages whose handlers still run although the drain has ended."""
        return sum(consumer.in_hand for consumer in self.consumers.values())

    async def run(
        self, open_source: OpenSource, objects: Objects | None = None, open_topic: OpenTopic | None = None
    ) -> int:
        """Consume until drained; return the exit status.

        `objects` is for queues that name buckets of large payloads, `open_topic` for an outbox that is to be sent.
        """
        for warning in self.warnings:
            log.warning("the fleet file may hurt", warning=warning)
        async with AsyncExitStack() as stack:
            if self.store is not None:
                await stack.enter_async_context(kept_open(self.store))
            states: dict[Router, object] = {}
            for name, router in self._routers.items():
                if router not in states:
                    opened = lifespan(router, self.settings.queues[name].handlers)
                    states[router] = await stack.enter_async_context(opened)
            state = State(self.settings)
            if open_topic is not None:  # by now, lifespans may have made the tables
                self.relays = await stack.enter_async_context(open_relays(self.settings, open_topic, self.metrics))
            cap = asyncio.Semaphore(self.settings.max_running_handlers) if self.settings.max_running_handlers else None
            limits = await stack.enter_async_context(self._limits())
            for name, router in self._routers.items():
                context = self._context(self.settings.queues[name], router, open_source, state)
                context.objects = objects
                context.limits = limits
                stack.push_async_callback(context.source.close)
                stack.callback(context.journal.close)
                self.consumers[name] = Consumer(context, router, state=states[router], cap=cap)
            if cap is not None:
                self._wait_for_each_other()
            if not self.is_draining:  # else the signal came while resources were being opened
                await self._consume()
                await self.relays.drain(self._ends_at)
        self._say_goodbye()
        return 0 if self.failure is None else 1

    def drain(self) -> None:
        """Stop receiving and end what is in hand; a second call cuts short."""
        if self.is_draining:
            self._cut_short()
            self.relays.hasten()
            return
        self._draining.set()
        self.metrics.draining()
        loop = asyncio.get_running_loop()
        self._ends_at = loop.time() + self.settings.drain_seconds - PUT_AWAY_SECONDS
        until_cut = max(0.0, self.settings.drain_seconds - CUT_SECONDS)
        waits = [self.settings.queues[name].wait_time_seconds for name in self.consumers]
        log.info("draining", in_hand=self.left_behind, drain_seconds=self.settings.drain_seconds, last_poll_at_most_seconds=max(waits, default=0), hint="a second signal cuts it short")  # fmt: skip
        for consumer in self.consumers.values():
            consumer.quiet(self.clock.now() + until_cut)
        self._drain_timer = loop.call_later(until_cut, self._cut_short)
        self._on_drain()

    def fail(self, sentence: str) -> None:
        """Drain because a part of the process cannot go on; the exit status will be 1."""
        if self.failure is None and not self.is_draining:
            self.failure = sentence
            log.error("cannot go on", cause=sentence)
            self.drain()

    def _wait_for_each_other(self) -> None:
        """Let no queue count as stuck whose slots wait for the longest handler of another one."""
        vitals = [consumer.context.vitals for consumer in self.consumers.values()]
        longest = max((each.full_bound_seconds for each in vitals), default=0.0)
        for each in vitals:
            each.full_bound_seconds = longest

    async def _consume(self) -> None:
        ticker = asyncio.create_task(self.ticker.run(), name="ticker")
        tasks = {
            asyncio.create_task(consumer.run(), name=f"consumer-{name}"): name
            for name, consumer in self.consumers.items()
        }
        try:
            for task in asyncio.as_completed(tasks):
                try:
                    await task
                except Exception as error:
                    log.exception("a consumer crashed")
                    self.fail(f"a consumer crashed with {type(error).__name__}: {said(error)}")
        finally:
            ticker.cancel()
            if self._drain_timer is not None:
                self._drain_timer.cancel()
        if self._cutting is not None:
            await self._cutting

    def _context(self, settings: QueueSettings, router: Router, open_source: OpenSource, state: State) -> QueueContext:
        metrics = self.metrics.queue(settings.name)
        journal, suspects = state.journal(settings.name, places(settings, router))
        return QueueContext(
            source=open_source(settings, metrics),
            settings=settings,
            metrics=metrics,
            clock=self.clock,
            ticker=self.ticker,
            vitals=Vitals(self.clock, fatal=self.fail),
            journal=journal,
            suspects=suspects,
            store=self.store,
        )

    def _limits(self) -> AbstractAsyncContextManager[dict[str, Limiter]]:
        used = limits_of(self.settings, self._routers)
        return open_limits(self.settings.limits, used, service=self.settings.service, metrics=self.metrics.limit, now=self.clock.now)  # fmt: skip

    def _cut_short(self) -> None:
        if self._cutting is None:
            self._cutting = asyncio.create_task(self._cut_all(), name="cut-short")

    async def _cut_all(self) -> None:
        await asyncio.gather(*(consumer.cut_short() for consumer in self.consumers.values()), return_exceptions=True)

    def _say_goodbye(self) -> None:
        queues = {
            name: {"received": snapshot["received"], "settled": snapshot["settled"]}
            for name, snapshot in self.metrics.snapshot().items()
        }
        log.info("drained", queues=queues, left_behind=self.left_behind)
        if self.failure is not None:
            log.error("ended because it could not go on", cause=self.failure)


def _warnings(settings: FleetSettings, routers: Mapping[str, Router]) -> list[str]:
    in_hand = {name: most_in_hand(settings.queues[name], router) for name, router in routers.items()}
    large = {name: queue.large_payloads for name, queue in settings.queues.items()}
    payload_bytes = sum(count * large[name].max_bytes for name, count in in_hand.items() if large[name].buckets)
    memory = memory_warning(sum(in_hand.values()), payload_bytes=payload_bytes)
    return [
        *settings.warnings,
        *unfit(settings, routers),
        *unused_limits(settings, routers),
        *([memory] if memory else []),
    ]
