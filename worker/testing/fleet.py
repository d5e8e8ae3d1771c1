"""`Fleet`: the real engine at a `MemorySource`, for tests of handlers and of the engine itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from worker.engine.clock import Clock, Ticker
from worker.engine.consumer import Consumer
from worker.engine.context import QueueContext
from worker.engine.journal import Suspects
from worker.engine.vitals import Vitals
from worker.fleet.fit import refuse_misfits
from worker.idempotency import MemoryStore, Store
from worker.limits import Limiter
from worker.router import Router
from worker.router.threads import RUN_IN_PLACE
from worker.settings import QueueSettings
from worker.telemetry.metrics import Metrics
from worker.testing import virtual_time
from worker.testing.memory import MemorySource
from worker.testing.memory_objects import MemoryObjects

__all__ = ["Fleet"]

LOOK_SECONDS = 1.0


class LoopClock:
    """The event loop's clock, which virtual time moves, and the source's Unix time."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source

    def now(self) -> float:
        """Seconds of the running loop."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Unix time that advances with the loop."""
        return self._source.store.clock.unix_time()


class Fleet:
    """One queue's consumer at a source in memory; keyword arguments are the queue's settings.

    ```python
    source = MemorySource("orders", visibility_timeout_seconds=30)
    source.send('{"order_id": "1"}', attributes={"event_type": "order.created"})
    await Fleet(source, concurrency=1).run(router)  # returns when the queue is empty
    assert source.dead_letters == []
    ```
    """

    def __init__(self, source: MemorySource, **settings: Any) -> None:
        self.source = source
        defaults: dict[str, Any] = {
            "visibility_timeout_seconds": source.visibility_timeout_seconds,
            "retention_seconds": source.store.retention_seconds,
        }
        self.settings = QueueSettings.model_validate(
            {"name": source.queue, "handlers": "tests:router", **defaults, **settings}
        )
        self.fatal: list[str] = []
        """Why the process would have ended, if it would have."""
        self.consumer: Consumer | None = None
        """The consumer that runs, or ran last."""
        self.clock: Clock = LoopClock(source)
        """Where leases get the time from; replace it before running, to let the machine be suspended."""
        self.suspects = Suspects()
        """What was being handled when the process before this one died; set it before running."""
        self.objects = MemoryObjects()
        """Where large payloads lie; share one between fleets and publishers."""
        self.cap: asyncio.Semaphore | None = None
        """How many handlers may run at once in all fleets that share it; set it before running."""
        self.store: Store = MemoryStore()
        """Where handlers with an `idempotency_key` mark their work; fleets that share one are workers of one fleet."""

        self.limits: dict[str, Limiter] = {}
        """The limits by name, shared with other fleets that have them, too; whoever made one runs it."""

    async def run(self, router: Router | Callable[..., Any], *, seconds: float | None = None) -> None:
        """Consume for `seconds`, or until the queue is empty and everything is settled; then drain."""
        async with self.running(router) as consumer:
            if seconds is not None:
                await asyncio.sleep(seconds)
                return
            while not self.source.is_empty or consumer.in_hand:  # noqa: ASYNC110 - a queue in memory tells nobody that it is empty
                await asyncio.sleep(LOOK_SECONDS)

    @asynccontextmanager
    async def running(
        self, router: Router | Callable[..., Any], *, drain_seconds: float = 3600
    ) -> AsyncIterator[Consumer]:
        """Consume while inside; on leaving, drain for at most `drain_seconds`. A function is the handler of all events."""
        if not isinstance(router, Router):
            handler, router = router, Router()
            router.on("*")(handler)
        refuse_misfits(self.settings, router)
        async with router.lifespan_context() as state:
            clock = self.clock
            metrics = Metrics().queue(self.settings.name)
            vitals = Vitals(clock, fatal=self.fatal.append)
            context = QueueContext(self.source, self.settings, metrics, clock, Ticker(clock), vitals)
            context.suspects = self.suspects
            context.objects = self.objects
            context.limits = self.limits
            context.store = self.store
            self.consumer = consumer = Consumer(context, router, state=state, cap=self.cap)
            RUN_IN_PLACE.set(virtual_time.is_running())  # threads do not know virtual time
            task = asyncio.create_task(consumer.run(), name=f"consumer-{self.settings.name}")
            try:
                yield consumer
            finally:
                consumer.quiet(clock.now() + drain_seconds)
                await asyncio.wait({task}, timeout=drain_seconds)
                if not task.done():
                    await consumer.cut_short()
                await task
