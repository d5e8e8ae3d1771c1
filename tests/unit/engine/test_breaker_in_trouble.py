"""The breaker when other things happen meanwhile: retention, defects, drains, lost leases (P1, S7, D1)."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support.loop_time import now

from worker import Batch, CallNext, Message, Outcome, Retry, Router
from worker.errors import TransientError
from worker.source import ReceiveRequest
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


@pytest.mark.parametrize("queue", ["orders", "orders.fifo"])
@pytest.mark.parametrize("count", [2, 5, 10, 30])
async def test_deploys_in_the_middle_of_an_outage_dead_letter_nothing(queue: str, count: int) -> None:
    """A new process has not seen the attempts that its messages have had: they say nothing while nothing succeeds (P1, S4)."""
    source, done = MemorySource(queue, max_receive_count=20), []

    async def handle(message: Message[Any]) -> None:
        await asyncio.sleep(0.1 + 0.05 * int(message.body))
        if now() < 300:
            raise TransientError("down")
        done.append(message.body)

    send(source, count)
    settings: dict[str, Any] = {"attempts": 3, "dead_letter": {"max_receive_count": 20}}
    for _ in range(4):
        async with Fleet(source, **settings).running(handle):
            await asyncio.sleep(40)
    await Fleet(source, **settings).run(handle)
    assert source.dead_letters == []
    assert sorted(done, key=int) == [str(number) for number in range(count)]


@pytest.mark.parametrize("others", [0, 5])
async def test_a_message_at_fault_is_dead_lettered_in_another_process_too(others: int) -> None:
    """Unless others are done after its failure it comes once more, for they may fail, too (S4, P1)."""
    source, runs = MemorySource(), 0

    async def handle(message: Message[Any]) -> None:
        nonlocal runs
        await asyncio.sleep(0.1)
        if message.body == "0":
            await asyncio.sleep(1)
            runs += 1
            raise TransientError("poison")

    source.send("0")
    for _ in range(4):
        (received,) = await source.receive(ReceiveRequest(1, 0, 30))
        await source.extend([(received.receipt, 0)])
    send(source, others, first=1)
    await Fleet(source, attempts=3).run(handle)
    assert (len(source.dead_letters), runs) == (1, 2)
