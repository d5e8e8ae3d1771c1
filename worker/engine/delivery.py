"""`Delivery`: one message in hand, from its receive until it is settled."""

import asyncio
from collections.abc import Callable
from enum import Enum

from worker.engine.lease import HeldLease
from worker.engine.slots import Slot
from worker.message import Received

__all__ = ["Cause", "Delivery"]


class Cause(Enum):
    """Why we cancelled a handler, the weakest first: a stronger cause replaces a weaker one."""

    TIMEOUT = 1
    LEASE_CAP = 2
    DRAIN = 3
    LEASE_LOST = 4


class Delivery:
    """One message in hand.

    It knows the newest receive of its message, the lease and the slot that it holds, and how to interrupt its handler.
    """

    __slots__ = ("attempts", "cause", "event_type", "handler", "is_stuck", "lease", "on_interrupt", "received", "run", "slot", "successor")  # fmt: skip

    def __init__(self, received: Received, slot: Slot, lease: HeldLease) -> None:
        self.received = received
        self.slot = slot
        self.lease = lease
        self.cause: Cause | None = None
        """Why the handler was interrupted, if it was."""
        self.event_type: str | None = None
        self.handler: str | None = None
        """Name of the handler, once one is found."""
        self.attempts: int | None = None
        """The handler's own number of attempts, if it has one."""
        self.successor: Delivery | None = None
        """A newer delivery of the same message that starts when this one, whose lease is lost, has ended."""
        self.run: asyncio.Task[object] | None = None
        """The task in which the handler runs, while it runs."""
        self.is_stuck = False
        """The handler was interrupted long ago and has not ended."""
        self.on_interrupt: Callable[[Delivery], None] = _nobody

    @property
    def log_fields(self) -> dict[str, object]:
        """What every log line of this message says."""
        return {
            "message_id": self.received.id,
            "event_type": self.event_type,
            "handler": self.handler,
            "attempt": self.received.receive_count,
        }

    def begin(self) -> bool:
        """From here on the current task may be interrupted; false if the cause to do so came first."""
        self.run = asyncio.current_task()
        return self.cause is None

    def interrupt(self, cause: Cause) -> None:
        """Cancel the handler for a cause; a running settlement is never touched."""
        if self.cause is not None and self.cause.value >= cause.value:
            return
        self.cause = cause
        if self.run is not None:
            self.run.cancel()
            self.on_interrupt(self)

    def end(self) -> None:
        """From here on nothing is interrupted."""
        self.run = None


def _nobody(_: Delivery) -> None:
    pass
