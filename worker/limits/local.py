"""A limit that one process keeps by itself."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from worker.limits.limiter import Permit
from worker.settings import LimitSettings
from worker.telemetry.metrics import LimitMetrics

__all__ = ["LocalLimiter", "Spacing"]


class Spacing:
    """A rate as evenly spaced moments: the generic cell rate algorithm (GCRA), without bursts."""

    __slots__ = ("_next_at",)

    def __init__(self) -> None:
        self._next_at = -math.inf

    def reserve(self, per_second: float, now: float, most_seconds: float) -> float | None:
        """Take the next moment and return the seconds until then; `None`, and nothing is taken, when that are more than `most_seconds`."""
        at = max(now, self._next_at)
        if at - now > most_seconds:
            return None
        self._next_at = at + 1 / per_second
        return at - now


class _Wish(NamedTuple):
    most: int
    permits: "asyncio.Future[list[Permit]]"


class LocalLimiter:
    """Counts in this process; who waits is served in turn."""

    trouble: str | None = None

    def __init__(self, name: str, settings: LimitSettings, metrics: LimitMetrics | None = None) -> None:
        self.name = name
        self.settings = settings
        self.on_change: list[Callable[[], None]] = []
        self.metrics = metrics or LimitMetrics(name)
        self._free = settings.concurrency or 0
        self._held: dict[Permit, None] = {}
        """In the order in which they were given."""
        self._line: deque[_Wish] = deque()
        self._spacing = Spacing()

    @property
    def is_contended(self) -> bool:
        """Whether somebody waits for a permit."""
        return bool(self._waiting())

    def take(self, most: int) -> "asyncio.Future[list[Permit]]":
        """Ask for up to `most` permits."""
        permits: asyncio.Future[list[Permit]] = asyncio.get_running_loop().create_future()
        if self._free > 0 and not self._line:
            permits.set_result([self._give() for _ in range(min(most, self._free))])
        else:
            self.metrics.waited()
            self._line.append(_Wish(most, permits))
            self._serve()
        return permits

    def at_once(self) -> Permit | None:
        """Return a permit for a call that starts now."""
        settings = self.settings
        if settings.concurrency is not None and self._free < 1:  # what is free has been given to who waits
            return None
        if settings.per_second is not None and self._spacing.reserve(settings.per_second, _now(), 0) is None:
            return None
        if settings.concurrency is None:
            return Permit(_nobody)
        return self._give()

    async def start(self, most_seconds: float) -> bool:
        """Wait for the moment at which one more call may start."""
        if self.settings.per_second is None:
            return True
        seconds = self._spacing.reserve(self.settings.per_second, _now(), most_seconds)
        if seconds:
            self.metrics.waited()
            await asyncio.sleep(seconds)
        return seconds is not None

    def refused(self) -> None:
        """Count a message that was given back because it had waited for too long."""
        self.metrics.refused()

    async def run(self) -> None:
        """Nothing is to be done."""

    def _waiting(self) -> int:
        """Return how many wait, and forget those who do no longer."""
        while self._line and self._line[0].permits.done():
            self._line.popleft()
        return sum(not wish.permits.done() for wish in self._line)

    def _serve(self) -> None:
        """Give what is free to those who wait: the first as many as it asks for, but one to each of the others first."""
        while self._free > 0 and (waiting := self._waiting()):
            wish = self._line.popleft()
            many = min(wish.most, max(1, self._free - waiting + 1))
            wish.permits.set_result([self._give() for _ in range(many)])

    def _give(self) -> Permit:
        permit = Permit(self._returned)
        self._free -= 1
        self._held[permit] = None
        self.metrics.held(len(self._held))
        return permit

    def _returned(self, permit: Permit) -> None:
        del self._held[permit]
        self.metrics.held(len(self._held))
        self._free += 1
        if self._line:
            self._serve()


def _nobody(_: Permit) -> None:
    pass


def _now() -> float:
    return asyncio.get_running_loop().time()
