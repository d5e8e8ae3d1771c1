"""Time as leases need it: a clock that goes on while the machine sleeps, and a ticker that notices when we stood still."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["TICK_SECONDS", "Clock", "SystemClock", "Ticker"]

TICK_SECONDS = 0.5
"""How often the event loop is looked at."""
LATE_SECONDS = 0.5


class Clock(Protocol):
    """Where the engine gets the time from."""

    def now(self) -> float:
        """Seconds on a clock that never goes back and counts suspension."""

    def wall(self) -> float:
        """Unix time in seconds, for comparison with SQS's timestamps only."""


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        # CLOCK_MONOTONIC stops while Linux is suspended, SQS's visibility timeout does not; macOS has no such clock.
        self._id: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> float:
        """Seconds since boot, suspension included."""
        return time.clock_gettime(self._id)

    def wall(self) -> float:
        """Unix time in seconds."""
        return time.time()


class Ticker:
    """Notices that the process or its event loop stood still: stopped, suspended, swapped out or blocked by a handler.

    `observe` is told of every tick by how many seconds it was late.
    """

    def __init__(self, clock: Clock, observe: Callable[[float], None] = lambda _: None) -> None:
        self._clock = clock
        self._observe = observe
        self._ticked_at: float | None = None
        self._stalled_at = float("-inf")
        self.lag_seconds = 0.0
        """How late the last tick was."""
        self.on_stall: list[Callable[[], None]] = []
        """Called when we stood still: timers do not count a suspension, so whoever waits for a deadline looks at once."""

    @property
    def next_tick_at(self) -> float | None:
        """When the next tick is due; `None` while nothing ticks. May be asked from any thread."""
        ticked_at = self._ticked_at
        return None if ticked_at is None else ticked_at + TICK_SECONDS

    async def run(self) -> None:
        """Tick until cancelled."""
        try:
            while True:
                self._look()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            self._ticked_at = None

    def stood_still_since(self, moment: float) -> bool:
        """Whether anything since `moment` was late by more than half a second, as far as the ticks can tell."""
        if self._ticked_at is not None and self._clock.now() - self._ticked_at > TICK_SECONDS + LATE_SECONDS:
            self._look()  # sockets are read before timers run: the tick that would tell us is still to come
        return self._stalled_at >= moment

    def _look(self) -> None:
        now = self._clock.now()
        if self._ticked_at is not None:
            self.lag_seconds = max(0.0, now - self._ticked_at - TICK_SECONDS)
            self._observe(self.lag_seconds)
            if self.lag_seconds > LATE_SECONDS:
                self._stalled_at = now
                for listener in self.on_stall:
                    listener()
        self._ticked_at = now
