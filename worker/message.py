"""What travels: `Received` is what a source returns, `Message[T]` what a handler sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import structlog

from worker.inbox import Mark, Once, mark_key

__all__ = ["Attribute", "Lease", "Message", "Received"]

T = TypeVar("T")


class Attribute(NamedTuple):
    """A message attribute as SQS keeps it."""

    data_type: str
    """`String`, `Number` or `Binary`, with an optional custom suffix such as `Number.int`."""
    value: str | bytes
    """`bytes` for `Binary`, text for the others."""


@dataclass(frozen=True, slots=True)
class Received:
    """One receive of one message, as SQS tells it."""

    id: str
    receipt: str
    """The receipt handle: names this receive, not the message; a newer receive makes it stale."""
    body: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    receive_count: int = 1
    sent_at: float = 0.0
    """Unix time in seconds (SQS's SentTimestamp); 0 when unknown."""
    group_id: str | None = None
    deduplication_id: str | None = None
    sequence_number: str | None = None
    trace_header: str | None = None
    """AWSTraceHeader, passed on to the dead-letter queue."""


class Lease(Protocol):
    """The time for which SQS hides a message from others. Longshore extends it by itself."""

    @property
    def is_lost(self) -> bool:
        """Whether someone else may hold the message by now."""

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the lease ends unless it is extended; 0 when it is lost."""

    async def extend(self, seconds: float) -> None:
        """Hide the message for at least `seconds` from now, up to the queue's `max_lease_seconds`.

        Automatic beats never shorten it. Raises `SourceError` when SQS refuses.
        """


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """A decoded message, as handlers and middleware see it."""

    id: str
    """SQS's message id: of this copy in this queue; it changes on redrive. Never an idempotency key."""
    queue: str
    event: T
    """The payload in the type of the handler's annotation."""
    event_type: str | None
    body: str
    """The payload as text: what the publisher sent, without the SNS envelope."""
    attributes: Mapping[str, str | bytes]
    """Message attributes, the same whether they came enveloped or raw: `bytes` for binary ones, text for all others."""
    receive_count: int
    sent_at: datetime | None
    """When SQS took the message in (UTC)."""
    published_at: datetime | None
    """When it was published (UTC): SNS's timestamp or the attribute `published_at`; absent when there is neither."""
    group_id: str | None
    sequence_number: str | None
    lease: Lease
    state: Any = None
    """What the router's lifespan yielded."""

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """A logger whose lines say which message they are about; it never carries the payload."""
        logger: structlog.typing.FilteringBoundLogger = structlog.get_logger("handler")
        return logger.bind(queue=self.queue, message_id=self.id, event_type=self.event_type, attempt=self.receive_count)

    def once(self, connection: Any, *, key: object = None) -> Once:
        """Commit an effect together with the mark that it happened: `async with message.once(session, key=...) as first:`.

        `connection` is in your transaction: a SQLAlchemy (async) session or connection, an asyncpg or a sqlite3 connection.
        `first` is false when this queue has handled the key before, for this event type: return then. `key` names the
        event in your business; the default is its attribute `idempotency_key`. Commit after the block, which raises
        `LeaseLostError` when someone else may hold the message by now. A connection that commits each statement by itself is
        refused with `UsageError`; what nobody commits is lost, and the message deleted all the same.
        """
        name = mark_key(key, self.attributes)
        mark = Mark(self.queue, self.event_type or "", name, self.id, self.receive_count)
        return Once(mark, self.lease, connection)
