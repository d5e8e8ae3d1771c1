"""Every order several times, workers that die at random moments: each effect once (I1, D4)."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from support.kills import killed

from worker import Batch, Message, Router
from worker.idempotency import MemoryStore
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

ORDERS = 40
KILLS = 6


class Ledger:
    """What was done by which worker, and whether two ever did the same work at once."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._running: set[str] = set()
        self.overlaps: list[str] = []
        self.done: dict[str, list[str]] = {}

    def router(self, worker: str, *, is_batch: bool) -> Router:
        router = Router()

        async def work(orders: Sequence[str]) -> None:
            self.overlaps += self._running & set(orders)
            self._running |= set(orders)
            try:
                await asyncio.sleep(self._chance.choice([0.1, 1, 20, 70]))
                for order in orders:
                    self.done.setdefault(order, []).append(worker)
            finally:
                self._running -= set(orders)

        if is_batch:

            @router.on("*", idempotency_key="id", batch=Batch(5, window_seconds=2))
            async def handle_many(messages: Sequence[Message[dict[str, Any]]]) -> None:
                await work([message.event["id"] for message in messages])

        else:

            @router.on("*", idempotency_key="id")
            async def handle(message: Message[dict[str, Any]]) -> None:
                await work([message.event["id"]])

        return router


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("queue", ["orders", "orders.fifo"])
async def test_each_effect_happens_once_although_workers_die(queue: str, *, is_batch: bool, seed: int) -> None:
    """Only what a dead worker did may be done again; nothing overlaps, is left in progress, or dead-lettered for it."""
    chance = random.Random(seed)
    store, ledger = MemoryStore(), Ledger(chance)
    first = MemorySource(queue, max_receive_count=100)
    copies = [str(order) for order in range(ORDERS) for _ in range(chance.randint(1, 4))]
    chance.shuffle(copies)
    for place, order in enumerate(copies):
        first.send(f'{{"id": "{order}"}}', group_id=f"g{chance.randrange(6)}" if first.store.is_fifo else None, deduplication_id=str(place) if first.store.is_fifo else None)  # fmt: skip
    mortal: set[str] = set()

    async def live(name: str, seconds: float | None) -> None:
        fleet = Fleet(first.another(), concurrency=chance.randint(1, 8), dead_letter={"max_receive_count": 100})
        fleet.store = store
        router = ledger.router(name, is_batch=is_batch)
        if seconds is None:
            await fleet.run(router)
            return
        mortal.add(name)
        async with killed(fleet, router):
            await asyncio.sleep(seconds)

    await asyncio.gather(
        *(live(f"mortal-{number}", chance.uniform(1, 200)) for number in range(KILLS)),
        *(live(f"lasting-{number}", None) for number in range(2)),
    )
    assert first.is_empty
    assert first.dead_letters == []
    assert set(ledger.done) == {str(order) for order in range(ORDERS)}
    assert all(worker in mortal for workers in ledger.done.values() for worker in workers[:-1])
    assert ledger.overlaps == []
    assert store.in_progress == []
    assert len(store.done) == ORDERS
