"""Bounded room: nothing is received that has no slot to run in."""

import asyncio
from collections import deque
from typing import Self

__all__ = ["Reservation", "Slot", "Slots"]

LINGER_SECONDS = 0.05
"""How long a receive waits for more slots when they free one by one: ten messages in one call cost less than in ten."""


class Slots:
    """The room of one queue.

    1. `reserve` waits for room before a receive; what the receive does not use goes back.
    2. `Reservation.take` turns one reserved place into a `Slot` for one message.
    3. `Slot.release` gives it back, exactly once however often it is called.
    4. `close` ends all waiting: from then on every reservation is empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        """Slots that hold a message."""
        self._free = size
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._is_closed = False

    @property
    def free(self) -> int:
        """Slots that are neither taken nor reserved."""
        return self._free

    @property
    def is_closed(self) -> bool:
        """Whether no more room is given."""
        return self._is_closed

    async def reserve(self, limit: int) -> "Reservation":
        """Wait until there is room and reserve up to `limit` places; the reservation is empty once closed."""
        while not self._is_closed:
            if not self._free:
                await self._until_free(1, timeout_seconds=None)
                continue
            wanted = min(limit, self._free + self.taken)  # places of other parked receives will not free soon
            if self._free < wanted:
                await self._until_free(wanted, timeout_seconds=LINGER_SECONDS)
            if not self._is_closed and (size := min(limit, self._free)):
                self._free -= size
                return Reservation(self, size)
        return Reservation(self, 0)

    def close(self) -> None:
        """Give no more room and wake everyone who waits for it."""
        self._is_closed = True
        self._wake()

    async def _until_free(self, count: int, timeout_seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append((count, waiter))
        timer = None if timeout_seconds is None else loop.call_later(timeout_seconds, _settle, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters = deque(entry for entry in self._waiters if entry[1] is not waiter)

    def _give_back(self, count: int) -> None:
        self._free += count
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        for count, waiter in self._waiters:
            if self._is_closed or self._free >= count:
                _settle(waiter)


class Reservation:
    """Places reserved for one receive; leaving the context gives back what was not taken."""

    __slots__ = ("_slots", "size")

    def __init__(self, slots: Slots, size: int) -> None:
        self._slots = slots
        self.size = size
        """Places that are still reserved."""

    def __bool__(self) -> bool:
        return self.size > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        unused, self.size = self.size, 0
        if unused:
            self._slots._give_back(unused)  # noqa: SLF001  # one concept in three classes

    def take(self) -> "Slot":
        """Turn one reserved place into the slot of one message."""
        if not self.size:
            raise IndexError("more messages than reserved places")
        self.size -= 1
        self._slots.taken += 1
        return Slot(self._slots)


class Slot:
    """The place of one message."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def release(self) -> None:
        """Give the place back; further calls do nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.taken -= 1
            slots._give_back(1)  # noqa: SLF001  # one concept in three classes


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
