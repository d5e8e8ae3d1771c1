"""Settlement: the fate of a message becomes SQS calls, retried while its lease holds, and failures stop intake."""

import asyncio
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker import Message, TransientError
from worker.engine.consumer import Consumer
from worker.errors import EntryError, Fault, SourceError
from worker.outcome import Ack, DeadLetter, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HOUR = 3600
LogLines = list[MutableMapping[str, Any]]
THROTTLED = SourceError(Fault.THROTTLED, "Throttling")


@pytest.fixture(autouse=True)
def lines() -> Iterator[LogLines]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured


class Handled:
    """A handler that takes `seconds`, then returns the next of its outcomes, `Ack` when there are none left."""

    def __init__(self, *outcomes: Ack | Retry | DeadLetter | Exception, seconds: float = 1.0) -> None:
        self._outcomes = list(outcomes)
        self._seconds = seconds
        self.starts: list[tuple[float, str]] = []
        self.ends: list[float] = []

    @property
    def bodies(self) -> list[str]:
        return [body for _, body in self.starts]

    async def __call__(self, message: Message[Any]) -> Ack | Retry | DeadLetter:
        self.starts.append((_now(), message.body))
        await asyncio.sleep(self._seconds)
        self.ends.append(_now())
        outcome = self._outcomes.pop(0) if self._outcomes else Ack()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Deletes(MemorySource):
    """A source that notes its delete calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deletes: list[tuple[float, list[str]]] = []

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        self.deletes.append((_now(), list(receipts)))
        return await super().delete(receipts)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _gaps(source: MemorySource, message_id: str) -> list[float]:
    return [later - earlier for earlier, later in pairwise(source.receives[message_id])]


def _problem(consumer: Consumer) -> str | None:
    return consumer.context.vitals.problems.get("settlement")


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
        assert _gaps(source, message_id) == []

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
            source.store.double_later(_stored(source, message_id))
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
            source.store.double_later(_stored(source, message_id))
            await asyncio.sleep(5)
            assert source.is_empty
        assert len(source.deletes) == 2
        assert len(handler.starts) == 1


def _stored(source: MemorySource, message_id: str) -> Any:
    (stored,) = [stored for stored in source.stored() if stored.id == message_id]
    return stored


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
        message_id = source.send("{}")
        source.faults.slow("delete", 30, times=1)
        source.faults.fail("extend", times=None)
        handler = Handled()
        async with Fleet(source, concurrency=1).running(handler) as consumer:
            await asyncio.sleep(12)
            another = source.another()
            stored = _stored(source, message_id)
            assert stored.receive_count == 1
            source.store._hand_out(stored, 40, _now())  # someone else receives it now
            await asyncio.sleep(20)
            assert source.in_flight == 1
            assert consumer.in_hand == 0
            source.faults.clear()
            await asyncio.sleep(60)
            assert source.is_empty
            await another.close()
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


class TestRetry:
    async def test_a_retry_changes_the_visibility_and_sends_nothing(self) -> None:
        """Retry: by visibility only, never by sending a copy (S3)."""
        source = MemorySource()
        message_id = source.send("{}")
        await Fleet(source).run(Handled(Retry(after=7)))
        assert source.store.sent == 1
        assert len(source.receives[message_id]) == 2

    @pytest.mark.parametrize("outcome", [Retry(after=77), TransientError("busy", retry_after=77)])
    async def test_the_handlers_own_delay_is_kept_to_the_second(self, outcome: Retry | TransientError) -> None:
        """`retry_after` counts from the failure, whatever the visibility timeout is (S3)."""
        source = MemorySource()
        source.send("{}")
        handler = Handled(outcome, seconds=50)
        await Fleet(source).run(handler)
        assert handler.starts[1][0] - handler.ends[0] == pytest.approx(77, abs=0.1)

    async def test_failures_come_back_with_growing_delays_never_under_half(self) -> None:
        """Exponential on receive count with equal jitter, base 5 s (S3)."""
        source = MemorySource()
        source.send("{}")
        handler = Handled(*[RuntimeError("busy")] * 4)
        await Fleet(source, attempts=5).run(handler)
        for start, end, ceiling in zip(handler.starts[1:], handler.ends, [5, 10, 20, 40], strict=False):
            assert ceiling / 2 <= start[0] - end <= ceiling + 1.1

    async def test_no_delay_passes_the_twelve_hours_that_sqs_grants_from_the_receive(self) -> None:
        """A handler that ran for half an hour and asks for twelve hours gets what is left (S3, L5)."""
        source = MemorySource()
        message_id = source.send("{}")
        await Fleet(source).run(Handled(Retry(after=12 * HOUR), seconds=1800), seconds=12 * HOUR + 1860)
        (gap,) = _gaps(source, message_id)
        assert 12 * HOUR - 60 <= gap <= 12 * HOUR

    async def test_a_change_that_is_retried_for_long_still_stays_within_the_twelve_hours(self) -> None:
        """What is left is reckoned anew with each try, or SQS would refuse the last one (S3)."""
        source = MemorySource(visibility_timeout_seconds=120)
        message_id = source.send("{}")
        async with Fleet(source).running(Handled(Retry(after=12 * HOUR))):
            await asyncio.sleep(0.5)
            failing = source.faults.fail("extend", times=None)
            await asyncio.sleep(60)
            failing.stop()
            await asyncio.sleep(12 * HOUR - 120)
            assert source.in_flight == 1
            await asyncio.sleep(120)
        (gap,) = _gaps(source, message_id)
        assert 12 * HOUR - 60 <= gap <= 12 * HOUR

    async def test_a_refused_change_is_tried_again_within_the_lease(self) -> None:
        source = MemorySource()
        source.send("{}")
        source.faults.fail_entries("extend", times=3)
        handler = Handled(Retry(after=100))
        await Fleet(source).run(handler)
        assert 100 <= handler.starts[1][0] - handler.ends[0] < 102

    async def test_a_late_beat_does_not_overwrite_the_delay(self) -> None:
        """A visibility change waits for the beat of its own message (L4)."""
        source = MemorySource(visibility_timeout_seconds=30)
        source.send("{}")
        source.faults.slow("extend", 4, times=1, after=False)
        handler = Handled(Retry(after=300), seconds=11)  # it fails while the first beat is on the wire
        await Fleet(source).run(handler)
        assert 300 <= handler.starts[1][0] - handler.ends[0] < 306

    async def test_a_retry_whose_lease_was_lost_is_left_alone(self) -> None:
        """Nothing is settled with a handle that may be someone else's (L3)."""
        source = MemorySource(visibility_timeout_seconds=10)
        message_id = source.send("{}")
        source.faults.fail("extend", times=None)
        handler = Handled(Retry(after=600), seconds=9)
        fleet = Fleet(source)
        await fleet.run(handler, seconds=15)
        assert _gaps(source, message_id) == [pytest.approx(10)]

    async def test_a_lease_that_ends_while_the_beat_is_waited_for_settles_nothing(self) -> None:
        """The beat did not come back in time: whatever is sent now may hit someone else's receive (L3, L4)."""
        source = MemorySource(visibility_timeout_seconds=6)
        source.send("{}")
        source.faults.hang("extend", 10, times=1)
        async with Fleet(source).running(Handled(Retry(after=600), seconds=5.3)):
            await asyncio.sleep(5.9)
            assert source.calls["extend"] == 1

    async def test_a_message_received_again_while_its_beat_is_waited_for_is_not_given_back_with_the_old_handle(
        self,
    ) -> None:
        """The newer receive takes over and is run: nothing is done with a stale handle (R9, L4)."""
        source = MemorySource(visibility_timeout_seconds=30)
        message_id = source.send("{}")
        source.faults.slow("extend", 4, times=1)
        handler = Handled(Retry(after=600), seconds=11)
        async with Fleet(source).running(handler):
            await asyncio.sleep(12)
            source.store.double_later(_stored(source, message_id))
            await asyncio.sleep(30)
            assert source.is_empty
        assert len(handler.starts) == 2
        assert source.calls["extend"] == 2  # the beat of each run


