"""An executor on a bench: one handler, no queue, and deliveries made by hand."""

import asyncio
from collections.abc import Callable
from typing import Any

from support.loop_time import LoopTime, now

from worker.engine.clock import Ticker
from worker.engine.context import QueueContext
from worker.engine.delivery import Delivery
from worker.engine.executor import Executor
from worker.engine.lease import HeldLease, LeaseTerms
from worker.engine.room import Room
from worker.engine.vitals import Vitals
from worker.errors import EntryError
from worker.message import Message, Received
from worker.outcome import Fate
from worker.router import Router
from worker.settings import QueueSettings
from worker.telemetry.metrics import Metrics
from worker.testing import MemorySource

__all__ = ["Bench", "HandlerFunction", "deaf", "sleeping"]

HandlerFunction = Callable[[Message[str]], Any]


class Bench:
    """An executor for one handler; `cap` bounds the process, keyword arguments are the queue's settings."""

    def __init__(self, handler: HandlerFunction, *, cap: int | None = None, **queue: Any) -> None:
        router = Router()
        router.on("*")(handler)
        clock = LoopTime()
        self.fatal: list[str] = []
        self.vitals = Vitals(clock, fatal=self.fatal.append)
        self.metrics = Metrics().queue("orders")
        settings = QueueSettings.model_validate({"name": "orders", "handlers": "tests:router", **queue})
        context = QueueContext(MemorySource(), settings, self.metrics, clock, Ticker(clock), self.vitals)
        self.executor = Executor(context, router, Room(context, router, asyncio.Semaphore(cap) if cap else None))
        self._terms = LeaseTerms(30, 3600, clock, _refuse_nothing)

    @property
    def running(self) -> int:
        """Handlers that run."""
        return self.metrics.snapshot()["slots"]["in_use"]

    def delivery(self) -> Delivery:
        """Return a message that has just been received."""
        received = Received(id="1", receipt="receipt", body="order")
        return Delivery(received, HeldLease(self._terms, received, since=now()))

    async def execute(self) -> Fate:
        """Run a message that has just been received."""
        fate = await self.executor.execute(self.delivery())
        assert fate is not None
        return fate


async def sleeping(message: Message[str]) -> None:  # noqa: ARG001 - a handler
    """Take a thousand seconds."""
    await asyncio.sleep(1000)


async def deaf(message: Message[str]) -> None:  # noqa: ARG001 - a handler
    """Take a thousand seconds and ignore all cancellations."""
    ends_at = now() + 1000
    while (left := ends_at - now()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


async def _refuse_nothing(receipt: str, seconds: int) -> EntryError | None:  # noqa: ARG001 - what leases ask for
    return None
