"""`Outbox`: the relay's side of the table: what waits, in turn, and what became of it."""

import fcntl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from worker.errors import UsageError
from worker.sql.connection import Statement
from worker.sql.database import Database, file_of

__all__ = ["Outbox", "Stored", "Taken", "sole_relay"]

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


@dataclass
class Taken:
    """Rows that are this relay's for now, each lane in the order in which it is to be sent."""

    lanes: Sequence[Sequence[Stored]]
    sent: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Those that will never be taken, and why."""


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
        if self._database.dialect == "postgresql":
            async with self._database.transaction():
                await self._database.execute(_NOT_FOR_EVER)
                taken = Taken(await self._lanes(" FOR UPDATE SKIP LOCKED"))
                yield taken
                await self._note(taken)
            return
        async with self._database.transaction():
            taken = Taken(await self._lanes(""))
        yield taken
        if taken.sent or taken.refused:
            async with self._database.transaction():
                await self._note(taken)

    async def _lanes(self, locking: str) -> list[list[Stored]]:
        rows = await self._database.execute(Statement(_FIRSTS + locking, {"topic": self._topic}))
        firsts = [Stored(*row) for row in rows]
        lanes, room = [], TAKE - len(firsts)
        for first in firsts:
            lane = [first]
            if first.group_id is not None and room > 0:
                lane += await self._behind(first, room)
                room -= len(lane) - 1
            lanes.append(lane)
        return lanes

    async def _behind(self, first: Stored, room: int) -> list[Stored]:
        values: dict[str, Any] = {"topic": self._topic, "group_id": first.group_id, "id": first.id, "room": room}
        return [Stored(*row) for row in await self._database.execute(Statement(_FOLLOWERS, values))]

    async def _note(self, taken: Taken) -> None:
        for number in taken.sent:
            await self._database.execute(Statement(_SENT, {"id": number}))
        for number, why in taken.refused:
            await self._database.execute(Statement(_REFUSED, {"id": number, "why": why}))


@asynccontextmanager
async def sole_relay(url: str, topic: str) -> AsyncIterator[None]:
    """Be the only relay of a topic on a SQLite database; the lock ends with its process. PostgreSQL needs none."""
    path = file_of(url)
    if path is None:
        yield
        return
    with path.with_name(f"{path.name}-outbox-{topic}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another relay sends the outbox of {topic} from {path}: on SQLite there can be one; "
                f"end it, or use PostgreSQL, where several work side by side"
            ) from None
        yield
