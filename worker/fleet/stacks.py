"""Where everything stands: the stacks of all tasks and threads, for the log."""

import asyncio
import sys
import threading

import structlog

from worker.engine.stacks import stands_in, waits_in

__all__ = ["log_stacks"]

MAX_TASKS = 100
MAX_FRAMES = 6

log = structlog.get_logger("stacks")


def log_stacks(why: str) -> None:
    """Log where every task of the running loop and every thread stands; no payload, no local variables."""
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    log.warning("stacks", why=why, tasks=len(tasks), threads=threading.active_count())
    for task in tasks[:MAX_TASKS]:
        log.warning("task", name=task.get_name(), waits_in=waits_in(task))
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - documented, for exactly this
        log.warning("thread", name=names.get(ident, str(ident)), stands_in=stands_in(frame, MAX_FRAMES))
