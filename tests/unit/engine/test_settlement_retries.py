"""Settlement of failures: by visibility only, exactly as late as asked for; attempts are handler failures."""

import asyncio
from itertools import pairwise

import pytest
from support.runs import Handled, deliver_again

from worker import TransientError
from worker.outcome import Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HOUR = 3600


def _gaps(source: MemorySource, message_id: str) -> list[float]:
    return [later - earlier for earlier, later in pairwise(source.receives[message_id])]


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
            deliver_again(source, message_id)
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
