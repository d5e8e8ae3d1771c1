"""A worker that dies in the middle of everything: from then on nothing that it does arrives anywhere."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from worker import Router
from worker.errors import Fault, SourceError
from worker.idempotency import Answer, Mark, Store, StoreError
from worker.testing.fleet import Fleet

__all__ = ["killed"]


class Severed:
    """A store, until its worker is dead."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_dead = False

    async def open(self) -> None:
        await self._alive().open()

    async def is_made(self) -> bool:
        return await self._alive().is_made()

    async def close(self) -> None:
        pass

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        return await self._alive().begin(marks)

    async def finish(self, marks: Sequence[Mark]) -> None:
        await self._alive().finish(marks)

    async def release(self, marks: Sequence[Mark]) -> None:
        await self._alive().release(marks)

    async def renew(self, marks: Sequence[Mark]) -> None:
        await self._alive().renew(marks)

    async def prune(self) -> int:
        return await self._alive().prune()

    async def doubts(self) -> list[str]:
        return await self._alive().doubts()

    def _alive(self) -> Store:
        if self.is_dead:
            raise StoreError("the worker is dead")
        return self._store


@asynccontextmanager
async def killed(fleet: Fleet, router: Router) -> AsyncIterator[None]:
    """Run the fleet while inside; on leaving, its process is killed: its messages and marks stay as they are."""
    store = fleet.store = Severed(fleet.store)
    async with fleet.running(router, drain_seconds=0.001):
        yield
        store.is_dead = True
        fleet.source.faults.clear()
        fleet.source.faults.fail("*", SourceError(Fault.LOST, "Dead"), times=None)
