"""What SQS refuses: no error ends a loop, is too loud, or is asked about too often."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from worker.engine.receiver import BACKOFF_CAP_SECONDS
from worker.errors import Fault, SourceError
from worker.message import Message, Received
from worker.source import ReceiveRequest
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource


class WatchedSource(MemorySource):
    """Notes every receive: when, what was asked for, which are on the wire."""

    def __init__(self, queue: str = "orders", **options: Any) -> None:
        super().__init__(queue, **options)
        self.requests: list[tuple[float, ReceiveRequest]] = []
        self.on_wire: list[ReceiveRequest] = []

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        self.requests.append((now(), request))
        self.on_wire.append(request)
        try:
            return await super().receive(request)
        finally:
            self.on_wire.remove(request)


def now() -> float:
    return asyncio.get_running_loop().time()


def handler_of(seconds: float = 0.0, seen: list[str] | None = None) -> Callable[[Message[str]], Awaitable[None]]:
    async def handler(message: Message[str]) -> None:
        if seen is not None:
            seen.append(message.id)
        await asyncio.sleep(seconds)

    return handler


def send(source: MemorySource, count: int) -> None:
    for number in range(count):
        source.send(f"message {number}")


async def test_an_outage_costs_few_calls_and_ends_with_it() -> None:
    """20 s of darkness cost a few receives; consumption goes on within 30 s of the light (R6)."""
    source = WatchedSource()
    source.faults.dark(100, 120)
    handled_at: list[float] = []

    async def handler(_: Message[str]) -> None:
        handled_at.append(now())

    async with Fleet(source, concurrency=100).running(handler):
        await asyncio.sleep(95)
        send(source, 1)
        await asyncio.sleep(1)
        send(source, 1)  # wakes the poll, so that the next ones meet the darkness
        await asyncio.sleep(14)
        source.send("sent in the dark")
        await asyncio.sleep(60)
        assert len(handled_at) == 3
        assert handled_at[-1] <= 150
    assert len([at for at, _ in source.requests if 100 <= at < 120]) <= 20


async def test_receives_that_fail_together_leave_one_that_tries() -> None:
    """When an outage meets many loops, all but one close at once: one queue means one caller that backs off (R6)."""
    source = WatchedSource()
    source.faults.slow("receive", 0.1)
    send(source, 10_000)
    async with Fleet(source, concurrency=100).running(handler_of(0.2)):
        await asyncio.sleep(10)
        assert len(source.requests) > 60
        source.faults.fail("receive", times=None)
        await asyncio.sleep(1)
        started = now()
        await asyncio.sleep(60)
        assert len([at for at, _ in source.requests if at >= started]) < 25
        source.faults.clear()
        await asyncio.sleep(60)
        assert source.is_empty


@pytest.mark.parametrize("fault", list(Fault))
async def test_no_error_ends_a_loop(fault: Fault) -> None:
    """Whatever SQS answers to a receive, the next one is made (R6)."""
    source = MemorySource()
    source.faults.fail("receive", SourceError(fault, "SomeCode"), times=5)
    source.send("work")
    seen: list[str] = []
    async with Fleet(source).running(handler_of(0, seen)) as consumer:
        await asyncio.sleep(5 * BACKOFF_CAP_SECONDS)
        assert len(seen) == 1
        assert consumer.context.vitals.problems == {}
    assert consumer.context.metrics.snapshot()["receive_errors"][fault] == 5


async def test_many_receives_that_fail_in_one_blip_are_one_failure() -> None:
    """A blip that meets many receives at once is no reason to be not ready (R6, D3)."""
    source = WatchedSource()
    source.faults.slow("receive", 0.15)
    send(source, 3000)
    async with Fleet(source, concurrency=160).running(handler_of(0.2)) as consumer:
        while len(source.on_wire) < 4:  # noqa: ASYNC110  # a moment of many receives
            await asyncio.sleep(0.001)
        rule = source.faults.fail("receive", times=len(source.on_wire), after=True)
        while rule.times:
            await asyncio.sleep(0.001)
            assert consumer.context.vitals.problems == {}
        await asyncio.sleep(0.001)
        assert rule.hits >= 4
        assert consumer.context.vitals.problems == {}


async def test_passing_errors_are_named_when_they_last() -> None:
    """A blip changes nothing; what fails three times in a row makes the queue not ready, and a success ready again (R6)."""
    source = MemorySource()
    async with Fleet(source).running(handler_of()) as consumer:
        problems = consumer.context.vitals.problems
        await asyncio.sleep(30)
        source.faults.fail("receive", times=2)
        await asyncio.sleep(15)
        assert problems == {}
        await asyncio.sleep(100)
        rule = source.faults.fail("receive", times=None)
        await asyncio.sleep(120)
        assert problems["receive"].startswith("receiving fails, ")
        assert "ServiceUnavailable" in problems["receive"]
        rule.stop()
        await asyncio.sleep(30)
        assert problems == {}


@pytest.mark.parametrize("fault", [Fault.MISSING, Fault.DENIED])
async def test_what_a_person_must_mend_is_asked_for_at_most_once_a_second(fault: Fault) -> None:
    """A missing queue or denied access is named at once, asked for at most once a second, and heals by itself (R6)."""
    source = WatchedSource()
    rule = source.faults.fail("receive", SourceError(fault, "TheCode"), times=None)
    source.send("work")
    seen: list[str] = []
    async with Fleet(source, concurrency=50).running(handler_of(0, seen)) as consumer:
        await asyncio.sleep(0.5)
        assert "TheCode" in consumer.context.vitals.problems["receive"]
        await asyncio.sleep(600)
        times = [at for at, _ in source.requests]
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.999
        assert len(times) < 120
        rule.stop()
        await asyncio.sleep(BACKOFF_CAP_SECONDS + 1)
        assert (len(seen), consumer.context.vitals.problems) == (1, {})


async def test_a_missing_queue_is_named_and_heals() -> None:
    """Without its queue a consumer runs, is not ready, says what to do, and starts once the queue is there (R6)."""
    source = MemorySource()
    source.exists = False
    seen: list[str] = []
    async with Fleet(source).running(handler_of(0, seen)) as consumer:
        await asyncio.sleep(300)
        vitals = consumer.context.vitals
        assert not vitals.is_reached
        assert "does not exist" in vitals.problems["receive"]
        assert "create it" in vitals.problems["receive"]
        source.exists = True
        source.send("work")
        await asyncio.sleep(40)
        assert (len(seen), vitals.problems, vitals.is_reached) == (1, {}, True)


async def test_an_error_that_lasts_is_logged_once_a_minute() -> None:
    """Half an hour of errors is a line a minute with a count, and one line when it works again (R6)."""
    source = MemorySource()
    rule = source.faults.fail("receive", times=None)
    with structlog.testing.capture_logs() as lines:
        async with Fleet(source).running(handler_of()):
            await asyncio.sleep(1800)
            rule.stop()
            await asyncio.sleep(60)
    fails = [line for line in lines if line["event"] == "receive fails"]
    assert 20 <= len(fails) <= 31
    assert sum(line["count"] for line in fails) == pytest.approx(rule.hits, abs=10)
    assert [line["failures"] for line in lines if line["event"] == "receive works again"] == [rule.hits]