class TestAttempts:
    async def test_receives_that_never_ran_do_not_dead_letter(self) -> None:
        """Receives whose answers were lost count for SQS, not as attempts: the work then succeeds (S4)."""
        source = MemorySource()
        message_id = source.send("{}")
        losing = source.faults.lose_answer("receive", times=None)
        async with Fleet(source, attempts=1).running(Handled()):
            await asyncio.sleep(140)
            losing.stop()
            await asyncio.sleep(60)
            assert source.is_empty
        assert len(source.receives[message_id]) >= 4
        assert source.dead_letters == []

    async def test_lapses_do_not_dead_letter(self) -> None:
        """A lease that was lost is no failed attempt, however often it happens (S4)."""
        source = MemorySource(visibility_timeout_seconds=6)
        message_id = source.send("{}")
        failing = source.faults.fail("extend", times=None)
        handler = Handled(seconds=20)
        async with Fleet(source, attempts=2).running(handler):
            await asyncio.sleep(25)
            failing.stop()
            await asyncio.sleep(40)
            assert source.is_empty
        assert len(source.receives[message_id]) > 2
        assert source.dead_letters == []

    async def test_the_attempts_are_what_a_failing_handler_gets(self) -> None:
        source = MemorySource()
        source.send("{}")
        handler = Handled(*[RuntimeError("busy")] * 10)
        await Fleet(source, attempts=4).run(handler)
        assert len(handler.starts) == 4
        assert [letter.arrived_by for letter in source.dead_letters] == ["copy"]


