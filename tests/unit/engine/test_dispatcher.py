"""The dispatcher: a message runs once at a time, and its slot always comes back."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from support.loop_time import now
from support.runs import Runs, Stubborn, deliver_again

from worker import Message
from worker.engine.consumer import Consumer
from worker.engine.verdict import Rules, Tries
from worker.message import Received
from worker.outcome import Fate, Retry
from worker.source import ReceiveRequest
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

LogLines = list[MutableMapping[str, Any]]


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
        source = MemorySource(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        runs = Runs(seconds=60)
        async with Fleet(source).running(runs) as consumer:
            await asyncio.sleep(10)
            deliver_again(source, message_id)
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
            assert (consumer.in_hand, consumer.slots.taken) == (1, 1)
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
            assert (consumer.in_hand, consumer.slots.taken) == (1, 1)
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

        async def handle(_: Message[Any]) -> Retry | None:
            starts.append(now())
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
                    ticker._stalled_at = now()  # we stood still meanwhile, so the lease counts from the sending
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
            def judge(self, happened: Fate, received: Received, tries: Tries, *, now_wall: float) -> Fate:
                raise ZeroDivisionError((happened, received, tries, now_wall))

        source = MemorySource()
        runs = Runs()

        async def fail_at_first(message: Message[Any]) -> Retry | None:
            await runs(message)
            return Retry(after=0) if message.receive_count == 1 else None

        async with Fleet(source, concurrency=2).running(fail_at_first) as consumer:
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
        assert settled == {"ack": 2, "retry": 2, "dead_letter": 1, "release": 0, "abandon": 0, "expired": 0}
