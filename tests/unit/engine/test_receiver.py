"""The receiver: no more than there is room for, no poll too many, no error too loud."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from worker.engine.receiver import BACKOFF_CAP_SECONDS, QUICK_SECONDS, max_loops
from worker.errors import Fault, SourceError
from worker.message import Message, Received
from worker.source import MAX_BATCH, ReceiveRequest
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource

DOSE = 100_000 if os.environ.get("LONGSHORE_DOSE") == "full" else 20_000

Handler = Callable[[Message[str]], Awaitable[None]]


class WatchedSource(MemorySource):
    """Notes every receive: when, what was asked for, how many were on the wire at once."""

    def __init__(self, queue: str = "orders", **options: Any) -> None:
        super().__init__(queue, **options)
        self.requests: list[tuple[float, ReceiveRequest]] = []
        self.on_wire: list[ReceiveRequest] = []
        self.max_on_wire = 0

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        self.requests.append((now(), request))
        self.on_wire = [*self.on_wire, request]
        self.max_on_wire = max(self.max_on_wire, len(self.on_wire))
        try:
            return await super().receive(request)
        finally:
            self.on_wire = [other for other in self.on_wire if other is not request]

    def asked_since(self, moment: float) -> list[tuple[float, ReceiveRequest]]:
        return [(at, request) for at, request in self.requests if at >= moment]


def now() -> float:
    return asyncio.get_running_loop().time()


def handler_of(seconds: float = 0.0, seen: list[str] | None = None) -> Handler:
    async def handler(message: Message[str]) -> None:
        if seen is not None:
            seen.append(message.id)
        await asyncio.sleep(seconds)

    return handler


def send(source: MemorySource, count: int) -> None:
    for number in range(count):
        source.send(f"message {number}")


# Room before every receive (R1)


async def test_a_single_slot_works_off_a_backlog_without_dead_letters() -> None:
    """Concurrency 1, a backlog, 3 receives allowed, 5 s of visibility: each received once, never two in flight (R1)."""
    source = MemorySource(visibility_timeout_seconds=5, max_receive_count=3)
    send(source, DOSE)
    handled = 0

    async def handler(message: Message[str]) -> None:
        nonlocal handled
        handled += 1
        await asyncio.sleep(12 if handled % 1000 == 0 else 0.5)  # now and then far longer than the visibility timeout

    await Fleet(source, concurrency=1, attempts=3, dead_letter={"max_receive_count": 3}).run(handler)
    assert source.dead_letters == []
    assert (handled, len(source.receives)) == (DOSE, DOSE)
    assert {len(times) for times in source.receives.values()} == {1}
    assert source.max_in_flight == 1


@pytest.mark.parametrize("concurrency", [1, 4, 10, 25])
async def test_nothing_is_received_beyond_the_room(concurrency: int) -> None:
    """A receive asks for `min(10, room)`, and what is in hand never exceeds the room (R1)."""
    source = WatchedSource()
    send(source, 300)
    fleet = Fleet(source, concurrency=concurrency)
    await fleet.run(handler_of(3))
    assert source.max_in_flight == concurrency
    assert max(request.limit for _, request in source.requests) == min(MAX_BATCH, concurrency)
    assert fleet.consumer is not None
    assert fleet.consumer.slots.free == concurrency


async def test_parallel_receives_share_the_room() -> None:
    """Receives on the wire at the same time never ask together for more than there is room (R1)."""
    asked: list[int] = []

    class CountingSource(WatchedSource):
        async def receive(self, request: ReceiveRequest) -> list[Received]:
            asked.append(request.limit + sum(other.limit for other in self.on_wire))
            return await super().receive(request)

    source = CountingSource()
    source.faults.slow("receive", 0.05)
    send(source, 500)
    await Fleet(source, concurrency=35).run(handler_of(0.2))
    assert source.max_on_wire > 1
    assert max(asked) <= 35


# Parallel receives adapt (R2)


async def test_an_idle_queue_costs_one_long_poll_at_a_time() -> None:
    """An hour without messages is 180 polls of 20 s, one after the other (R2)."""
    source = WatchedSource()
    await Fleet(source, concurrency=50).run(handler_of(), seconds=3590)
    assert (len(source.requests), source.max_on_wire) == (180, 1)
    assert {request.wait_seconds for _, request in source.requests} == {20}


async def test_a_backlog_opens_receives_and_its_end_closes_them() -> None:
    """Quick answers open one receive more each while there is room; empty ones close them, and one stays (R2)."""
    source = WatchedSource()
    source.faults.slow("receive", 0.1)
    send(source, 2000)
    seen: list[str] = []
    async with Fleet(source, concurrency=60).running(handler_of(0.5, seen)):
        await asyncio.sleep(60)
        assert len(seen) == 2000
        assert 3 <= source.max_on_wire <= max_loops(60)
        started = now()
        await asyncio.sleep(600)
        assert len(source.on_wire) == 1
        assert len(source.asked_since(started)) == pytest.approx(30, abs=1)


async def test_receives_that_come_back_empty_together_leave_one_that_goes_on() -> None:
    """Several loops that see the end of a backlog in the same moment must not all close: the queue would go deaf (R2, D2)."""
    source = WatchedSource()
    send(source, 60)
    seen: list[str] = []
    async with Fleet(source, concurrency=40).running(handler_of(0.01, seen)):
        await asyncio.sleep(60)
        assert (len(seen), source.max_on_wire) == (60, 4)
        assert len(source.on_wire) == 1
        source.send("a late one")
        await asyncio.sleep(1)
        assert len(seen) == 61


async def test_a_slow_answer_opens_no_second_receive() -> None:
    """A receive that took longer than 0.2 s has found no backlog that another one could help with (R2)."""
    source = WatchedSource()
    source.faults.slow("receive", QUICK_SECONDS + 0.05)
    send(source, 200)
    await Fleet(source, concurrency=100).run(handler_of(1))
    assert source.max_on_wire == 1


async def test_slots_that_free_one_by_one_are_filled_by_few_receives() -> None:
    """Ten handlers that end within 50 ms of one another are followed by one receive, not ten (R2)."""
    source = WatchedSource()
    send(source, 1000)
    started = 0

    async def handler(message: Message[str]) -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(0.2 + started % 10 * 0.004)

    await Fleet(source, concurrency=10).run(handler)
    assert source.calls["receive"] < 250


async def test_waiting_costs_no_cpu() -> None:
    """Idle or full, a queue only wakes for its polls, its beats and its survey: nothing is polled for (R2)."""
    loop = asyncio.get_running_loop()
    select, turns = loop._selector.select, 0  # type: ignore[attr-defined]

    def counted(timeout: float | None = None) -> Any:
        nonlocal turns
        turns += 1
        return select(timeout)

    loop._selector.select = counted  # type: ignore[attr-defined]
    source = MemorySource(visibility_timeout_seconds=300)
    async with Fleet(source, concurrency=2).running(handler_of(3000)):
        await asyncio.sleep(1000)
        idle, turns = turns, 0
        send(source, 10)
        await asyncio.sleep(1000)
        full, turns = turns, 0
        assert source.in_flight == 2
    assert idle < 600
    assert full < 600


# A slow handler costs its slot (R3)


async def throughput(slow: int, *, concurrency: int) -> float:
    """Return messages per second of 20 ms handlers while `slow` slots are held by one that runs for ten minutes."""
    source = MemorySource(visibility_timeout_seconds=30)
    done_at: list[float] = []

    async def handler(message: Message[str]) -> None:
        if message.body == "slow":
            await asyncio.sleep(600)
        else:
            await asyncio.sleep(0.02)
            done_at.append(now())

    async with Fleet(source, concurrency=concurrency).running(handler):
        for _ in range(slow):
            source.send("slow")
        await asyncio.sleep(10)
        started = now()
        send(source, 1000)
        await asyncio.sleep(120)
        assert len(done_at) == 1000
        assert source.in_flight == slow
    return 1000 / (done_at[-1] - started)


@pytest.mark.parametrize("concurrency", [2, 10, 20])
async def test_a_slow_handler_costs_its_own_slot_only(concurrency: int) -> None:
    """With one slot held for ten minutes, the others do their share of the work, and no receive waits for it (R3)."""
    share = (concurrency - 1) / concurrency
    assert await throughput(1, concurrency=concurrency) >= share * 0.9 * await throughput(0, concurrency=concurrency)


# Errors (R6)


async def test_an_outage_costs_few_calls_and_ends_with_it() -> None:
    """20 s of darkness cost a few receives; consumption goes on within 30 s of the light (R6)."""
    source = WatchedSource()
    source.faults.dark(100, 120)
    handled_at: list[float] = []

    async def handler(message: Message[str]) -> None:
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
        assert source.max_on_wire > 5
        source.faults.fail("receive", times=None)
        await asyncio.sleep(1)
        started = now()
        await asyncio.sleep(60)
        assert len(source.asked_since(started)) < 25
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
        assert min(later - earlier for earlier, later in zip(times, times[1:], strict=False)) >= 1
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


# What is asked (R8)


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
    await Fleet(source).run(handler_of())
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
        while len(source.requests) < 2:
            await asyncio.sleep(0.001)
        consumer.quiet(now() + 60)
        asked = len(source.requests)
        await asyncio.sleep(60)
        assert len(source.requests) == asked


# The same message twice (R9)


@pytest.mark.parametrize("same_response", [True, False])
async def test_a_message_that_comes_twice_runs_once_and_gives_its_extra_room_back(same_response: bool) -> None:  # noqa: FBT001
    """Two responses, or two places of one, name the same message: one run, one delete, no slot lost (R9)."""
    source = WatchedSource()
    rule = source.faults.double(times=None, same_response=same_response)
    send(source, 30)
    seen: list[str] = []
    async with Fleet(source, concurrency=7).running(handler_of(2, seen)) as consumer:
        await asyncio.sleep(20)
        assert len(seen) == len(set(seen)) == 30
        assert rule.hits >= 30
        rule.stop()
        await asyncio.sleep(60)
        assert (consumer.in_hand, consumer.slots.taken, source.is_empty) == (0, 0, True)
        assert consumer.slots.free == 0  # seven: all reserved by the one long poll
        assert source.requests[-1][1].limit == 7
    assert source.dead_letters == []


# Room is per queue (R10)


async def test_a_full_queue_takes_no_room_from_another() -> None:
    """Each queue has its own room: one whose handlers hang does not starve another (R10)."""
    full, other = MemorySource("full"), MemorySource("other")
    send(full, 50)
    seen: list[str] = []
    async with (
        Fleet(full, concurrency=3).running(handler_of(1000)),
        Fleet(other, concurrency=3).running(handler_of(0, seen)),
    ):
        await asyncio.sleep(10)
        send(other, 100)
        await asyncio.sleep(10)
        assert (full.in_flight, len(seen)) == (3, 100)
