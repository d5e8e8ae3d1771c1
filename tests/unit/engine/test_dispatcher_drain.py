"""The dispatcher's end: the drain waits for what is in hand, cutting short gives it back, and both come to an end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.loop_time import now
from support.runs import Runs, Stubborn

from worker import Message
from worker.engine.consumer import Consumer
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

CUT_SECONDS = 3.0
"""What the supervisor leaves for cutting short: the drain ends when it is over."""


def _room_is_back(consumer: Consumer) -> bool:
    return consumer.in_hand == 0 and consumer.slots.taken == 0 and consumer.slots.free == consumer.slots.size


class TestLeaving:
    async def test_leaving_waits_for_the_last_message_in_hand(self) -> None:
        """The drain lets handlers end and settles them (D1)."""
        source = MemorySource()
        source.send("{}")
        async with Fleet(source).running(Runs(seconds=100), drain_seconds=200) as consumer:
            await asyncio.sleep(1)
        assert source.is_empty
        assert 100 <= now() < 102
        assert _room_is_back(consumer)

    async def test_nothing_is_left_running_after_a_drain(self) -> None:
        """No task, no timer of ours outlives the consumer (D5)."""
        source = MemorySource()
        for number in range(50):
            source.send(str(number))
        await Fleet(source, concurrency=20).run(Runs())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_consumer_that_is_cancelled_twice_ends_its_handlers(self) -> None:
        """A first cancellation drains, a second one does not wait: no handler outlives its consumer (D5)."""
        source = MemorySource()
        source.send("{}")
        fleet = Fleet(source)
        async with _cancelled(fleet, Runs(seconds=100)) as task:
            await asyncio.sleep(1)
            assert not task.done()
            assert _tasks_of_messages()
            task.cancel()
            await asyncio.sleep(1)
            assert task.cancelled()
            assert not _tasks_of_messages()

    async def test_a_consumer_that_is_cancelled_starts_nothing_any_more(self) -> None:
        """What waited for its old run is dropped when that ends at last (R9, D5)."""
        source = MemorySource(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        failing = source.faults.fail("extend", times=None)
        runs = Stubborn(seconds=11)
        fleet = Fleet(source)
        async with _cancelled(fleet, runs, after=8) as task:
            failing.stop()
            await asyncio.sleep(2)
            task.cancel()
            await asyncio.sleep(2)
            assert len(runs.spans[message_id]) == 1
            assert fleet.consumer is not None
            assert (fleet.consumer.in_hand, fleet.consumer.slots.taken) == (0, 0)


@contextlib.asynccontextmanager
async def _cancelled(fleet: Fleet, handler: Any, *, after: float = 1.0) -> AsyncIterator["asyncio.Task[None]"]:
    """Run, cancel the consumer once, and yield its task."""
    running = fleet.running(handler)
    await running.__aenter__()
    await asyncio.sleep(after)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("consumer-")]
    task.cancel()
    yield task
    with contextlib.suppress(asyncio.CancelledError):  # it would hide what was found inside
        await running.__aexit__(None, None, None)


def _tasks_of_messages() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("message", "handler", "delete", "change", "beat"))]


async def _cut(fleet: Fleet, handler: Any, *, after: float = 5.0) -> tuple[Consumer, float]:
    """Run, cut short without a drain, and return how long that took."""
    async with fleet.running(handler, drain_seconds=0) as consumer:
        await asyncio.sleep(after)
        began = now()
    return consumer, now() - began


class TestCutShort:
    async def test_cancelled_work_goes_back_at_once(self) -> None:
        """At the end of the drain handlers are cancelled and their messages are visible for others (D1, S8)."""
        source = MemorySource()
        for number in range(20):
            source.send(str(number))
        consumer, seconds = await _cut(Fleet(source, concurrency=20), Runs(seconds=1000))
        assert (source.visible, source.in_flight) == (20, 0)
        assert seconds < 0.1
        assert _room_is_back(consumer)

    async def test_a_handler_that_ignores_its_cancellation_does_not_keep_its_message(self) -> None:
        """Its message is released last, and the consumer ends without it (D1)."""
        source = MemorySource()
        message_id = source.send("{}")
        runs = Stubborn(seconds=100)
        consumer, seconds = await _cut(Fleet(source), runs)
        assert seconds <= CUT_SECONDS
        assert (source.visible, source.in_flight) == (1, 0)
        assert consumer.in_hand == 1
        await asyncio.sleep(200)
        assert runs.spans[message_id] == [(0, 100)]
        assert consumer.in_hand == 0

    async def test_a_handler_whose_message_was_given_back_is_told_that_its_lease_is_lost(self) -> None:
        """`message.lease.is_lost`: someone else may hold the message by now (D1)."""
        source = MemorySource(visibility_timeout_seconds=600)
        source.send("{}")
        leases = []

        class Asking(Stubborn):
            async def work(self, message: Message[Any]) -> None:
                leases.append(message.lease)
                await super().work(message)

        await _cut(Fleet(source), Asking(seconds=100))
        assert [lease.is_lost for lease in leases] == [True]
        await asyncio.sleep(100)

    async def test_how_a_handler_ends_after_its_message_was_given_back_does_not_count(self) -> None:
        """Someone else may have the message by then: nothing more is settled with its handle (S8, L3)."""
        source = MemorySource()
        source.send("{}")
        await _cut(Fleet(source), Stubborn(seconds=100))
        calls = source.calls.copy()
        await asyncio.sleep(200)
        assert source.calls == calls

    async def test_a_stubborn_handler_at_its_last_receive_is_dead_lettered_with_its_reason(self) -> None:
        """At its last receive a message is never released (S4)."""
        source = MemorySource(max_receive_count=1)
        source.send("{}")
        await _cut(Fleet(source, attempts=1, dead_letter={"max_receive_count": 1}), Stubborn(seconds=100))
        assert [letter.arrived_by for letter in source.dead_letters] == ["copy"]
        assert source.is_empty
        await asyncio.sleep(100)

    @pytest.mark.parametrize("stubborn", [False, True])
    async def test_it_ends_in_time_although_sqs_does_not_answer(self, stubborn: bool) -> None:  # noqa: FBT001 - a parameter of a test
        """Giving back is bounded: the process ends when it must, and leases bring the messages back (D1)."""
        source = MemorySource()
        source.send("{}")
        async with Fleet(source).running((Stubborn if stubborn else Runs)(seconds=60), drain_seconds=0) as consumer:
            await asyncio.sleep(5)
            source.faults.hang("*", times=None)
            began = now()
        assert now() - began <= CUT_SECONDS
        del consumer
        await asyncio.sleep(60)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert (source.visible, source.in_flight) == (1, 0)

    async def test_a_delete_on_the_wire_is_given_time_and_then_given_up(self) -> None:
        """What ended well is never released; no call outlives the consumer (S8, D5)."""
        source = MemorySource()
        source.send("{}")
        source.faults.hang("delete", times=None)
        consumer, seconds = await _cut(Fleet(source), Runs())
        assert seconds <= CUT_SECONDS
        assert (source.visible, source.in_flight) == (0, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert _room_is_back(consumer)

    async def test_settlement_on_its_way_is_not_cut(self) -> None:
        """A delete that takes a second still comes through (S1, D1)."""
        source = MemorySource()
        source.send("{}")
        source.faults.slow("delete", 1)
        await _cut(Fleet(source), Runs(), after=1.5)
        assert source.is_empty

    async def test_a_receive_that_waits_for_its_old_run_is_given_back_and_not_started(self) -> None:
        """The newest receipt gives the message back; no new run begins at the end of a drain (R9, S8)."""
        source = MemorySource(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        failing = source.faults.fail("extend", times=None)
        runs = Stubborn(seconds=40)
        async with Fleet(source).running(runs, drain_seconds=0) as consumer:
            await asyncio.sleep(10)
            failing.stop()
            assert consumer.slots.taken == 1
        assert (source.visible, source.in_flight) == (1, 0)
        await asyncio.sleep(100)
        assert len(runs.spans[message_id]) == 1
        assert _room_is_back(consumer)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_receive_whose_old_run_ends_while_cutting_short_is_given_back_too(self) -> None:
        """A second signal long before the drain would end: nothing is begun any more (R9, S8)."""
        source = MemorySource(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        failing = source.faults.fail("extend", times=None)
        runs = Stubborn(seconds=11)
        async with Fleet(source).running(runs) as consumer:
            await asyncio.sleep(10)
            failing.stop()
            assert consumer.slots.taken == 1
            consumer.quiet(now() + 1000)
            await consumer.cut_short()
            assert (source.visible, source.in_flight) == (1, 0)
        assert len(runs.spans[message_id]) == 1
        assert _room_is_back(consumer)

    async def test_a_handler_that_ends_while_its_message_is_given_back_settles_nothing(self) -> None:
        """One message has one outcome: it was released (E1, S8)."""
        source = MemorySource()
        source.send("{}")
        source.faults.slow("extend", 0.9)
        consumer, _ = await _cut(Fleet(source), Stubborn(seconds=7))
        settled = consumer.context.metrics.snapshot()["settled"]
        assert {outcome: count for outcome, count in settled.items() if count} == {"release": 1}
        assert source.visible == 1

    async def test_cutting_an_idle_consumer_short_ends_it_at_once(self) -> None:
        consumer, seconds = await _cut(Fleet(MemorySource()), Runs())
        assert seconds < 0.2
        assert _room_is_back(consumer)

    async def test_batches_of_many_are_given_back(self) -> None:
        source = MemorySource()
        for number in range(200):
            source.send(str(number))

        await _cut(Fleet(source, concurrency=200), Runs(seconds=1000))
        assert (source.visible, source.in_flight) == (200, 0)
