"""Bounded room: nothing is received that has no slot to run in."""

import asyncio
from itertools import islice, takewhile
from typing import Self

from worker.limits import Permit

__all__ = ["Reservation", "Slot", "Slots"]

LINGER_SECONDS = 0.05
"""How long a receive that has less than half the room it could use waits for more: ten messages in one call cost less than in ten."""
SOON_SECONDS = 0.5
"""A slot that is held for longer than this is not waited for: a slow handler costs its own slot and nothing else."""


class Slots:
    """The room of one queue.

    1. `reserve` waits for room before a receive; what the receive does not use goes back.
    2. `Reservation.take` turns one reserved place into a `Slot` for one message, or for one lane of a FIFO queue.
    3. `Slot.release` gives it back, exactly once however often it is called.
    4. `bound` keeps the room below a bound as long as somebody asks for that; 0 is a pause.
    5. `close` ends all waiting: from then on every reservation is empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        """Places that there are, within all bounds."""
        self.full_size = size
        """Places that there are without bounds."""
        self._bounds: dict[str, int] = {}
        self._free = size
        self._held: dict[Slot, float] = {}
        """When each slot was taken, the oldest first."""
        self._waiters: dict[asyncio.Future[None], int] = {}
        """How many free places each waiter waits for."""
        self._is_closed = False

    @property
    def free(self) -> int:
        """Slots that are neither taken nor reserved."""
        return max(0, self._free)

    @property
    def taken(self) -> int:
        """Slots that hold a message."""
        return len(self._held)

    @property
    def is_used_up(self) -> bool:
        """Whether messages hold all room, so that nothing more can come before one of them is settled."""
        return len(self._held) >= self.size

    @property
    def is_closed(self) -> bool:
        """Whether no more room is given."""
        return self._is_closed

    async def reserve(self, limit: int) -> "Reservation":
        """Wait until there is room and reserve up to `limit` places; the reservation is empty once closed."""
        while not self._is_closed:
            if self._free < 1:
                await self._until_free(1, timeout_seconds=None)
                continue
            if self._free * 2 < min(limit, self.size) and (within_reach := self._within_reach(limit)) > self._free:
                await self._until_free(within_reach, timeout_seconds=LINGER_SECONDS)
            if self._has_room(1):
                size = min(limit, self._free)
                self._free -= size
                return Reservation(self, size)
        return Reservation(self, 0)

    def bound(self, by: str, size: int | None) -> None:
        """Have room for no more than `size` while `by` asks for it, `None` lifts that; what is reserved or taken is not touched."""
        if size is None:
            self._bounds.pop(by, None)
        else:
            self._bounds[by] = size
        size = min([self.full_size, *self._bounds.values()])
        self._free += size - self.size
        self.size = size
        self._wake()

    def close(self) -> None:
        """Give no more room and wake everyone who waits for it."""
        self._is_closed = True
        self._wake()

    def _has_room(self, count: int) -> bool:
        return self._free >= count and not self._is_closed

    def _within_reach(self, limit: int) -> int:
        """Return how many places up to `limit` are free or may be soon: those whose messages have not been here for long."""
        since = _now() - SOON_SECONDS
        held_lately = takewhile(since.__lt__, reversed(self._held.values()))
        return self._free + sum(1 for _ in islice(held_lately, limit - self._free))

    async def _until_free(self, count: int, timeout_seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[waiter] = count
        timer = None if timeout_seconds is None else loop.call_later(timeout_seconds, _settle, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            del self._waiters[waiter]

    def _hold(self, slot: "Slot") -> None:
        self._held[slot] = _now()

    def _let_go(self, slot: "Slot") -> None:
        del self._held[slot]
        self._give_back(1)

    def _give_back(self, count: int) -> None:
        self._free += count
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        for waiter, count in self._waiters.items():
            if self._is_closed or self._has_room(count):
                _settle(waiter)


class Reservation:
    """Places reserved for one receive; leaving the context gives back what was not taken."""

    __slots__ = ("_permits", "_slots", "size")

    def __init__(self, slots: Slots, size: int) -> None:
        self._slots = slots
        self._permits: list[Permit] = []
        self.size = size
        """Places that are still reserved."""

    def __bool__(self) -> bool:
        return self.size > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        permits, self._permits = self._permits, []
        for permit in permits:
            permit.release()
        self._shrink(0)

    def permit(self, permits: list[Permit]) -> None:
        """Keep only as many places as there are permits, one for each."""
        self._permits = permits
        self._shrink(len(permits))

    def take(self) -> "Slot":
        """Turn one reserved place into the slot of one message; what came unasked for takes its place off later room."""
        if self.size:
            self.size -= 1
        else:
            self._slots._free -= 1  # noqa: SLF001  # one concept in three classes
        return Slot(self._slots, self._permits.pop() if self._permits else None)

    def _shrink(self, size: int) -> None:
        unused, self.size = self.size - size, size
        if unused:
            self._slots._give_back(unused)  # noqa: SLF001  # one concept in three classes


class Slot:
    """The place of one message, and its permit where the queue has a limit."""

    __slots__ = ("_slots", "permit")

    def __init__(self, slots: Slots, permit: Permit | None = None) -> None:
        self._slots: Slots | None = slots
        self.permit = permit
        slots._hold(self)  # noqa: SLF001  # one concept in three classes

    def release(self) -> None:
        """Give the place back; further calls do nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            if self.permit is not None:
                self.permit.release()
            slots._let_go(self)  # noqa: SLF001  # one concept in three classes


def _now() -> float:
    return asyncio.get_running_loop().time()


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
