"""The watchdog: a thread that sees the event loop blocked, says by what, and keeps leases alive until it runs again."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import structlog

from worker.engine.clock import TICK_SECONDS, Clock, Ticker
from worker.engine.keeper import Keeper
from worker.engine.stacks import stands_in

__all__ = ["Watchdog"]

LOOK_SECONDS = 0.25
LATE_SECONDS = 0.25
"""A tick that is overdue by this much: leases that are due are extended from here, for a short one may not wait."""
BLOCKED_SECONDS = 1.0
"""A tick that is overdue by this much: no handler may hold the loop for so long, and the log says who does."""
MAX_FRAMES = 12

log = structlog.get_logger("watchdog")


class Watchdog:
    """Watches the event loop that enters it; a context manager around all that consumes.

    1. Four times a second it looks at the ticker, which costs the loop nothing.
    2. While a tick is overdue, it extends the leases that are due by calls that need no loop (L6); each keeper knows for how long.
    3. After a second it logs, once a block, where the loop's thread stands; no payload, no local variables.

    A process that was stopped or suspended as a whole looks the same from here; then the watchdog's own look is late,
    too, and it looks again before it judges.
    """

    def __init__(self, ticker: Ticker, clock: Clock, keepers: Callable[[], Iterable[Keeper]]) -> None:
        self._ticker = ticker
        self._clock = clock
        self._keepers = keepers
        self._ending = threading.Event()
        self._watched: int | None = None
        self._is_reported = False
        self._thread = threading.Thread(target=self._run, name="longshore-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()

    def _run(self) -> None:
        looked_at = self._clock.now()
        while not self._ending.wait(LOOK_SECONDS):
            now = self._clock.now()
            if now - looked_at < 2 * LOOK_SECONDS:  # else the whole process stood still
                self._look(now)
            looked_at = self._clock.now()

    def _look(self, now: float) -> None:
        due_at = self._ticker.next_tick_at
        if due_at is None or now < due_at + LATE_SECONDS:
            self._is_reported = False
            return
        self._keep_leases(now - due_at + TICK_SECONDS)
        if now >= due_at + BLOCKED_SECONDS and not self._is_reported:
            self._is_reported = True
            log.error("the event loop is blocked", seconds=round(now - due_at, 1), stands_in=self._places())

    def _keep_leases(self, blocked_seconds: float) -> None:
        for keeper in list(self._keepers()):
            try:
                keeper.beat_without_loop(blocked_seconds, self._loop)
            except Exception:
                log.exception("a defect: leases are not kept while the event loop is blocked")

    def _places(self) -> list[str]:
        """Return where the loop's thread stands, the innermost last."""
        frame = sys._current_frames().get(self._watched or 0)  # noqa: SLF001 - documented, for exactly this
        return [] if frame is None else stands_in(frame, MAX_FRAMES)[::-1]
