"""`MemoryStore`: marks in this process, on the event loop's clock; for tests, also in virtual time."""

import asyncio
from collections.abc import Sequence

from worker.idempotency.store import Answer, Begun, Mark, Row, StoreError, answer_to

__all__ = ["MemoryStore"]


class MemoryStore:
    """A store that several fleets of one test may share."""

    def __init__(self, *, retention_seconds: float = 1_209_600) -> None:
        self.retention_seconds = retention_seconds
        self.rows: dict[str, Row] = {}
        """What is known, by key."""
        self.is_down = False
        """Set it to let every call fail."""
        self.calls: list[str] = []
        """The names of all calls, in order."""

    @property
    def in_progress(self) -> list[str]:
        """Keys that are marked as in progress."""
        now = _now()
        return [key for key, row in self.rows.items() if row.owner is not None and row.ends_at > now]

    @property
    def done(self) -> list[str]:
        """Keys that are marked as done."""
        return [key for key, row in self.rows.items() if row.owner is None]

    async def open(self) -> None:
        """Fail while the store is down."""
        await self._called("open")

    async def is_made(self) -> bool:
        """Need no table."""
        await self._called("is_made")
        return True

    async def close(self) -> None:
        """Keep everything."""

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        """Mark as in progress what is free."""
        await self._called("begin")
        now = _now()
        answers = [answer_to(mark, self.rows.get(mark.key), now) for mark in marks]
        for mark, answer in zip(marks, answers, strict=True):
            if isinstance(answer, Begun):
                self.rows[mark.key] = Row(mark.fingerprint, mark.owner, now + mark.seconds)
        return answers

    async def finish(self, marks: Sequence[Mark]) -> None:
        """Mark as done."""
        await self._called("finish")
        now = _now()
        for mark in marks:
            self.rows[mark.key] = Row(mark.fingerprint, None, now + self.retention_seconds)

    async def release(self, marks: Sequence[Mark]) -> None:
        """Free the keys."""
        await self._called("release")
        for mark in self._owned(marks):
            del self.rows[mark.key]

    async def renew(self, marks: Sequence[Mark]) -> None:
        """Push the ends back."""
        await self._called("renew")
        for mark in self._owned(marks):
            self.rows[mark.key] = self.rows[mark.key]._replace(ends_at=_now() + mark.seconds)

    async def prune(self) -> int:
        """Forget what has ended."""
        await self._called("prune")
        ended = [key for key, row in self.rows.items() if row.ends_at <= _now()]
        for key in ended:
            del self.rows[key]
        return len(ended)

    async def doubts(self) -> list[str]:
        """Have none."""
        return []

    def _owned(self, marks: Sequence[Mark]) -> list[Mark]:
        return [mark for mark in marks if (row := self.rows.get(mark.key)) is not None and row.owner == mark.owner]

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreError("the store in memory is down")


def _now() -> float:
    return asyncio.get_running_loop().time()
