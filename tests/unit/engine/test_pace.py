"""Adaptive concurrency: as many calls at once as the downstream takes, between two bounds (P2)."""

import asyncio
import random
from typing import Any

from support.loop_time import LoopTime, now

from worker import Batch, Message, Router
from worker.engine.pace import Pace
from worker.errors import TransientError
from worker.settings import ConcurrencyRange
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


class Database:
    """Serves `capacity` calls at once in 50 ms each; others wait for their turn, so calls get slower, not fewer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = asyncio.Semaphore(capacity)
        self.running = 0
        self.at_once: list[tuple[float, int]] = []
        self.failing = False

    async def __call__(self, _: Message[Any]) -> None:
        self.running += 1
        self.at_once.append((now(), self.running))
        try:
            async with self.capacity:
                await asyncio.sleep(0.05 * random.uniform(0.9, 1.1))
            if self.failing:
                raise TransientError("busy")
        finally:
            self.running -= 1

    def most_between(self, start: float, end: float) -> int:
        return max(running for at, running in self.at_once if start <= at < end)


async def keep_full(source: MemorySource, seconds: float) -> None:
    ends_at = now() + seconds
    while now() < ends_at:
        for _ in range(max(0, 500 - source.visible)):
            source.send("{}")
        await asyncio.sleep(0.1)


async def test_it_grows_to_what_the_downstream_takes_and_no_further() -> None:
    """Twice the capacity makes calls twice as slow: there it stops, far from its upper bound (P2)."""
    source, database = MemorySource(max_receive_count=None), Database(20)
    async with Fleet(source, concurrency={"min": 2, "max": 200}).running(database):
        await keep_full(source, 60)
    assert database.most_between(0, 0.4) == 2
    assert 20 <= database.most_between(30, 60) <= 80


async def test_it_uses_all_that_it_may_where_nothing_slows_down() -> None:
    source, database = MemorySource(max_receive_count=None), Database(1000)
    async with Fleet(source, concurrency={"min": 2, "max": 40}).running(database) as consumer:
        await keep_full(source, 20)
        assert consumer.context.metrics.snapshot()["slots"]["size"] == 40
    assert database.most_between(10, 20) == 40


async def test_failures_shrink_it_and_the_lower_bound_holds() -> None:
    source, database = MemorySource(max_receive_count=None), Database(1000)
    settings = {"concurrency": {"min": 3, "max": 40}, "breaker": "none", "attempts": 100, "dead_letter": "none"}
    async with Fleet(source, **settings).running(database) as consumer:
        await keep_full(source, 20)
        database.failing = True
        await keep_full(source, 20)
        assert consumer.context.metrics.snapshot()["slots"]["size"] == 3
        database.failing = False
        await keep_full(source, 30)
        assert 10 < consumer.context.metrics.snapshot()["slots"]["size"] <= 40


async def test_a_queue_with_little_to_do_does_not_grow() -> None:
    """Only a round in which all slots were in use asks for more."""
    source, database = MemorySource(max_receive_count=None), Database(1000)
    async with Fleet(source, concurrency={"min": 2, "max": 40}).running(database) as consumer:
        for _ in range(100):
            source.send("{}")
            await asyncio.sleep(0.2)
        assert consumer.context.metrics.snapshot()["slots"]["size"] == 2


async def test_batches_adapt_their_calls() -> None:
    source, router = MemorySource(max_receive_count=None), Router()
    running, most = 0, 0

    @router.on("*", batch=Batch(10, window_seconds=0.1))
    async def handle(_: list[Message[Any]]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.2)
        running -= 1

    async with Fleet(source, concurrency={"min": 1, "max": 8}).running(router):
        await keep_full(source, 20)
    assert most == 8


async def test_one_slow_handler_among_quick_ones_is_no_sign() -> None:
    """Each handler is compared with itself: a slow one that runs more often is not a downstream that slows down."""
    limits: list[int] = []
    pace = Pace(ConcurrencyRange(min=4, max=64), LoopTime(), lambda: True, limits.append)
    for round_number in range(20):
        for call in range(100):
            pace.lasted("slow" if call < round_number * 5 else "quick", 10.0 if call < round_number * 5 else 0.01)
            await asyncio.sleep(0.01)
    assert limits == sorted(limits)
    assert limits[-1] == 64
