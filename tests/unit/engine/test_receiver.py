"""The receiver: no more than there is room for, no poll too many, no error too loud."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker.engine.receiver import QUICK_SECONDS, max_loops
from worker.message import Message, Received
from worker.source import MAX_BATCH, ReceiveRequest
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource

DOSE = 100_000 if os.environ.get("LONGSHORE_DOSE") == "full" else 10_000

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

    async def handler(_: Message[str]) -> None:
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

    async def handler(_: Message[str]) -> None:
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


# The same message twice (R9)


@pytest.mark.parametrize("same_response", [True, False])
async def test_a_message_that_comes_twice_runs_once_and_gives_its_extra_room_back(same_response: bool) -> None:  # noqa: FBT001
    """Two responses, or two places of one, name the same message: one run, one delete, no slot lost (R9)."""
    source = WatchedSource()
    rule = source.faults.double(times=30, same_response=same_response)
    send(source, 30)
    seen: list[str] = []
    async with Fleet(source, concurrency=7).running(handler_of(2, seen)) as consumer:
        await asyncio.sleep(20)
        assert len(seen) == len(set(seen)) == 30
        assert rule.hits == 30 or (same_response and rule.hits)  # a full response has no place for a second one
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


async def test_a_cap_over_queues_bounds_handlers_not_room() -> None:
    """A process-wide cap lets one handler run at a time; each queue receives into its own room all the same (R10)."""
    cap = asyncio.Semaphore(1)
    fleets = [Fleet(MemorySource(name), concurrency=3) for name in ("one", "two")]
    running = most = 0

    async def handler(_: Message[str]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(10)
        running -= 1

    for fleet in fleets:
        fleet.cap = cap
        send(fleet.source, 5)
    async with fleets[0].running(handler), fleets[1].running(handler):
        await asyncio.sleep(5)
        assert [fleet.source.in_flight for fleet in fleets] == [3, 3]
        await asyncio.sleep(200)
        assert all(fleet.source.is_empty for fleet in fleets)
    assert most == 1


async def test_short_polls_of_an_idle_queue_are_a_second_apart() -> None:
    """`wait_time_seconds: 0` is no reason to ask SQS without a pause (R2)."""
    source = MemorySource()
    async with Fleet(source, wait_time_seconds=0).running(handler_of()):
        await asyncio.sleep(60)
        assert 55 <= source.calls["receive"] <= 61
