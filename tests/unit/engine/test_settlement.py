"""Settlement of finished work: deleted together, tried again, remembered; and only cancelled work is released."""

import asyncio
from collections.abc import Sequence
from typing import Any

from support.loop_time import now
from support.runs import Handled, deliver_again

from worker.errors import EntryError, Fault, SourceError
from worker.outcome import DeadLetter, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HOUR = 3600
THROTTLED = SourceError(Fault.THROTTLED, "Throttling")


class Deletes(MemorySource):
    """A source that notes its delete calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deletes: list[tuple[float, list[str]]] = []

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        self.deletes.append((now(), list(receipts)))
        return await super().delete(receipts)


class TestAck:
    async def test_a_message_is_deleted_only_after_its_handler_ended_well(self) -> None:
        """Ack: deleted only after the handler ended well (S1)."""
        source = Deletes()
        source.send("{}")
        handler = Handled(seconds=100)
        await Fleet(source).run(handler)
        assert [at for at, _ in source.deletes] == handler.ends
        assert source.is_empty

    async def test_a_failed_message_is_not_deleted(self) -> None:
        source = MemorySource()
        source.send("{}")
        await Fleet(source).run(Handled(Retry(after=600)), seconds=2)
        assert (source.calls["delete"], source.in_flight) == (0, 1)

    async def test_messages_that_end_together_are_deleted_ten_at_a_time(self) -> None:
        """Deletes go in batches of up to ten (S1)."""
        source = Deletes()
        for number in range(25):
            source.send(str(number))
        await Fleet(source, concurrency=50).run(Handled())
        assert sorted(len(receipts) for _, receipts in source.deletes) == [5, 10, 10]

    async def test_failed_entries_are_tried_again_and_their_neighbours_are_not(self) -> None:
        """Results are read per entry (S1)."""
        source = Deletes()
        source.faults.fail_entries("delete", times=2)
        for number in range(5):
            source.send(str(number))
        handler = Handled()
        await Fleet(source).run(handler)
        tried = [receipt for _, receipts in source.deletes for receipt in receipts]
        assert (len(tried), len(set(tried))) == (7, 5)
        assert len(handler.starts) == 5

    async def test_a_delete_is_tried_until_the_lease_ends(self) -> None:
        """The lease is kept while the delete fails, up to its cap; then its slot goes back (S1, L5)."""
        source = Deletes()
        source.faults.fail("delete", THROTTLED, times=None)
        source.send("{}")
        fleet = Fleet(source, max_lease_seconds=60)
        async with fleet.running(Handled()) as consumer:
            await asyncio.sleep(60)
            assert (consumer.in_hand, source.in_flight) == (1, 1)
            await asyncio.sleep(30)
            assert consumer.in_hand == 0
            first, last = source.deletes[0][0], source.deletes[-1][0]
            assert 60 <= last - first < 90
            assert len(source.deletes) > 10
            source.faults.clear()

    async def test_an_outage_within_the_lease_costs_nothing(self) -> None:
        """One run, one receive, although SQS was unreachable when the handler ended (S1)."""
        source = MemorySource()
        message_id = source.send("{}")
        source.faults.dark(0.5, 15)
        handler = Handled()
        await Fleet(source).run(handler)
        assert len(handler.starts) == 1
        assert len(source.receives[message_id]) == 1

    async def test_the_newest_receipt_deletes(self) -> None:
        """A message that is received again meanwhile is deleted with the newest handle: an old one deletes nothing (S2, R9)."""
        source = MemorySource()
        source.faults.double()
        message_id = source.send("{}")
        handler = Handled(seconds=5)
        await Fleet(source).run(handler)
        assert len(source.receives[message_id]) == 2
        assert len(handler.starts) == 1

    async def test_a_delete_that_is_being_retried_goes_on_with_the_newest_receipt(self) -> None:
        """The handle that counts when the delete finally works is the newest one (S1, R9)."""
        source = Deletes()
        failing = source.faults.fail("delete", times=None)
        message_id = source.send("{}")
        handler = Handled()
        async with Fleet(source).running(handler):
            await asyncio.sleep(3)
            deliver_again(source, message_id)
            await asyncio.sleep(3)
            failing.stop()
            await asyncio.sleep(6)
            assert source.is_empty
        assert len(source.receives[message_id]) == 2
        assert len(handler.starts) == 1
        assert source.deletes[0][1] != source.deletes[-1][1]

    async def test_a_message_received_again_while_its_delete_is_on_the_wire_is_deleted_once_more(self) -> None:
        """SQS confirms a stale handle and deletes nothing: only the newest confirmation counts (S2)."""
        source = Deletes()
        source.faults.slow("delete", 5, times=1)
        message_id = source.send("{}")
        handler = Handled()
        async with Fleet(source).running(handler):
            await asyncio.sleep(3)
            deliver_again(source, message_id)
            await asyncio.sleep(5)
            assert source.is_empty
        assert len(source.deletes) == 2
        assert len(handler.starts) == 1


class TestMemoryOfDone:
    async def test_done_work_that_could_not_be_deleted_is_deleted_and_not_run_when_it_comes_again(self) -> None:
        """The message id is remembered and the new handle deletes it (S2)."""
        source = MemorySource()
        message_id = source.send("{}")
        rules = [source.faults.fail("delete", times=None), source.faults.fail("extend", times=None)]
        handler = Handled()
        async with Fleet(source).running(handler) as consumer:
            await asyncio.sleep(60)
            assert consumer.in_hand == 0
            assert source.visible == 1
            for rule in rules:
                rule.stop()
            await asyncio.sleep(60)
            assert source.is_empty
        assert len(source.receives[message_id]) == 2
        assert len(handler.starts) == 1

    async def test_a_confirmation_after_the_lease_proves_nothing(self) -> None:
        """On AWS a stale handle is confirmed too, so the work stays remembered (S2, L3)."""
        source = MemorySource(visibility_timeout_seconds=10)
        source.send("{}")
        source.faults.slow("delete", 30, times=1)
        source.faults.fail("extend", times=None)
        handler = Handled()
        async with Fleet(source, concurrency=1).running(handler) as consumer:
            await asyncio.sleep(12)
            (stored,) = source.stored()
            assert stored.receive_count == 1
            source.store._hand_out(stored, 40, now())  # someone else receives it now
            await asyncio.sleep(20)
            assert source.in_flight == 1
            assert consumer.in_hand == 0
            source.faults.clear()
            await asyncio.sleep(60)
            assert source.is_empty
        assert len(handler.starts) == 1

    async def test_what_was_surely_deleted_is_forgotten(self) -> None:
        """The memory holds what is unsure only, so that it lasts (S2)."""
        source = MemorySource()
        for number in range(30):
            source.send(str(number))
        failing = [source.faults.fail("delete", times=None), source.faults.fail("extend", times=None)]
        fleet = Fleet(source)
        async with fleet.running(Handled(*[DeadLetter("sold out")] * 3)) as consumer:
            await asyncio.sleep(35)
            done = consumer._dispatcher._settlement.done
            assert len(done) == 10
            for rule in failing:
                rule.stop()
            await asyncio.sleep(100)
            assert source.is_empty
            assert len(done) == 0


class TestRelease:
    async def test_cancelled_work_is_visible_at_once(self) -> None:
        """At the end of the drain what was cancelled goes back with visibility 0 (S8)."""
        source = MemorySource()
        source.send("{}")
        async with Fleet(source).running(Handled(seconds=1000), drain_seconds=25):
            await asyncio.sleep(5)
        assert (source.visible, source.in_flight) == (1, 0)

    async def test_finished_work_is_never_released(self) -> None:
        """Work whose delete does not come through stays hidden until its lease ends (S8)."""
        source = MemorySource()
        source.faults.fail("delete", times=None)
        source.send("{}")
        async with Fleet(source).running(Handled(), drain_seconds=25):
            await asyncio.sleep(5)
        assert (source.visible, source.in_flight) == (0, 1)

    async def test_at_its_last_receive_a_cancelled_message_is_copied_with_its_reason(self) -> None:
        """SQS would move it without one: `returned too often` (S4, S8)."""
        source = MemorySource(max_receive_count=1)
        source.send("{}")
        fleet = Fleet(source, attempts=1, dead_letter={"max_receive_count": 1})
        async with fleet.running(Handled(seconds=1000), drain_seconds=25):
            await asyncio.sleep(5)
        (letter,) = source.dead_letters
        assert letter.arrived_by == "copy"
        assert "returned too often" in str(letter.attributes["longshore.dead_letter"].value)
        assert source.is_empty
