"""The breaker when other things happen meanwhile: retention, defects, drains, lost leases (P1, S7, D1)."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from worker import Batch, CallNext, Message, Outcome, Retry, Router
from worker.errors import TransientError
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


def send(source: MemorySource, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        source.send(str(number), group_id=str(number) if source.store.is_fifo else None)


@pytest.mark.parametrize("queue", ["orders", "orders.fifo"])
async def test_what_is_held_is_dead_lettered_before_its_retention_ends(queue: str) -> None:
    """SQS deletes silently what is held for too long (S7 before P1)."""
    retention = 7200
    source, runs = MemorySource(queue, retention_seconds=retention), 0

    async def handle(_: Message[Any]) -> None:
        nonlocal runs
        runs += 1
        raise TransientError("down")

    send(source, 10)
    fleet = Fleet(source, attempts=50, max_lease_seconds=3 * retention, dead_letter={"max_receive_count": 60})
    async with fleet.running(handle):
        await asyncio.sleep(retention + 60)
    assert len(source.dead_letters) == 10


async def test_a_middleware_that_fails_has_no_company() -> None:
    """What others did in the message's last call says nothing of this one, which never came to the handler (P1)."""
    source, calls = MemorySource("orders.fifo"), 0

    async def guard(message: Message[Any], call_next: CallNext) -> Outcome:
        if message.body == "0" and calls:
            raise TransientError("the store is down")
        return await call_next(message)

    router = Router(middleware=[guard])

    @router.on("*", batch=Batch(2))
    async def handle(messages: Sequence[Message[Any]]) -> Mapping[str, Outcome]:
        nonlocal calls
        calls += 1
        return {messages[0].id: Retry(after=1)}

    for body in "01":
        source.send(body, group_id="a")
    fleet = Fleet(source, concurrency=1, breaker={"calls": 2, "failure_ratio": 0.5})
    async with fleet.running(router, drain_seconds=0) as consumer:
        await asyncio.sleep(0.5)
        assert not consumer.context.metrics.snapshot()["breaker_open"]
        await asyncio.sleep(1)
        assert consumer.context.metrics.snapshot()["breaker_open"]
