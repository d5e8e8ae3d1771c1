"""`timing`: a warning for each handler call that takes longer than it should."""

import asyncio
from typing import Any

from worker.errors import ConfigError
from worker.message import Message
from worker.middleware.protocol import CallNext, Middleware
from worker.outcome import Outcome

__all__ = ["timing"]


def timing(*, slow_seconds: float) -> Middleware:
    """Warn of every handler call that took longer than `slow_seconds`, also when it was cancelled or raised.

    A bound well under the handler's timeout tells of trouble before messages fail of it. The distribution of all
    calls is the metric `longshore_handler_seconds`.
    """
    if not slow_seconds > 0:
        raise ConfigError(f"timing(slow_seconds={slow_seconds!r}) is not allowed: say a number of seconds above 0")

    async def timing(message: Message[Any], call_next: CallNext) -> Outcome:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            return await call_next(message)
        finally:
            seconds = clock() - started
            if seconds > slow_seconds:
                message.log.warning("slow handler", seconds=round(seconds, 3), slow_seconds=slow_seconds)

    return timing
