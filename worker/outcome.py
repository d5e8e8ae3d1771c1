"""The fate of a message is one value; `engine.settlement` is the one place that turns it into SQS calls."""

from dataclasses import dataclass, field

__all__ = ["Abandon", "Ack", "DeadLetter", "Expired", "Fate", "Outcome", "Release", "Retry"]


@dataclass(frozen=True, slots=True)
class Ack:
    """The work is done: the message is deleted."""

    reason: str = ""
    """Why it counts as done, where that is not obvious (an unknown event acked by setting)."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The work failed for now: the message becomes visible again later.

    It is a failed attempt: at the last one the message goes to the dead-letter queue instead.
    """

    after: float | None = None
    """Seconds until it may be received again; `None` means the queue's backoff."""
    reason: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False)
    is_downstream: bool = field(default=True, compare=False, repr=False)
    """Whether it may lie with what the handler depends on; false never opens the queue's breaker."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The work can never succeed: a copy with the reason goes to the dead-letter queue, then the message is deleted."""

    reason: str
    error: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """The work never ran or was cancelled by us: the message goes back to its queue for others."""

    after: float = 0
    """Seconds until others may receive it."""
    runs_elsewhere: bool = field(default=False, kw_only=True)
    """Another message has the same work in progress: this one waits for it, in place where a receive more is dear."""


@dataclass(frozen=True, slots=True)
class Expired(Ack):
    """The message came too late for its own `expires_at`: it is deleted, and was not run."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The lease is lost, someone else may hold the message now: nothing is settled."""


Outcome = Ack | Retry | DeadLetter
"""What a handler may return (`None` is `Ack()`)."""

Fate = Outcome | Release | Abandon
"""What the engine may decide: an outcome, or one of the two ways to let go of a message that has none."""
