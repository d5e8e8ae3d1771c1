"""Virtual time: an event loop whose clock jumps to the next timer, so that hours of waiting pass in a moment.

Under pytest (pytest-asyncio 1.3 or newer), in `conftest.py`:

    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": virtual_time.new_event_loop}

Without pytest: `virtual_time.run(main())`. Signals, sockets and subprocesses do not exist in it.
"""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from worker.errors import LongshoreError, UsageError

__all__ = ["DeadlockError", "is_running", "new_event_loop", "run"]

T = TypeVar("T")

TICKS_PER_SECOND = 1_000_000


class DeadlockError(LongshoreError):
    """Every task waits for something that no task and no timer will ever do."""


class _Clock:
    """Counts microseconds, so that sums of times stay readable; every advance moves it."""

    resolution = 1 / TICKS_PER_SECOND

    def __init__(self) -> None:
        self._ticks = 0

    def time(self) -> float:
        return self._ticks / TICKS_PER_SECOND

    def advance(self, seconds: float) -> None:
        # rounded up but for float dust: a clock that stops short of a timer makes its owner wait for ever
        self._ticks += max(1, math.ceil(seconds * TICKS_PER_SECOND - 0.001))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop in virtual time that starts at 0 s and raises `DeadlockError` when nothing can ever happen again."""
    try:
        import async_solipsism
    except ImportError:
        raise UsageError(
            "virtual time needs the package async-solipsism, which is not installed: pip install async-solipsism"
        ) from None
    loop: asyncio.AbstractEventLoop = async_solipsism.EventLoop()
    selector, clock = loop._selector, _Clock()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    selector.clock = clock
    select = selector.select

    def select_or_raise(timeout: float | None = None) -> Any:
        try:
            return select(timeout)
        except async_solipsism.SleepForeverError:
            if timeout is None:
                raise DeadlockError(_deadlock(loop)) from None
            clock.advance(timeout)  # a day is no deadlock; asyncio sleeps no longer than that at once
            return []

    selector.select = select_or_raise
    loop.time = clock.time  # type: ignore[method-assign]
    return loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine to its end in virtual time and return its result; no other event loop may be running."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def is_running() -> bool:
    """Whether the running event loop, if there is one, is in virtual time."""
    try:
        return isinstance(getattr(asyncio.get_running_loop().time, "__self__", None), _Clock)
    except RuntimeError:
        return False


def _deadlock(loop: asyncio.AbstractEventLoop) -> str:
    waiting = ", ".join(sorted(f"{task.get_name()} at {_place(task)}" for task in asyncio.all_tasks(loop)))
    return f"every task waits and no timer is left at {loop.time():g} s: {waiting or 'there is no task'}"


def _place(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    return f"{frames[0].f_code.co_qualname}:{frames[0].f_lineno}" if frames else "an unknown place"
