"""What one queue may have in hand, and what may run at once: its settings and its handlers' batches come to that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType

from worker.engine.context import QueueContext
from worker.engine.pace import Pace, SteadyPace
from worker.engine.slots import Slots
from worker.engine.throttle import Throttle, Waiting
from worker.limits import Permit
from worker.router import Route, Router
from worker.settings import QueueSettings
from worker.source import MAX_BATCH

__all__ = ["Room", "most_in_hand", "places"]


def places(settings: QueueSettings, router: Router) -> int:
    """Return how many messages may be handled at once: the places that receives reserve.

    On a FIFO queue each place is a lane, for as many messages of one group as one receive brings.
    """
    return settings.max_concurrency * router.largest_batch


def most_in_hand(settings: QueueSettings, router: Router) -> int:
    """Return how many messages may at most be received and not settled (R1)."""
    return places(settings, router) * (MAX_BATCH if settings.is_fifo else 1)


class Room:
    """The places of messages and the slots of handler calls.

    Where a call takes one message they are the same; where it takes a batch, waiting members hold a place and no slot.
    """

    def __init__(self, context: QueueContext, router: Router, cap: asyncio.Semaphore | None = None) -> None:
        settings = context.settings
        self.slots = Slots(places(settings, router))
        """The places: what a receive reserves."""
        self._batch = router.largest_batch
        self._calls = self.slots if self._batch == 1 else Slots(settings.max_concurrency)
        self.throttle = Throttle(context, router, self.slots)
        """The limits that the messages and the handlers keep to."""
        self._whole_process: AbstractAsyncContextManager[object] = cap or nullcontext()
        self._metrics = context.metrics
        self._metrics.slots(settings.max_concurrency)
        self.pace = (
            SteadyPace()
            if isinstance(settings.concurrency, int)
            else Pace(settings.concurrency, context.clock, lambda: self._calls.is_used_up, self._adapt)
        )

    @property
    def is_full(self) -> bool:
        """Whether messages hold all places, so that nothing more comes before one of them is settled."""
        return self.slots.is_used_up

    def turn(self, route: Route, waiting: Waiting) -> AbstractAsyncContextManager[object]:
        """Return what a handler call waits for and holds while it runs: its limits, the process's cap, and its slot where that is not its place.

        `waiting` tells the messages that wait for it.
        """
        if not self.throttle.limits(route):
            return self._slot_and_cap()
        return _LimitedTurn(self.throttle, route, waiting, self._slot_and_cap())

    def _slot_and_cap(self) -> AbstractAsyncContextManager[object]:
        return self._whole_process if self._calls is self.slots else self._slot()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        with await self._calls.reserve(1) as room:
            slot = room.take()
        try:
            async with self._whole_process:
                yield
        finally:
            slot.release()

    def _adapt(self, limit: int) -> None:
        self.slots.bound("pace", limit * self._batch)
        self._calls.bound("pace", limit)
        self._metrics.slots(limit)


class _LimitedTurn:
    """The turn of a call that keeps to limits: first theirs, then what it needs besides."""

    __slots__ = ("_besides", "_permit", "_route", "_throttle", "_waiting")

    def __init__(
        self, throttle: Throttle, route: Route, waiting: Waiting, besides: AbstractAsyncContextManager[object]
    ) -> None:
        self._throttle = throttle
        self._route = route
        self._waiting = waiting
        self._besides = besides
        self._permit: Permit | None = None

    async def __aenter__(self) -> None:
        self._permit = self._throttle.at_once(self._route) or await self._throttle.turn(self._route, self._waiting)
        try:
            await self._besides.__aenter__()
        except BaseException:
            self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._besides.__aexit__(kind, error, trace)
        finally:
            self._end()

    def _end(self) -> None:
        if self._permit is not None:
            self._permit.release()
