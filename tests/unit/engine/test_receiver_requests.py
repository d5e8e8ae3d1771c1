"""What a receive asks for: its own visibility timeout, and on FIFO queues an attempt id while its outcome is unknown."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker.errors import Fault, SourceError
from worker.message import Message, Received
from worker.source import ReceiveRequest
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource


class WatchedSource(MemorySource):
    """Notes every receive: when, what was asked for."""

    def __init__(self, queue: str = "orders", **options: Any) -> None:
        super().__init__(queue, **options)
        self.requests: list[tuple[float, ReceiveRequest]] = []

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        self.requests.append((now(), request))
        return await super().receive(request)

    async def asked_often(self, times: int) -> None:
        while len(self.requests) < times:  # noqa: ASYNC110  # what is waited for happens in another task
            await asyncio.sleep(0.001)


def now() -> float:
    return asyncio.get_running_loop().time()


def handler_of(seconds: float = 0.0, seen: list[str] | None = None) -> Callable[[Message[str]], Awaitable[None]]:
    async def handler(message: Message[str]) -> None:
        if seen is not None:
            seen.append(message.id)
        await asyncio.sleep(seconds)

    return handler


async def test_the_visibility_timeout_is_sent_with_each_receive() -> None:
    """What the queue itself is set to does not matter; a standard queue gets no attempt id (R8)."""
    source = WatchedSource(visibility_timeout_seconds=30)
    await Fleet(source, visibility_timeout_seconds=77).run(handler_of(), seconds=100)
    assert {request.visibility_timeout_seconds for _, request in source.requests} == {77}
    assert {request.attempt_id for _, request in source.requests} == {None}


async def test_each_fifo_receive_has_an_attempt_id_of_its_own() -> None:
    """A receive whose outcome is known is never asked for again under its id (R8)."""
    source = WatchedSource("orders.fifo")
    for number in range(5):
        source.send("work", group_id=str(number))
    await Fleet(source, concurrency=1).run(handler_of())
    ids = [request.attempt_id for _, request in source.requests]
    assert None not in ids
    assert len(set(ids)) == len(ids) > 5


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.UNAVAILABLE])
async def test_a_lost_fifo_answer_is_asked_for_again(fault: Fault) -> None:
    """The same request with the same id brings the same message at once, though its group is locked (R8)."""
    source = WatchedSource("orders.fifo", visibility_timeout_seconds=600)
    source.faults.fail("receive", SourceError(fault, "Lost"), times=2, after=True)
    source.send("work", group_id="a")
    seen: list[str] = []
    async with Fleet(source).running(handler_of(0, seen)):
        await asyncio.sleep(10)
        assert len(seen) == 1
    first, second, third = (request for _, request in source.requests[:3])
    assert first == second == third
    assert source.requests[3][1].attempt_id != first.attempt_id


async def test_the_room_of_a_lost_fifo_answer_stays_reserved() -> None:
    """While the outcome of a receive is unknown, its messages may be ours: nobody else gets their room (R8)."""
    source = WatchedSource("orders.fifo")
    source.faults.fail("receive", SourceError(Fault.TIMEOUT, "Lost"), times=3, after=True)
    source.send("work", group_id="a")
    async with Fleet(source, concurrency=1).running(handler_of(5)) as consumer:
        await asyncio.sleep(0.001)
        while len(source.requests) < 4:
            assert consumer.slots.free == 0
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.DENIED, Fault.MISSING, Fault.EXPIRED])
async def test_a_refused_fifo_receive_gets_a_new_attempt_id(fault: Fault) -> None:
    """SQS has said no, so nothing was lost (R8)."""
    source = WatchedSource("orders.fifo")
    source.faults.fail("receive", SourceError(fault, "Refused"), times=1)
    async with Fleet(source).running(handler_of()):
        await asyncio.sleep(10)
    (_, first), (_, second) = source.requests[:2]
    assert first.attempt_id != second.attempt_id


async def test_a_draining_fifo_queue_asks_for_no_lost_answer() -> None:
    """Once told to stop, no receive is issued, not even one that would repeat another (R4, R8, D1)."""
    source = WatchedSource("orders.fifo")
    source.faults.fail("receive", SourceError(Fault.TIMEOUT, "Lost"), times=None)
    async with Fleet(source).running(handler_of()) as consumer:
        await source.asked_often(2)
        consumer.quiet(now() + 60)
        asked = len(source.requests)
        await asyncio.sleep(60)
        assert len(source.requests) == asked
