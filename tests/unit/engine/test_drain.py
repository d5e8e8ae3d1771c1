"""The drain: nothing new is received, nothing that was received is stranded, nothing is left behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker.engine.consumer import Consumer
from worker.engine.receiver import Receiver
from worker.engine.slots import Slot
from worker.errors import Fault, SourceError
from worker.fleet.supervisor import CUT_SECONDS
from worker.message import Message, Received
from worker.outcome import Retry
from worker.router import Router
from worker.source import ReceiveRequest
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource


class WatchedSource(MemorySource):
    """Notes how each receive ended."""

    def __init__(self, queue: str = "orders", **options: Any) -> None:
        super().__init__(queue, **options)
        self.ends: list[str] = []

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        try:
            batch = await super().receive(request)
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        self.ends.append("answered")
        return batch


def now() -> float:
    return asyncio.get_running_loop().time()


def handler_of(seconds: float, done: list[str] | None = None) -> Callable[[Message[str]], Awaitable[None]]:
    async def handler(message: Message[str]) -> None:
        await asyncio.sleep(seconds)
        if done is not None:
            done.append(message.body)

    return handler


def send(source: MemorySource, count: int) -> None:
    for number in range(count):
        source.send(str(number))


def given_up(consumer: Consumer) -> float:
    return consumer.context.metrics._receives_given_up.value


# The receive on the wire (R4)


async def test_a_receive_on_the_wire_ends_by_itself() -> None:
    """Told to drain, the long poll is waited for, not cancelled, and no other one follows (R4)."""
    source = WatchedSource()
    async with Fleet(source).running(handler_of(0)) as consumer:
        await asyncio.sleep(5)
        consumer.quiet(now() + 60)
    assert now() == pytest.approx(20, abs=0.01)
    assert source.ends == ["answered"]
    assert given_up(consumer) == 0


async def test_parallel_receives_on_the_wire_all_end_by_themselves() -> None:
    """Every one of them may have been given messages already (R4)."""
    source = WatchedSource()
    source.faults.slow("receive", 0.1)
    send(source, 2000)
    done: list[str] = []
    async with Fleet(source, concurrency=100).running(handler_of(0.3, done)) as consumer:
        await asyncio.sleep(1)
        while source.calls["receive"] - len(source.ends) < 2:  # noqa: ASYNC110  # a moment of many receives
            await asyncio.sleep(0.01)
        receives = source.calls["receive"]
        consumer.quiet(now() + 60)
    assert source.calls["receive"] == receives == len(source.ends)
    assert set(source.ends) == {"answered"}
    assert (source.in_flight, len(done)) == (0, len(source.receives))


async def test_the_message_of_a_late_receive_is_run_when_it_fits() -> None:
    """What the last poll brings is run if its handler can be expected to end in time: no receive is spent in vain (D1)."""
    source = WatchedSource()
    done: list[str] = []
    async with Fleet(source).running(handler_of(2, done)) as consumer:
        await asyncio.sleep(1)
        consumer.quiet(now() + 30)
        await asyncio.sleep(10)
        source.send("late")
    assert (done, source.is_empty) == (["late"], True)
    assert now() == pytest.approx(13, abs=0.01)


async def test_the_message_of_a_late_receive_goes_back_when_it_does_not_fit() -> None:
    """A handler that would be cut is not started; its message is visible to others within five seconds (D1, S8)."""
    source = WatchedSource(visibility_timeout_seconds=300)
    done: list[str] = []
    send(source, 1)
    async with Fleet(source).running(handler_of(30, done), drain_seconds=15):
        await asyncio.sleep(45)
        asyncio.get_running_loop().call_later(5, source.send, "late")
    assert done == ["0"]
    assert now() == pytest.approx(50, abs=0.1)
    await asyncio.sleep(5.1)
    assert source.visible == 1


async def test_a_late_message_at_its_last_receive_is_run_all_the_same() -> None:
    """Giving it back would let SQS dead-letter what never failed (D1, S4)."""
    source = WatchedSource(max_receive_count=3)
    send(source, 1)
    done: list[str] = []

    async def handler(message: Message[str]) -> None:
        await asyncio.sleep(30 if message.receive_count == 1 else 1)
        done.append(message.body)

    def send_late() -> None:
        source.send("late")
        source.stored()[-1].receive_count = 2

    async with Fleet(source, dead_letter={"max_receive_count": 3}).running(handler, drain_seconds=15):
        await asyncio.sleep(45)  # now it is known how long the handler takes
        asyncio.get_running_loop().call_later(5, send_late)
    assert done == ["0", "late"]
    assert (source.is_empty, source.dead_letters) == (True, [])


# Nothing new, everything old (D1)


async def test_handlers_go_on_and_keep_their_leases() -> None:
    """What is in hand is finished, however many visibility timeouts that takes (D1, L2)."""
    source = MemorySource(visibility_timeout_seconds=5)
    send(source, 20)
    done: list[str] = []
    async with Fleet(source, concurrency=4).running(handler_of(60, done)) as consumer:
        await asyncio.sleep(1)
        consumer.quiet(now() + 3600)
    assert (len(done), len(source.receives), source.visible) == (4, 4, 16)
    assert {len(times) for times in source.receives.values()} == {1}


@pytest.mark.parametrize("operation", ["receive", "*"])
async def test_a_drain_does_not_wait_for_an_outage_to_end(operation: Any) -> None:
    """A loop that backs off, or that waits to be restarted, ends at once (D1)."""
    source = MemorySource()
    source.faults.fail(operation, times=None)
    async with Fleet(source).running(handler_of(0)):
        await asyncio.sleep(300)
        started = now()
    assert now() - started < 0.1


async def test_a_drain_does_not_wait_for_a_missing_queue() -> None:
    """Nothing can come from it (D1)."""
    source = MemorySource()
    source.exists = False
    async with Fleet(source).running(handler_of(0)):
        await asyncio.sleep(300)
        started = now()
    assert now() - started < 0.1


async def test_a_full_queue_drains_when_its_handlers_end() -> None:
    """A loop that waits for room ends at once: only the handlers are waited for (D1)."""
    source = MemorySource()
    send(source, 100)
    async with Fleet(source, concurrency=3).running(handler_of(10)) as consumer:
        await asyncio.sleep(5)
        consumer.quiet(now() + 60)
        await asyncio.sleep(0.001)
        assert consumer._receiver._loops == set()
    assert now() == pytest.approx(10, abs=0.1)
    assert len(source.receives) == 3


async def test_a_consumer_that_drains_before_it_starts_receives_nothing() -> None:
    """SIGTERM may come before the first receive (D1)."""
    source = MemorySource()
    send(source, 3)
    async with Fleet(source).running(handler_of(0)) as consumer:
        consumer.quiet(now() + 60)
    assert (source.calls["receive"], now()) == (0, 0)


# The end of the drain (R4, D1)


async def test_the_end_of_the_drain_gives_up_the_receive_and_counts_it() -> None:
    """Only then is a receive cancelled, and the metric says that SQS may still hand it messages (R4)."""
    source = WatchedSource()
    async with Fleet(source).running(handler_of(0)) as consumer:
        await asyncio.sleep(5)
        consumer.quiet(now() + 2)
        await asyncio.sleep(2)
        assert given_up(consumer) == 0
        await consumer.cut_short()
        assert given_up(consumer) == 1
        ended = now()
    assert now() - ended < 0.1
    assert source.ends == ["cancelled"]


async def test_a_loop_that_backs_off_has_no_receive_to_give_up() -> None:
    """The number says how many messages may be hidden for a visibility timeout: loops without a call do not count (R4)."""
    source = MemorySource()
    source.faults.fail("receive", SourceError(Fault.DENIED, "AccessDenied"), times=None)
    async with Fleet(source).running(handler_of(0)) as consumer:
        await asyncio.sleep(100.5)
        await consumer.cut_short()
        assert given_up(consumer) == 0


async def test_the_end_of_the_drain_gives_messages_back() -> None:
    """Handlers that still run are cancelled and their messages are visible to others at once (D1, S8)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 5)
    async with Fleet(source, concurrency=5).running(handler_of(1000), drain_seconds=10) as consumer:
        await asyncio.sleep(1)
    assert (source.visible, source.in_flight, consumer.in_hand, consumer.slots.taken) == (5, 0, 0, 0)
    assert now() < 1 + 10 + CUT_SECONDS


