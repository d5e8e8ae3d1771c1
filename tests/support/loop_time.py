"""The running event loop's time: read as the engine's clock, and made to go on while nothing happens."""

import asyncio
from typing import Any

__all__ = ["LoopTime", "current_task", "now", "stand_still"]


class LoopTime:
    """The running loop's clock, which goes on by itself while the machine is suspended."""

    def __init__(self) -> None:
        self.suspended_seconds = 0.0

    def now(self) -> float:
        """Seconds of the loop and of all suspensions."""
        return now() + self.suspended_seconds

    def wall(self) -> float:
        """Unix time in seconds."""
        return 1_700_000_000 + self.now()


def now() -> float:
    """Seconds of the running loop."""
    return asyncio.get_running_loop().time()


def stand_still(seconds: float) -> None:
    """Let virtual time go on while the event loop does nothing, as a handler does that blocks it."""
    asyncio.get_running_loop().time.__self__.advance(seconds)  # type: ignore[attr-defined]


def current_task() -> "asyncio.Task[Any]":
    """Return the task of the caller."""
    task = asyncio.current_task()
    assert task is not None
    return task