class TestIntake:
    @pytest.mark.parametrize("operation", ["delete", "extend"])
    async def test_intake_stops_while_settlement_is_denied_and_resumes_when_it_is_allowed(self, operation: Any) -> None:
        """Work that cannot be settled is run once, and no other is begun: nothing is dead-lettered (S6)."""
        source = MemorySource()
        (denial,) = source.faults.deny(operation)
        for number in range(40):
            source.send(str(number))
        handler = Handled(seconds=15)
        async with Fleet(source, concurrency=4, attempts=2).running(handler) as consumer:
            await asyncio.sleep(HOUR)
            begun = len(set(handler.bodies))
            assert begun <= 8
            assert "AccessDenied" in (_problem(consumer) or "")
            denial.stop()
            await asyncio.sleep(300)
            assert _problem(consumer) is None
            assert source.is_empty
        assert sorted(set(handler.bodies), key=int) == [str(number) for number in range(40)]
        assert source.dead_letters == []

    async def test_done_work_is_run_once_however_long_deletes_are_denied(self) -> None:
        """Else every message would run `attempts` times and be dead-lettered though its work was done (S6, S2)."""
        source = MemorySource()
        (denial,) = source.faults.deny("delete")
        for number in range(20):
            source.send(str(number))
        handler = Handled()
        async with Fleet(source, concurrency=4, attempts=2).running(handler):
            await asyncio.sleep(5 * HOUR)
            assert len(handler.starts) == 4
            denial.stop()
            await asyncio.sleep(5 * HOUR)
            assert source.is_empty
        assert len(handler.starts) == 20
        assert source.dead_letters == []

    async def test_intake_goes_on_while_settlement_fails_for_less_than_ten_seconds(self) -> None:
        source = MemorySource()
        failing = source.faults.fail("delete", times=None)
        source.send("first")
        handler = Handled()
        async with Fleet(source).running(handler) as consumer:
            await asyncio.sleep(8)
            source.send("second")
            await asyncio.sleep(1)
            assert handler.bodies == ["first", "second"]
            assert _problem(consumer) is None
            failing.stop()

    async def test_intake_stops_when_no_settlement_succeeds_for_ten_seconds_while_due(self) -> None:
        """Passing faults stop intake too, once they have lasted (S6)."""
        source = MemorySource()
        rules = [source.faults.fail("delete", times=None), source.faults.fail("extend", times=None)]
        source.send("first")
        handler = Handled()
        async with Fleet(source, wait_time_seconds=1).running(handler) as consumer:
            await asyncio.sleep(20)
            source.send("second")
            await asyncio.sleep(5)
            assert handler.bodies == ["first"]
            assert "ServiceUnavailable" in (_problem(consumer) or "")
            for rule in rules:
                rule.stop()
            await asyncio.sleep(60)
            assert source.is_empty
            assert _problem(consumer) is None
        assert handler.bodies == ["first", "second"]

    async def test_copies_that_succeed_say_nothing_of_deletes(self) -> None:
        """A confirmed copy does not open intake while nothing can be deleted (S6)."""
        source = MemorySource()
        source.faults.fail("delete", times=None)
        source.faults.fail("extend", times=None)
        handler = Handled(*[DeadLetter("sold out")] * 3, seconds=0)
        for number in range(3):
            source.send(str(number), delay_seconds=number * 4)
        async with Fleet(source, wait_time_seconds=1).running(handler) as consumer:
            await asyncio.sleep(14)
            assert _problem(consumer) is not None
            source.faults.clear()

    async def test_a_source_that_raises_what_it_must_not_does_not_bring_the_consumer_down(self) -> None:
        """A settlement defect leaks no slot and ends no loop; when it is gone, everything is settled (S6)."""

        class Defective(MemorySource):
            is_defective = True

            async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
                if self.is_defective:
                    raise ZeroDivisionError
                return await super().delete(receipts)

            async def extend(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
                if self.is_defective:
                    raise ZeroDivisionError
                return await super().extend(changes)

        source = Defective()
        for number in range(6):
            source.send(str(number))
        handler = Handled(Ack(), Retry(), DeadLetter("sold out"), Ack())
        fleet = Fleet(source, concurrency=4)
        async with fleet.running(handler) as consumer:
            await asyncio.sleep(120)
            source.is_defective = False
            await asyncio.sleep(300)
            assert source.is_empty
            assert (consumer.in_hand, consumer.slots.taken) == (0, 0)
        assert fleet.fatal == []
        assert len(source.dead_letters) == 1
        assert set(handler.bodies) == {str(number) for number in range(6)}


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
