"""A loop that ends unasked is restarted, within a budget."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext

__all__ = ["guarded"]

RESTARTS = 5
WINDOW_SECONDS = 300.0

log = structlog.get_logger("supervisor")


async def guarded(name: str, context: QueueContext, loop: Callable[[], Awaitable[None]]) -> None:
    """Run an eternal loop until it returns; restart it when it raises, at most five times in five minutes.

    Past that budget the process is told that it cannot go on (`Vitals.fatal`): it drains and exits with 1.
    """
    crashes: deque[float] = deque()
    while True:
        try:
            return await loop()
        except Exception as error:
            now = context.clock.now()
            crashes.append(now)
            while now - crashes[0] > WINDOW_SECONDS:
                crashes.popleft()
            log.exception("a loop of the consumer crashed", queue=context.queue, loop=name, crashes=len(crashes))
            context.metrics.loop_restarted(name)
            if len(crashes) > RESTARTS:
                context.vitals.fatal(
                    f"the {name} loop of queue {context.queue} crashed {len(crashes)} times, "
                    f"last with {type(error).__name__}: {error}"
                )
                return None
        await asyncio.sleep(full_jitter(len(crashes), base_seconds=0.5, cap_seconds=30))
