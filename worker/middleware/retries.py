"""`retry_in_place`: a few quick tries within one handler call, for errors that are over in a moment."""

from typing import Any

from worker.errors import ConfigError, TransientError
from worker.message import Message
from worker.middleware.protocol import CallNext, Middleware
from worker.outcome import Outcome

__all__ = ["retry_in_place"]


def retry_in_place(
    *,
    attempts: int = 3,
    on: type[Exception] | tuple[type[Exception], ...] = TransientError,
    first_wait_seconds: float = 0.1,
    max_wait_seconds: float = 5.0,
) -> Middleware:
    """Run the handler up to `attempts` times while the message stays leased, waiting a little longer each time.

    Only the listed exceptions are tried again; the last one is raised. A `TransientError` whose `retry_after` is
    longer than `max_wait_seconds` is raised at once: its handler asked not to hold a slot for that long. All tries
    share one handler timeout and one slot, and count as one attempt of the message.
    """
    if attempts < 1 or not 0 <= first_wait_seconds <= max_wait_seconds:
        raise ConfigError(
            f"retry_in_place(attempts={attempts!r}, first_wait_seconds={first_wait_seconds!r}, max_wait_seconds="
            f"{max_wait_seconds!r}) is not allowed: attempts start at 1, and waits run from 0 up to the maximum"
        )
    import stamina  # only fleets that use this middleware pay for it

    def next_wait(error: Exception) -> bool | float:
        if not isinstance(error, on):
            return False
        retry_after = error.retry_after if isinstance(error, TransientError) else None
        return True if retry_after is None else retry_after <= max_wait_seconds and float(retry_after)

    tries = stamina.AsyncRetryingCaller(
        attempts=attempts,
        timeout=None,  # the handler's own timeout ends it
        wait_initial=first_wait_seconds,
        wait_max=max_wait_seconds,
        wait_jitter=first_wait_seconds,
    )

    async def retry_in_place(message: Message[Any], call_next: CallNext) -> Outcome:
        async def once() -> Outcome:  # without arguments, since stamina may log those of its callable
            return await call_next(message)

        return await tries(next_wait, once)

    return retry_in_place
