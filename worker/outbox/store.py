"""`Outbox`: the relay's side of the table: what waits, in turn, and what became of it."""

import fcntl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from worker.errors import UsageError
from worker.sql.connection import Statement
from worker.sql.database import Database, file_of
from worker.sql.steps import Steps

__all__ = ["OtherRelayError", "Outbox", "Stored", "Taken", "Waiting", "sole_relay"]

TAKE: Final = 100
"""Rows at once: ten calls' worth, and no more than is sent again when a relay dies before it has noted anything."""

_COLUMNS: Final = "id, event_type, body, attributes, group_id, deduplication_id"
_WAITS: Final = "topic = :topic AND sent_at IS NULL AND refused_at IS NULL"
_FIRSTS: Final = f"""
SELECT {_COLUMNS} FROM longshore_outbox AS one
WHERE {_WAITS} AND (group_id IS NULL OR NOT EXISTS (
    SELECT 1 FROM longshore_outbox AS earlier
    WHERE earlier.topic = one.topic AND earlier.group_id = one.group_id AND earlier.id < one.id
    AND earlier.sent_at IS NULL AND earlier.refused_at IS NULL))
ORDER BY id LIMIT {TAKE}"""  # noqa: S608 - texts of ours
"""The first of each group. Who holds its row holds the group: nobody else's is first until that one is done."""
_FOLLOWERS: Final = f"""
SELECT {_COLUMNS} FROM longshore_outbox
WHERE {_WAITS} AND group_id = :group_id AND id > :id ORDER BY id LIMIT :room"""  # noqa: S608 - texts of ours
_WAITING: Final = """
SELECT count(*), (SELECT {age} FROM longshore_outbox WHERE {waits} ORDER BY id LIMIT 1)
FROM longshore_outbox WHERE {waits}"""
_AGE: Final = {
    "postgresql": "EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - stored_at)",
    "sqlite": "strftime('%s', 'now') - strftime('%s', stored_at)",
}
_SENT: Final = "UPDATE longshore_outbox SET sent_at = CURRENT_TIMESTAMP WHERE id = :id"
_REFUSED: Final = "UPDATE longshore_outbox SET refused_at = CURRENT_TIMESTAMP, refusal = :why WHERE id = :id"
_NOT_FOR_EVER: Final = Statement("SET LOCAL idle_in_transaction_session_timeout = '120s'")
"""A relay that stands still gives its groups back to the others."""


class Stored(NamedTuple):
    """A row that waits; see the table."""

    id: int
    event_type: str
    body: str
    attributes: str
    group_id: str | None
    deduplication_id: str | None


class Waiting(NamedTuple):
    """How much there is to be sent."""

    events: int
    oldest_seconds: float
    """The age of the one that was stored first; 0 when nothing waits."""


@dataclass
class Taken:
    """Rows that are this relay's for now, each lane in the order in which it is to be sent."""

    lanes: Sequence[Sequence[Stored]]
    sent: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Those that will never be taken, and why."""


class OtherRelayError(UsageError):
    """There can be but one relay, and another process has it."""


class Outbox:
    """The outbox of one topic."""

    def __init__(self, database: Database, topic: str) -> None:
        self._database = database
        self._topic = topic

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Taken]:
        """Take rows that nobody else has; what became of them is noted on leaving, unless that is by an error.

        On PostgreSQL their locks are kept until then. SQLite knows no such locks: there is but one relay (`sole_relay`).
        """
        database = self._database
        if database.dialect == "postgresql":
            async with database.transaction():
                taken = Taken(await database.take(self._lanes(_NOT_FOR_EVER, " FOR UPDATE SKIP LOCKED")))
                yield taken
                await database.take(_note(taken))
            return
        taken = Taken(await database.transact(self._lanes()))
        yield taken
        if taken.sent or taken.refused:
            await database.transact(_note(taken))

    async def waiting(self) -> Waiting:
        """Return how much waits. It reads an index from end to end: ask rarely."""
        return await self._database.transact(self._count())

    def _count(self) -> Steps[Waiting]:
        ask = _WAITING.format(age=_AGE[self._database.dialect], waits=_WAITS)
        ((events, seconds),) = yield Statement(ask, {"topic": self._topic})
        return Waiting(int(events), max(0.0, float(seconds or 0)))

    def _lanes(self, first: Statement | None = None, locking: str = "") -> Steps[list[list[Stored]]]:
        if first is not None:
            yield first
        rows = yield Statement(_FIRSTS + locking, {"topic": self._topic})
        firsts = [Stored(*row) for row in rows]
        lanes, room = [], TAKE - len(firsts)
        for each in firsts:
            lane = [each]
            if each.group_id is not None and room > 0:
                lane += yield from self._behind(each, room)
                room -= len(lane) - 1
            lanes.append(lane)
        return lanes

    def _behind(self, first: Stored, room: int) -> Steps[list[Stored]]:
        values: dict[str, Any] = {"topic": self._topic, "group_id": first.group_id, "id": first.id, "room": room}
        rows = yield Statement(_FOLLOWERS, values)
        return [Stored(*row) for row in rows]


def _note(taken: Taken) -> Steps[None]:
    for number in taken.sent:
        yield Statement(_SENT, {"id": number})
    for number, why in taken.refused:
        yield Statement(_REFUSED, {"id": number, "why": why})


@asynccontextmanager
async def sole_relay(url: str, topic: str) -> AsyncIterator[None]:
    """Be the only relay of a topic on a SQLite database; the lock ends with its process. PostgreSQL needs none.

    Raises `OtherRelayError` when another one is it.
    """
    path = file_of(url)
    if path is None:
        yield
        return
    lock = path.with_name(f"{path.name}-outbox-{topic}")
    try:
        file = lock.open("w")
    except OSError as error:
        raise UsageError(
            f"the lock of the outbox cannot be written to {lock} ({error.strerror}): allow it, or use PostgreSQL"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OtherRelayError(
                f"another relay sends the outbox of {topic} from {path}: on SQLite there can be one; "
                f"end it, or use PostgreSQL, where several work side by side"
            ) from None
        yield
