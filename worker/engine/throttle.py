"""The throttle of one queue: the limits that its messages and its handlers keep to."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Self

from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.slots import Reservation, Slots
from worker.limits import Limiter, Permit, granted, withdraw
from worker.router import Route, Router

__all__ = ["CONTENDED_POLL_SECONDS", "Throttle"]

WAIT_SECONDS = 30.0
"""How long a message may wait in its slot for the limit of its handler."""
CONTENDED_POLL_SECONDS = 1
"""How long a poll may keep a permit, which it may not need, from somebody who waits for one."""
PLACES_PER_RATE_SECONDS = 5.0
"""For how long the messages that are in hand may keep a queue's rate busy; more would only wait with their leases running."""

Waiting = Callable[[], Sequence[Delivery]]
"""The messages that wait for a handler call; a batch may grow meanwhile, and members may leave."""


class Throttle:
    """Keeps one queue within its limits.

    1. The queue's limit is taken before a receive, a permit for each message that is asked for, and kept until its slot is
       given back. So throttling costs no receive, and no lease runs for a message that may not start.
    2. A rate counts when a handler starts: that of the queue's limit is waited for with the message's lease kept.
    3. A handler's own limit is waited for in its slot, for thirty seconds at most; then the message is given back, which is
       no failed attempt. One that SQS would not give again waits on.
    4. While a limit cannot be kept because its store is gone, nothing is received, or, with `fail: open`, a warning says so.
    """

    def __init__(self, context: QueueContext, router: Router, slots: Slots) -> None:
        self._context = context
        self._slots = slots
        name = context.settings.limit
        self._queue = None if name is None else context.limits[name]
        self._handlers = {
            route.name: context.limits[route.limit]
            for route in router.routes
            if route.limit is not None and route.limit != name  # else its message has a permit already
        }
        self._limiters = list({id(each): each for each in (self._queue, *self._handlers.values()) if each}.values())
        self._wish: set[asyncio.Future[list[Permit]]] = set()
        """What receive loops wait for."""
        self._waiting: set[Waiting] = set()
        """Who waits for a handler's own limit."""
        self._has_rate = self._queue is not None and self._queue.settings.per_second is not None
        self._is_closed = False
        self._found = 0
        if self._queue is not None:
            self._bound_places(self._queue)

    def __enter__(self) -> Self:
        """Hear from the limits when one cannot be kept."""
        for limiter in self._limiters:
            limiter.on_change.append(self._look)
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        for limiter in self._limiters:
            limiter.on_change.remove(self._look)

    async def permit(self, room: Reservation) -> None:
        """Leave of the room what may be received: one place when the queue was found empty, none once closed."""
        if self._queue is None or self._queue.settings.concurrency is None:
            return
        permits: list[Permit] = []
        if not self._is_closed:
            wish = self._queue.take(room.size if self._found else 1)
            self._wish.add(wish)
            try:
                permits = await granted(wish)
            finally:
                self._wish.discard(wish)
        room.permit(permits)

    def found(self, messages: int) -> None:
        """Note what a receive has brought."""
        self._found = messages

    def poll_seconds(self, seconds: int) -> int:
        """Return how long a receive may wait for messages: not for long while it keeps a permit from somebody."""
        return min(seconds, CONTENDED_POLL_SECONDS) if self._queue is not None and self._queue.is_contended else seconds

    def close(self) -> None:
        """Let receive loops wait no longer, and give back who waits for a handler's own limit: others have more time."""
        self._is_closed = True
        for wish in self._wish:
            if not wish.done():
                wish.set_result([])
        for waiting in self._waiting:
            _interrupt(self._may_go(waiting()), Cause.DRAIN)

    def limits(self, route: Route) -> bool:
        """Whether the calls of the handler have to wait for anything."""
        return self._has_rate or route.name in self._handlers

    def at_once(self, route: Route) -> Permit | None:
        """Return the permit of a call whose turn it is already; `None` when it has to wait for it, which `turn` does."""
        own = self._handlers.get(route.name)
        if own is None or self._has_rate:
            return None
        return own.at_once()

    async def turn(self, route: Route, waiting: Waiting) -> Permit | None:
        """Wait until one call of the handler may start, and return the permit that it is to release at its end, if it has one."""
        own, vitals = self._handlers.get(route.name), self._context.vitals
        vitals.throttled += 1
        try:
            if self._queue is not None:
                await self._queue.start(math.inf)
            return None if own is None else await self._own_turn(own, waiting)
        finally:
            vitals.throttled -= 1

    async def _own_turn(self, own: Limiter, waiting: Waiting) -> Permit | None:
        """Wait for the handler's own limit; whoever has waited for too long is given back, and waits no more."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + WAIT_SECONDS
        permit: Permit | None = None
        self._waiting.add(waiting)
        try:
            if own.settings.concurrency is not None:
                permit = await self._own_permit(own, waiting)
            while not await own.start(max(0.0, ends_at - loop.time()) if self._may_go(waiting()) else math.inf):
                await self._give_back(own, waiting)
        except BaseException:
            if permit is not None:
                permit.release()
            raise
        finally:
            self._waiting.discard(waiting)
        return permit

    async def _own_permit(self, own: Limiter, waiting: Waiting) -> Permit:
        wish = own.take(1)
        try:
            while not wish.done():
                await asyncio.wait({wish}, timeout=WAIT_SECONDS)
                if not wish.done():
                    await self._give_back(own, waiting)
        except asyncio.CancelledError:
            withdraw(wish)
            raise
        (permit,) = wish.result()
        permit.on_lost = lambda: _interrupt(waiting(), Cause.PERMIT_LOST)
        return permit

    def _may_go(self, waiting: Sequence[Delivery]) -> list[Delivery]:
        """Return those that SQS would give again."""
        return [
            each for each in waiting if each.cause is None and not self._context.rules.is_last_receive(each.received)
        ]

    async def _give_back(self, own: Limiter, waiting: Waiting) -> None:
        """Give back who has waited for too long. The task of a single message is cancelled by that; a batch goes on with others."""
        gone = self._may_go(waiting())
        for _ in gone:
            own.refused()
        _interrupt(gone, Cause.THROTTLED)
        await asyncio.sleep(0)

    def _bound_places(self, limiter: Limiter) -> None:
        """Have no more places than the limit could ever fill."""
        concurrency, per_second = limiter.settings.concurrency, limiter.settings.per_second
        bounds = [] if concurrency is None else [concurrency]
        if per_second is not None:
            bounds.append(math.ceil(per_second * PLACES_PER_RATE_SECONDS))
        self._slots.bound("limit", min(bounds))

    def _look(self) -> None:
        """Look which of the limits cannot be kept."""
        vitals = self._context.vitals
        troubled = [each for each in self._limiters if each.trouble is not None]
        closed = [each.trouble or "" for each in troubled if each.settings.fail == "closed"]
        opened = [each.trouble or "" for each in troubled if each.settings.fail == "open"]
        if closed:
            vitals.trouble("limit", "; ".join(closed))
            self._slots.bound("limit store", 0)
        elif "limit" in vitals.problems:
            vitals.solved("limit")
            vitals.slot_freed_at = self._context.clock.now()
            self._slots.bound("limit store", None)
        if opened:
            vitals.warnings["limit"] = "; ".join(opened)
        else:
            vitals.warnings.pop("limit", None)


def _interrupt(deliveries: Sequence[Delivery], cause: Cause) -> None:
    for delivery in deliveries:
        delivery.interrupt(cause)
