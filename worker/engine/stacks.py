"""Where a task waits, for whoever must find out at 3 AM."""

import asyncio
from typing import Any

__all__ = ["waits_in"]

MAX_PLACES = 8


def waits_in(task: asyncio.Task[Any]) -> list[str]:
    """Return the places where the task waits, `file:line function`, the innermost last."""
    places: list[str] = []
    awaited: Any = task.get_coro()  # Task.get_stack knows the outermost frame only
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
        awaited = awaited.cr_await
    return places[-MAX_PLACES:]
