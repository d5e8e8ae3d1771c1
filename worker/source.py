"""`Source`: the one thing the engine knows of a queue. `aws.sqs` and `testing.memory` implement it; one suite tests both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from worker.errors import EntryError
from worker.message import Attribute, Received

__all__ = ["MAX_BATCH", "Copy", "Depth", "QueueFacts", "ReceiveRequest", "Source"]

MAX_BATCH = 10
"""SQS's limit for one receive and for the entries of one batch call."""


@dataclass(frozen=True, slots=True)
class ReceiveRequest:
    """One receive call."""

    limit: int
    """1 to 10 messages."""
    wait_seconds: int
    """0 to 20: how long an empty queue keeps the call."""
    visibility_timeout_seconds: int
    attempt_id: str | None = None
    """FIFO only: the same id within five minutes gets the same messages again when an answer was lost."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A message as it is sent to the dead-letter queue."""

    body: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    group_id: str | None = None
    deduplication_id: str | None = None
    trace_header: str | None = None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What SQS says of a queue, read at start."""

    is_fifo: bool
    visibility_timeout_seconds: int
    retention_seconds: int
    max_receive_count: int | None = None
    """Of the queue's RedrivePolicy; `None` when it has none."""
    redrive_target: str | None = None
    """Name of the queue that the RedrivePolicy points to."""
    dead_letter_found: bool = False
    """Whether the configured dead-letter queue exists and can be seen."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Approximate counts of a queue and of its dead-letter queue."""

    visible: int
    in_flight: int
    delayed: int
    dead_letters: int | None = None


class Source(Protocol):
    """A queue and its dead-letter queue.

    A call that fails as a whole raises `SourceError` and nothing else; no call takes longer than its own deadline.
    Batch calls answer per entry and by position: `None` is success.
    """

    @property
    def queue(self) -> str:
        """The queue's name."""

    async def describe(self) -> QueueFacts:
        """Read what SQS says of the queue."""

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        """Return at most `limit` messages, hidden from others for the visibility timeout."""

    async def extend(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        """Hide each receipt's message for its number of seconds from now; 0 makes it visible at once."""

    def extend_blocking(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        """Do the same without the event loop, from another thread, while the loop is blocked."""

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        """Delete the messages of the receipts."""

    async def dead_letter(self, copy: Copy) -> None:
        """Send the copy to the dead-letter queue; return once SQS has confirmed it."""

    async def depth(self) -> Depth:
        """Return the approximate counts."""

    async def check_settlement(self) -> None:
        """Raise `SourceError` when deletes or visibility changes are denied or unreachable; touch no message."""

    async def close(self) -> None:
        """Let go of connections. Nothing may be called afterwards."""
