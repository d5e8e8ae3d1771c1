"""A loop that ends unasked is restarted, within a budget."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.vitals import LoopPulse
from worker.telemetry.exceptions import said

__all__ = ["guarded"]

RESTARTS = 5
WINDOW_SECONDS = 300.0
RESTART_CAP_SECONDS = 30.0
OUR_OWN_END = (KeyboardInterrupt, SystemExit, GeneratorExit)

log = structlog.get_logger("supervisor")


async def guarded(name: str, context: QueueContext, loop: Callable[[LoopPulse], Awaitable[None]]) -> None:
    """Run a loop until it returns; restart it when it raises, at most five times in five minutes.

    The loop is given its pulse, named like the current task, to stamp. Past the budget the process is told that it
    cannot go on (`Vitals.fatal`): it drains and exits with 1.
    """
    crashes: deque[float] = deque()
    with context.vitals.pulse(_task().get_name()) as pulse:
        while True:
            try:
                return await loop(pulse)
            except BaseException as error:
                if _is_our_end(error):
                    raise
                crashes.append(context.clock.now())
                while crashes[-1] - crashes[0] > WINDOW_SECONDS:
                    crashes.popleft()
                log.exception("a loop of the consumer crashed", queue=context.queue, loop=name, crashes=len(crashes))
                context.metrics.loop_restarted(name)
                if len(crashes) > RESTARTS:
                    return context.vitals.fatal(
                        f"the {name} loop of queue {context.queue} crashed {len(crashes)} times, "
                        f"last with {type(error).__name__}: {said(error)}"
                    )
            delay = full_jitter(len(crashes), base_seconds=0.5, cap_seconds=RESTART_CAP_SECONDS)
            pulse.expect("waiting to be restarted", delay + RESTART_CAP_SECONDS)
            await asyncio.sleep(delay)


def _is_our_end(error: BaseException) -> bool:
    """Whether the loop was asked to end: a CancelledError that some library let out must not end it in silence."""
    if isinstance(error, asyncio.CancelledError):
        return _task().cancelling() > 0
    return isinstance(error, OUR_OWN_END)


def _task() -> asyncio.Task[object]:
    task: asyncio.Task[object] | None = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine of asyncio always runs in a task
    return task
