"""`logging`: one line for each handler call, with its outcome and its seconds."""

import asyncio
from typing import Any

from worker.message import Message
from worker.middleware.protocol import CallNext
from worker.outcome import Ack, Outcome

__all__ = ["logging"]


async def logging(message: Message[Any], call_next: CallNext) -> Outcome:
    """Log one line per handler call: outcome (or the class of what was raised), reason, seconds; never the payload."""
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        outcome = await call_next(message)
    except BaseException as error:
        message.log.warning("handler raised", error=type(error).__name__, seconds=round(clock() - started, 3))
        raise
    log = message.log.info if isinstance(outcome, Ack) else message.log.warning
    log("handled", outcome=type(outcome).__name__, reason=outcome.reason, seconds=round(clock() - started, 3))
    return outcome
