"""The dispatcher: a message runs once at a time, its slot always comes back, and the drain has an end."""

import asyncio
import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker import Message
from worker.engine.consumer import Consumer
from worker.engine.verdict import Rules
from worker.message import Received
from worker.outcome import Fate, Retry
from worker.source import ReceiveRequest
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

LogLines = list[MutableMapping[str, Any]]
CUT_SECONDS = 3.0
"""What the supervisor leaves for cutting short: the drain ends when it is over."""


@pytest.fixture(autouse=True)
def lines() -> Iterator[LogLines]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured


class Runs:
    """A handler that notes its runs and never sees two of one message at once; it takes `seconds`."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.spans: dict[str, list[tuple[float, float | None]]] = {}
        self.running: set[str] = set()
        self.overlaps: list[str] = []

    @property
    def count(self) -> int:
        return sum(len(spans) for spans in self.spans.values())

    async def __call__(self, message: Message[Any]) -> None:
        if message.id in self.running:
            self.overlaps.append(message.id)
        self.running.add(message.id)
        spans = self.spans.setdefault(message.id, [])
        spans.append((_now(), None))
        try:
            await self.work(message)
        finally:
            self.running.discard(message.id)
            spans[-1] = (spans[-1][0], _now())

    async def work(self, message: Message[Any]) -> None:
        await asyncio.sleep(self.seconds)


class Stubborn(Runs):
    """A handler that ignores every cancellation until it is over."""

    async def work(self, message: Message[Any]) -> None:
        ends_at = _now() + self.seconds
        while _now() < ends_at:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(ends_at - _now())


class Redelivering(MemorySource):
    """A source whose messages can be made visible again, as if their visibility timeout had passed early."""

    def lapse(self, message_id: str) -> None:
        (stored,) = [stored for stored in self.stored() if stored.id == message_id]
        self.store.double_later(stored)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _room_is_back(consumer: Consumer) -> bool:
    return consumer.in_hand == 0 and consumer.slots.taken == 0 and consumer.slots.free == consumer.slots.size


class TestOneRunAtATime:
    async def test_a_message_twice_in_one_response_runs_once_and_the_extra_room_goes_back(self) -> None:
        """The newest receipt counts, the message is not started twice (R9)."""
        source = MemorySource()
        source.faults.double(same_response=True)
        message_id = source.send("{}")
        runs = Runs()
        fleet = Fleet(source, concurrency=2)
        async with fleet.running(runs) as consumer:
            await asyncio.sleep(0.5)
            assert (consumer.in_hand, consumer.slots.taken) == (1, 1)
        assert runs.count == 1
        assert len(source.receives[message_id]) == 2
        assert source.is_empty
        assert _room_is_back(consumer)

    async def test_a_message_that_comes_again_while_it_runs_is_not_started_twice(self) -> None:
        """The newest receive replaces the old, and its beats go on with the newest receipt (R9)."""
        source = Redelivering(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        runs = Runs(seconds=60)
        async with Fleet(source).running(runs) as consumer:
            await asyncio.sleep(10)
            source.lapse(message_id)
            await asyncio.sleep(10)
            assert (consumer.in_hand, consumer.slots.taken) == (1, 1)
            await asyncio.sleep(50)
            assert source.is_empty
        assert runs.count == 1
        assert len(source.receives[message_id]) == 2

    async def test_after_a_lost_lease_the_new_run_starts_when_the_old_one_has_ended(self) -> None:
        """Also a handler that ignores its cancellation never sees its message twice at once (R9, E3)."""
        source = MemorySource(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        failing = source.faults.fail("extend", times=None)
        runs = Stubborn(seconds=20)
        async with Fleet(source, concurrency=4).running(runs) as consumer:
            await asyncio.sleep(8)
            failing.stop()
            assert (consumer.in_hand, consumer.slots.taken) == (1, 2)
            await asyncio.sleep(60)
            assert source.is_empty
        assert runs.overlaps == []
        (first, second) = runs.spans[message_id]
        assert first[1] == second[0]

    async def test_a_waiting_receive_that_lost_its_lease_gives_way_to_a_newer_one(self) -> None:
        """However often it comes while the old run does not end, one receive waits and its lease holds (R9)."""
        source = MemorySource(visibility_timeout_seconds=6, max_receive_count=100)
        message_id = source.send("{}")
        failing = source.faults.fail("extend", times=None)
        runs = Stubborn(seconds=40)
        fleet = Fleet(source, concurrency=4)
        async with fleet.running(runs) as consumer:
            await asyncio.sleep(25)
            failing.stop()
            await asyncio.sleep(14)
            assert (consumer.in_hand, consumer.slots.taken) == (1, 2)
            await asyncio.sleep(60)
            assert source.is_empty
        assert len(source.receives[message_id]) > 2
        assert runs.overlaps == []
        assert runs.count == 2
        assert _room_is_back(consumer)

    async def test_a_message_that_comes_while_it_is_given_back_starts_when_that_is_done(self) -> None:
        """A receive between a visibility change and its answer is a new receive, not one to be swallowed (R9, S3)."""
        source = MemorySource()
        source.faults.slow("extend", 2, times=1, after=True)  # visible at once, confirmed two seconds later
        message_id = source.send("{}")
        starts = []

        async def handle(message: Message[Any]) -> Retry | None:
            starts.append(_now())
            return Retry(after=0) if len(starts) == 1 else None

        async with Fleet(source).running(handle) as consumer:
            await asyncio.sleep(5)
            assert source.is_empty
        assert starts == [pytest.approx(0, abs=0.1), pytest.approx(2, abs=0.1)]
        assert len(source.receives[message_id]) == 2
        assert _room_is_back(consumer)

    async def test_what_arrives_with_its_lease_already_over_is_not_started(self, lines: LogLines) -> None:
        """What is past its deadline when its response is read is not started, and its slot goes back (L1)."""

        class Late(MemorySource):
            async def receive(self, request: ReceiveRequest) -> list[Received]:
                messages = await super().receive(request)
                if messages and not self.receives_seen:
                    self.receives_seen = True
                    assert self.consumer is not None
                    ticker = self.consumer.context.ticker
                    await asyncio.sleep(7)
                    ticker._stalled_at = _now()  # we stood still meanwhile, so the lease counts from the sending
                return messages

            receives_seen = False
            consumer: Consumer | None = None

        source = Late(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        runs = Runs()
        async with Fleet(source).running(runs) as consumer:
            source.consumer = consumer
            await asyncio.sleep(60)
            assert source.is_empty
        assert runs.count == 1
        assert runs.spans[message_id][0][0] >= 7
        assert any(line["event"].startswith("not started") for line in lines)
        assert len(source.receives[message_id]) == 2
        assert _room_is_back(consumer)


class TestSlots:
    async def test_a_defect_of_ours_gives_the_slot_back_and_the_message_comes_again(self, lines: LogLines) -> None:
        """Whatever goes wrong inside, the message is not lost, the loop goes on, and it is logged (E1, S6)."""

        class Broken(Rules):
            def judge(self, happened: Fate, received: Received, *, attempts: int | None, now_wall: float) -> Fate:
                raise ZeroDivisionError((happened, received, attempts, now_wall))

        source = MemorySource()
        runs = Runs()
        async with Fleet(source, concurrency=2).running(runs) as consumer:
            await asyncio.sleep(1)
            rules, consumer.context.rules = consumer.context.rules, Broken(consumer.context.settings)
            for number in range(6):
                source.send(str(number))
            await asyncio.sleep(10)
            assert (consumer.in_hand, consumer.slots.taken) == (0, 0)
            consumer.context.rules = rules
            await asyncio.sleep(60)
            assert source.is_empty
        assert runs.count == 12
        assert any(line["event"].startswith("a defect") for line in lines)

    async def test_every_outcome_is_counted_once(self) -> None:
        source = MemorySource()
        for body in ("ack", "retry", "dead_letter"):
            source.send(body)
        failed: set[str] = set()

        async def handle(message: Message[Any]) -> None:
            if message.body == "dead_letter" or (message.body == "retry" and message.body not in failed):
                failed.add(message.body)
                raise RuntimeError(message.body)

        fleet = Fleet(source, attempts=2)
        await fleet.run(handle)
        assert fleet.consumer is not None
        settled = fleet.consumer.context.metrics.snapshot()["settled"]
        assert settled == {"ack": 2, "retry": 2, "dead_letter": 1, "release": 0, "abandon": 0}


class TestLeaving:
    async def test_leaving_waits_for_the_last_message_in_hand(self) -> None:
        """The drain lets handlers end and settles them (D1)."""
        source = MemorySource()
        source.send("{}")
        async with Fleet(source).running(Runs(seconds=100), drain_seconds=200) as consumer:
            await asyncio.sleep(1)
        assert source.is_empty
        assert 100 <= _now() < 102
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
        with contextlib.suppress(asyncio.CancelledError):
            async with Fleet(source).running(Runs(seconds=100)):
                await asyncio.sleep(1)
                (task,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("consumer-")]
                task.cancel()
                await asyncio.sleep(1)
                assert not task.done()
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
        with contextlib.suppress(asyncio.CancelledError):
            async with Fleet(source).running(runs) as consumer:
                await asyncio.sleep(8)
                failing.stop()
                await asyncio.sleep(2)
                (task,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("consumer-")]
                task.cancel()
                await asyncio.sleep(0.1)
                task.cancel()
                await asyncio.sleep(2)
                assert len(runs.spans[message_id]) == 1
                assert (consumer.in_hand, consumer.slots.taken) == (0, 0)


def _tasks_of_messages() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("message", "handler", "delete", "change", "beat"))]


async def _cut(fleet: Fleet, handler: Any, *, after: float = 5.0) -> tuple[Consumer, float]:
    """Run, cut short without a drain, and return how long that took."""
    async with fleet.running(handler, drain_seconds=0) as consumer:
        await asyncio.sleep(after)
        began = _now()
    return consumer, _now() - began


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
            began = _now()
        assert _now() - began <= CUT_SECONDS
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
            assert consumer.slots.taken == 2
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
            assert consumer.slots.taken == 2
            consumer.quiet(_now() + 1000)
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
