"""Where a task waits and where a thread stands, for whoever must find out at 3 AM."""

import asyncio
import traceback
from types import FrameType
from typing import Any

__all__ = ["stands_in", "waits_in"]

MAX_PLACES = 8


def waits_in(task: asyncio.Task[Any]) -> list[str]:
    """Return the places where the task waits, `file:line function`, the innermost last."""
    places: list[str] = []
    awaited: Any = task.get_coro()  # Task.get_stack knows the outermost frame only
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        places.append(_place(frame, frame.f_lineno))
        awaited = awaited.cr_await
    return places[-MAX_PLACES:]


def stands_in(frame: FrameType, places: int) -> list[str]:
    """Return as many places where the thread of the frame stands, the innermost first."""
    return [_place(*each) for each in list(traceback.walk_stack(frame))[:places]]


def _place(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}"
