"""One outer deadline for a call: past it the call is cancelled and awaited, and a result it had after all is used."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["DeadlineExceededError", "within"]

T = TypeVar("T")

_LAST_WORDS_SECONDS = 1.0
"""How long a cancelled call may take to end before it is left behind."""

_left_behind: set[asyncio.Task[Any]] = set()


class DeadlineExceededError(Exception):
    """The call did not end in time; whether AWS acted on it is unknown."""


async def within(call: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what `call` returns; raise what it raises, or `DeadlineExceededError` after `seconds`.

    `asyncio.wait_for` would drop a result that arrives together with the timeout: received messages, for one.
    When the caller is cancelled, the call is cancelled and awaited too.
    """
    task = asyncio.create_task(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task)
        raise
    if not task.done():
        await _end(task)
    if not task.done() or task.cancelled():
        raise DeadlineExceededError
    return task.result()


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel and await, with a bound: cleaning up may hang as the call did."""
    _left_behind.add(task)
    task.add_done_callback(_forget)
    task.cancel()
    await asyncio.wait({task}, timeout=_LAST_WORDS_SECONDS)


def _forget(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # taken note of, so that asyncio does not report it as never retrieved
