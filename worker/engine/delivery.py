"""`Delivery`: one message in hand, from its receive until it is settled."""

import asyncio
from collections.abc import Callable
from enum import Enum

from worker.engine.lease import HeldLease
from worker.message import Received

__all__ = ["Cause", "Company", "Delivery"]


class Cause(Enum):
    """Why we cancelled a handler, the weakest first: a stronger cause replaces a weaker one."""

    THROTTLED = 1
    TIMEOUT = 2
    LEASE_CAP = 3
    PERMIT_LOST = 4
    MARK_LOST = 5
    DRAIN = 6
    LEASE_LOST = 7


class Company:
    """What messages have in common that were handled in one call."""

    __slots__ = ("has_success",)

    def __init__(self) -> None:
        self.has_success = False
        """One of them is done: who is not has failed by itself."""


class Delivery:
    """One message in hand.

    It knows the newest receive of its message, the lease that it holds, how to interrupt its handler, and how to wait in
    place: with its lease kept, until it is run again.
    """

    __slots__ = ("_waiter", "attempt", "attempts", "cause", "company", "event_type", "failures", "handler", "is_alone", "is_superseded", "lease", "on_interrupt", "received", "receives", "run", "was_done")  # fmt: skip

    def __init__(self, received: Received, lease: HeldLease, attempt: int = 1) -> None:
        self.received = received
        self.lease = lease
        self.attempt = attempt
        """Which attempt its next run is: the receive count, less what was no failure, and what failed in place."""
        self.failures = 0
        """How often the handler has failed in this receive."""
        self.receives = 1
        """How many receives it stands for: one, and those that came while it was in hand."""
        self.cause: Cause | None = None
        """Why the handler was interrupted, if it was."""
        self.event_type: str | None = None
        self.handler: str | None = None
        """Name of the handler, once one is found."""
        self.attempts: int | None = None
        """The handler's own number of attempts, if it has one."""
        self.company: Company | None = None
        """The others that were handled in its last call."""
        self.is_alone = False
        """It is run by itself, also by a handler of batches."""
        self.was_done = False
        """Its work had been done before it came: it was not run, which says nothing of what its handler depends on."""
        self.is_superseded = False
        """Its lease is lost, and a newer receive of the message waits for its end."""
        self.run: asyncio.Task[object] | None = None
        """The task in which the handler runs, while it runs."""
        self.on_interrupt: Callable[[asyncio.Task[object]], None] = _nobody
        """Told of the task that was cancelled."""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def log_fields(self) -> dict[str, object]:
        """What every log line of this message says."""
        return {
            "message_id": self.received.id,
            "event_type": self.event_type,
            "handler": self.handler,
            "attempt": self.attempt,
        }

    @property
    def is_waiting(self) -> bool:
        """Whether it waits in place."""
        return self._waiter is not None

    @property
    def stands_alone(self) -> bool:
        """Whether it is handled by itself: it is to be, or it is about to end without being handled."""
        return self.is_alone or self.cause is not None or self.lease.is_lost

    def begin(self) -> bool:
        """From here on the current task may be interrupted; false if the cause to do so came first."""
        self.run = asyncio.current_task()
        return self.cause is None

    def interrupt(self, cause: Cause) -> None:
        """Cancel the handler for a cause, or end the waiting in place; a running settlement is never touched."""
        if self.cause is not None and self.cause.value >= cause.value:
            return
        self.cause = cause
        if self.run is not None:
            self.run.cancel()
            self.on_interrupt(self.run)
        else:
            self.wake()

    def end(self) -> None:
        """From here on nothing is interrupted."""
        self.run = None

    async def wait(self, seconds: float | None = None) -> bool:
        """Stay in place until woken, for `seconds` at most; false when an interrupt ended it or came before."""
        if self.cause is Cause.TIMEOUT:  # that run is over
            self.cause = None
        if self.cause is None:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, self.wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        return self.cause is None

    def wake(self) -> None:
        """End the waiting in place, if there is any."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _nobody(_: "asyncio.Task[object]") -> None:
    pass
