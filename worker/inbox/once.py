"""`Once`, which is `message.once(...)`: a mark in the handler's own transaction, and a fence before its commit."""

import math
import time
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol

import structlog

from worker.errors import LeaseLostError, UsageError
from worker.sql.connection import Statement, adapt
from worker.sql.steps import Steps, run, run_async

__all__ = ["IDEMPOTENCY_KEY", "Holding", "Mark", "Once", "mark_key"]

IDEMPOTENCY_KEY: Final = "idempotency_key"
"""The attribute in which publishers, and the outbox, name an event."""
MAX_KEY_CHARACTERS: Final = 500
TOLD_AFTER_SECONDS: Final = 2.0
"""How long a SQLite file is waited for before that is worth a warning."""

_INSERT: Final = (
    "INSERT INTO longshore_inbox (queue, event_type, key, message_id, generation) "
    "VALUES (:queue, :event_type, :key, :message_id, :generation) ON CONFLICT DO NOTHING RETURNING "
)
_NUMBER: Final = {"postgresql": "txid_current()", "sqlite": "1"}
"""What a transaction is known again by."""
_FIND: Final = (
    "SELECT message_id, generation FROM longshore_inbox "
    "WHERE queue = :queue AND event_type = :event_type AND key = :key"
)
_FENCE: Final = (
    "SELECT set_config('idle_in_transaction_session_timeout', :milliseconds, true), txid_current_if_assigned()"
)

log = structlog.get_logger("inbox")


class Holding(Protocol):
    """What is asked of a lease."""

    @property
    def is_lost(self) -> bool:
        """Whether someone else may hold the message by now."""

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the lease ends unless it is extended; 0 when it is lost."""


class Mark(NamedTuple):
    """What is written down of a message that was handled; the first three say what it is, the others who did it."""

    queue: str
    event_type: str
    key: str
    message_id: str
    generation: int
    """The receive count: a newer receive of the same message has a higher one."""


class Once:
    """The mark and the fence of one message; `async with`, or `with` where the connection is synchronous.

    1. Entering writes the mark. It waits for whoever is about to commit the same mark, on SQLite for whoever writes, as long as
       the lease holds; it is false when somebody has.
    2. While its transaction is open nobody else can commit that mark, so of two holders at most one commits.
    3. Leaving raises `LeaseLostError` when the lease is lost, so that the transaction around it rolls back.
    4. From there until the commit PostgreSQL keeps watch: it ends the transaction when the commit does not come while the
       lease holds. SQLite has nobody who could, but there 2. holds by the file's write lock.
    """

    def __init__(self, mark: Mark, lease: Holding, connection: Any) -> None:
        self._mark = mark
        self._lease = lease
        self._given = connection
        self._is_first = False
        self._number: int | None = None
        self._told_at: float | None = None

    def __bool__(self) -> bool:
        raise UsageError(
            "message.once(...) is neither true nor false before it is entered: write `async with message.once(...) as first:`"
        )

    def __enter__(self) -> bool:
        self._connection = adapt(self._given)
        return run(self._connection, self._enter(), self._insist)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._is_first:
            run(self._connection, self._leave())

    async def __aenter__(self) -> bool:
        self._connection = adapt(self._given)
        return await run_async(self._connection, self._enter(), self._insist)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._is_first:
            await run_async(self._connection, self._leave())

    def _enter(self) -> Steps[bool]:
        self._refuse_unless_held()
        mark = self._mark
        rows = yield Statement(_INSERT + _NUMBER[self._connection.dialect], mark._asdict())
        self._is_first = bool(rows)
        if self._is_first:
            self._number = rows[0][0]
            self._connection.watch()
        else:
            key = {"queue": mark.queue, "event_type": mark.event_type, "key": mark.key}
            for message_id, generation in (yield Statement(_FIND, key)):
                if message_id == mark.message_id and generation > mark.generation:
                    raise self._lost()  # a newer holder has committed: we are the one that was paused
        return self._is_first

    def _leave(self) -> Steps[None]:
        if not self._connection.is_watched():
            raise self._ended()
        yield None
        self._refuse_unless_held()
        while self._connection.dialect == "postgresql":
            half = self._lease.remaining_seconds / 2
            ((_, number),) = yield Statement(_FENCE, {"milliseconds": str(max(1, int(half * 1000)))})
            if number != self._number:
                raise self._ended()
            self._refuse_unless_held()
            if self._lease.remaining_seconds >= half:  # so the server gives up before the lease ends
                return

    def _insist(self) -> None:
        """Go on waiting for a SQLite file while the lease is held, and tell of it once."""
        self._refuse_unless_held()
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now + TOLD_AFTER_SECONDS
        elif now > self._told_at:
            self._told_at = math.inf
            log.warning(
                "another transaction keeps the SQLite file, and a message waits for it",
                queue=self._mark.queue,
                event_type=self._mark.event_type,
                message_id=self._mark.message_id,
            )

    def _refuse_unless_held(self) -> None:
        if self._lease.is_lost or self._lease.remaining_seconds <= 0:
            raise self._lost()

    def _ended(self) -> UsageError:
        return UsageError(
            "the transaction ended inside `message.once(...)`, before the lease was checked: commit after the block"
        )

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(
            f"receive {self._mark.generation} of message {self._mark.message_id} has lost its lease: nothing is "
            f"committed, and whoever received it next handles it"
        )


def mark_key(given: object, attributes: Any) -> str:
    """Return the key of a message, given or taken from its attribute `idempotency_key`; raise `UsageError` for none."""
    found = attributes.get(IDEMPOTENCY_KEY) if given is None else given
    key = "" if found is None or isinstance(found, bytes | bool) else str(found)
    if 0 < len(key) <= MAX_KEY_CHARACTERS and "\0" not in key:
        return key
    raise UsageError(
        f"message.once(...) has no key, or one that is none: give what names the event in your business, such as "
        f"key=message.event.order_id, in 1 to {MAX_KEY_CHARACTERS} characters"
    )