@pytest.mark.parametrize("what_hangs", ["receive", "delete", "extend", "*"])
async def test_the_end_of_the_drain_waits_for_no_call(what_hangs: Any) -> None:
    """Whatever AWS does not answer, the consumer has ended three seconds after it was cut short (D1)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 20)
    async with Fleet(source, concurrency=10).running(handler_of(8)) as consumer:
        await asyncio.sleep(7)
        source.faults.hang(what_hangs, times=None)
        await asyncio.sleep(4)
        consumer.quiet(now() + 1)
        await asyncio.sleep(1)
        started = now()
        await consumer.cut_short()
    assert now() - started <= CUT_SECONDS


async def test_the_end_of_the_drain_waits_for_no_stubborn_handler() -> None:
    """A handler that ignores its cancellation is left behind; its message is given back without it (D1)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 2)
    may_end = asyncio.Event()

    async def stubborn(_: Message[str]) -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async with Fleet(source, concurrency=2).running(stubborn, drain_seconds=5):
        await asyncio.sleep(1)
    assert now() <= 1 + 5 + CUT_SECONDS
    assert (source.visible, source.in_flight) == (2, 0)
    may_end.set()
    await asyncio.sleep(1)


# Nothing leaks (D5)


def count(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


async def lives(fleet: Fleet, source: MemorySource, *, drain_seconds: float) -> Consumer:
    """Start, work, and stop once."""
    send(source, 5)
    async with fleet.running(handler_of(0.2), drain_seconds=drain_seconds) as consumer:
        await asyncio.sleep(0.3)
    return consumer


@pytest.mark.parametrize("drain_seconds", [3600.0, 0.05])
async def test_starting_and_stopping_many_times_returns_to_the_baseline(drain_seconds: float) -> None:
    """Tasks, pulses, slots, waiters, parked polls and memory are what they were before, drained or cut short (D5)."""
    source = MemorySource(visibility_timeout_seconds=30)
    fleet = Fleet(source, concurrency=3)
    await lives(fleet, source, drain_seconds=drain_seconds)
    await asyncio.sleep(60)
    tasks, slots, receivers = asyncio.all_tasks(), count(Slot), count(Receiver)
    for _ in range(150):
        consumer = await lives(fleet, source, drain_seconds=drain_seconds)
        assert asyncio.all_tasks() == tasks
        assert consumer.context.vitals.pulses == []
        assert (consumer.slots.free, consumer.slots.taken, consumer.in_hand) == (3, 0, 0)
        assert not consumer.slots._waiters
    await asyncio.sleep(60)
    assert (count(Slot), count(Receiver)) == (slots, receivers)
    assert fleet.fatal == []


async def test_a_consumer_that_is_cancelled_leaves_no_task_behind() -> None:
    """Whoever cancels a consumer from outside ends all of it (D5)."""
    source = MemorySource()
    async with Fleet(source).running(handler_of(0)) as consumer:
        await asyncio.sleep(1)
        before = asyncio.all_tasks()
        task = asyncio.create_task(Consumer(consumer.context, Router()).run())
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) > len(before) + 1
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_a_long_run_leaves_nothing_behind() -> None:
    """Hours of bursts, outages, slow answers and failures end with all room free and one loop (D5, R1)."""
    source = MemorySource(visibility_timeout_seconds=10)
    source.faults.fail("*", probability=0.02, times=None)
    source.faults.slow("*", 0.15, probability=0.3)
    source.faults.lose_answer("delete", times=50)

    async def handler(message: Message[str]) -> Retry | None:
        number = int(message.body)
        await asyncio.sleep(number % 7 / 2)
        return Retry(reason="not yet") if number % 50 == 0 and message.receive_count == 1 else None

    async with Fleet(source, concurrency=45, retry={"base_seconds": 1}).running(handler) as consumer:
        for hour in range(4):
            send(source, 300)
            source.faults.dark(now() + 5, now() + 5 + 20 * hour)
            await asyncio.sleep(1200)
        source.faults.clear()
        await asyncio.sleep(300)
        assert (source.is_empty, source.dead_letters) == (True, [])
        assert (consumer.in_hand, consumer.slots.taken, len(consumer.keeper)) == (0, 0, 0)
        assert [pulse.name.split("-")[0] for pulse in consumer.context.vitals.pulses if "receive" in pulse.name] == [
            "receive"
        ]
        assert consumer.slots.free == 45 - 10  # the rest is reserved by the one long poll
    assert consumer.slots.free == 45
