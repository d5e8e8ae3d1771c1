"""Leases that end: lost ones are left alone, capped ones are settled, and no beat overwrites a settlement."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.lease_work import RecordedSource, Work, leases_lost, settled
from support.loop_time import now, stand_still

from worker.errors import EntryError, Fault, SourceError
from worker.message import Message
from worker.outcome import Ack, Outcome, Retry
from worker.testing.fleet import Fleet

HALF_A_DAY = 43_200


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def source() -> RecordedSource:
    return RecordedSource()


async def test_an_unreachable_sqs_loses_the_lease_at_its_deadline(source: RecordedSource) -> None:
    """The handler is cancelled, and nothing is settled with the handle that is not ours any more (L3)."""
    source.faults.dark(5, 60)
    work = Work(100)
    source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert work.cancelled == [pytest.approx(29)]
    assert len(work.began) == 2
    assert [receipt[-1] for receipt in source.deleted] == ["2"]
    assert settled(fleet) == {"ack": 1, "abandon": 1}
    assert leases_lost(fleet) == 1


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"])
async def test_a_handle_that_sqs_calls_invalid_is_lost_at_once(source: RecordedSource, code: str) -> None:
    """There is no deadline to wait for (L3)."""
    source.faults.fail_entries("extend", SourceError(Fault.LOST, code))
    work = Work(100)
    source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert work.cancelled == [pytest.approx(9)]
    assert [receipt[-1] for receipt in source.deleted] == ["2"]
    assert settled(fleet) == {"ack": 1, "abandon": 1}


async def test_a_yes_after_the_deadline_proves_nothing(source: RecordedSource) -> None:
    """The beat of 9 s is answered at 35 s: the lease ended at 29 s all the same (L3)."""
    source.faults.slow("extend", 26, times=1, after=True)
    work = Work(100)
    message_id = source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert work.cancelled == [pytest.approx(29)]
    assert [receipt[-1] for receipt in source.deleted] == ["2"]
    assert source.receives[message_id][1] == pytest.approx(39)  # it had reached SQS


async def test_a_slow_beat_counts_from_its_sending(source: RecordedSource) -> None:
    """Sent at 9 s and answered at 17 s, it extends the lease to 38 s, when SQS shows the message again (L1)."""
    source.faults.slow("extend", 8, times=1, after=True)
    asyncio.get_running_loop().call_later(10, lambda: source.faults.fail("extend", times=None))
    work = Work(90)
    source.send("order")
    async with Fleet(source).running(work):
        await asyncio.sleep(60)
    assert work.cancelled == [pytest.approx(38)]


async def test_a_yes_that_is_read_too_late_does_not_bring_a_lease_back(
    source: RecordedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stood still over the deadline, and the answer is read before any timer runs (L3, L6)."""
    extend = source.extend

    async def extend_and_block(changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        answers = await extend(changes)
        if now() < 20:
            stand_still(25)
        return answers

    monkeypatch.setattr(source, "extend", extend_and_block)
    work = Work(100)
    source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert work.cancelled == [pytest.approx(34)]
    assert settled(fleet) == {"ack": 1, "abandon": 1}


async def test_a_yes_after_the_deadline_does_not_bring_a_handler_back(source: RecordedSource) -> None:
    """A handler that outlived its lease unnoticed, in a blocked loop, is cancelled although its beat succeeded (L3)."""
    source.faults.slow("extend", 1, times=1, after=True)
    cancelled: list[float] = []

    async def handler(message: Message[str]) -> None:
        if message.receive_count > 1:
            return
        await asyncio.sleep(9.5)  # the beat of 9 s is on the wire
        stand_still(40)
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(now())
            raise

    source.send("order")
    fleet = Fleet(source)
    await fleet.run(handler)
    assert cancelled == [pytest.approx(49.5, abs=0.1)]
    assert settled(fleet) == {"ack": 1, "abandon": 1}


@pytest.mark.parametrize("outcome", [Ack(), Retry(after=0)])
async def test_a_handler_that_swallows_the_cancellation_does_not_win_its_lease_back(
    source: RecordedSource, outcome: Outcome
) -> None:
    """Whatever it returns, nothing is settled with the old handle, and the message is run again (E1, L3)."""
    source.faults.dark(5, 60)
    work = Work(100, outcome=outcome, swallows=True)
    source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert [receipt[-1] for receipt in source.deleted] == ["2"]
    assert len(work.began) == 2
    assert settled(fleet) == {"ack": 1, "abandon": 1}


async def test_a_failure_in_a_lost_lease_is_not_settled(source: RecordedSource) -> None:
    """A retry or a dead letter would take the message from whoever holds it now (L3)."""
    source.faults.dark(5, 60)

    async def handler(message: Message[str]) -> None:
        if message.receive_count == 1:
            try:
                await asyncio.sleep(100)
            finally:
                raise ValueError("cleaning up failed too")

    source.send("order")
    fleet = Fleet(source, attempts=1)
    await fleet.run(handler)
    assert source.dead_letters == []
    assert settled(fleet) == {"ack": 1, "abandon": 1}


async def test_finished_work_whose_lease_ends_while_its_delete_waits_is_not_run_again(source: RecordedSource) -> None:
    """It is remembered, and deleted with the handle of its next receive (L3, S2)."""
    source.faults.dark(4, 60)
    work = Work(5)
    message_id = source.send("order")
    async with Fleet(source).running(work):
        await asyncio.sleep(200)
    assert work.began == [0]
    assert len(source.receives[message_id]) == 2
    assert source.deleted[-1].endswith(":2")
    assert source.is_empty


async def test_work_that_ends_after_an_unnoticed_deadline_is_still_deleted(source: RecordedSource) -> None:
    """The delete of finished work is always tried: on AWS it does no harm (L3)."""
    runs: list[int] = []

    async def handler(message: Message[str]) -> None:
        runs.append(message.receive_count)
        stand_still(40)

    source.send("order")
    await Fleet(source).run(handler)
    assert runs == [1]
    assert source.is_empty


# Beats and settlements


async def test_a_late_beat_does_not_overwrite_a_retry_delay(source: RecordedSource) -> None:
    """The beat of 9 s arrives at 11 s, the retry after five seconds is asked for at 10 s: it comes back at 16 s (L4)."""
    source.faults.slow("extend", 2, times=1)
    message_id = source.send("order")
    await Fleet(source).run(Work(10, outcome=Retry(after=5)))
    assert source.receives[message_id] == [0, pytest.approx(16, abs=0.1)]


async def test_a_retry_does_not_wait_for_ever_for_its_beat(source: RecordedSource) -> None:
    """Five seconds, then the visibility is changed all the same (L4)."""
    source.faults.hang("extend", 10, times=1)
    message_id = source.send("order")
    await Fleet(source).run(Work(10, outcome=Retry(after=5)))
    assert source.receives[message_id] == [0, pytest.approx(20, abs=0.1)]


async def test_a_delete_does_not_wait_for_its_beat(source: RecordedSource) -> None:
    """A beat that hides what is gone does no harm (L4)."""
    source.faults.hang("extend", 10, times=1)
    source.send("order")
    async with Fleet(source).running(Work(10)):
        await asyncio.sleep(10.1)
        assert source.is_empty


async def test_a_beat_that_its_own_delete_overtook_is_no_lost_lease(
    source: RecordedSource, logs: list[EventDict]
) -> None:
    """SQS has deleted the message and not said so yet: that it knows the receipt no more is our own doing (L3, S1)."""
    source.faults.slow("delete", 3, times=1, after=True)
    source.send("order")
    fleet = Fleet(source)
    await fleet.run(Work(8))  # deleted at 8 s, asked to be kept at 9 s, answered at 11 s
    assert source.calls["extend"] == 1
    assert settled(fleet) == {"ack": 1}
    assert leases_lost(fleet) == 0
    assert not [line for line in logs if line["event"] == "lease lost"]


async def test_no_beat_follows_a_retry(source: RecordedSource) -> None:
    """While the visibility change is repeated the keeper leaves the message alone (L4)."""
    rule = source.faults.fail("extend", times=None)
    message_id = source.send("order")
    async with Fleet(source).running(Work(8.9, outcome=Retry(after=5))):
        await asyncio.sleep(12)
        rule.stop()
        await asyncio.sleep(40)
    assert source.receives[message_id][1] < 12 + 5 + 5


# The cap


async def test_the_cap_cancels_the_handler_and_counts_as_a_failed_attempt(source: RecordedSource) -> None:
    """It is settled while the lease holds: the message is back after the retry delay, not after the lease (L5)."""
    work = Work(1000)
    message_id = source.send("order")
    fleet = Fleet(source, max_lease_seconds=100)
    await fleet.run(work)
    assert work.cancelled == [pytest.approx(100)]
    assert source.receives[message_id][1] == pytest.approx(104, abs=2)
    assert settled(fleet) == {"ack": 1, "retry": 1}


async def test_the_cap_of_the_last_attempt_is_a_dead_letter(source: RecordedSource) -> None:
    """The reason names it (L5)."""
    source.send("order")
    await Fleet(source, max_lease_seconds=100, attempts=1).run(Work(1000))
    (dead,) = source.dead_letters
    assert "max_lease_seconds" in str(dead.attributes["longshore.dead_letter"].value)
    assert dead.arrived_by == "copy"


@pytest.mark.parametrize("timeout_seconds", [120, 300, 14_400, HALF_A_DAY - 60])
async def test_twelve_hours_are_never_exceeded(timeout_seconds: int) -> None:
    """SQS refuses more: the handler is cancelled a minute before, and settled (L5)."""
    source = RecordedSource(visibility_timeout_seconds=timeout_seconds)
    work = Work(2 * HALF_A_DAY)
    source.send("order")
    fleet = Fleet(source, max_lease_seconds=HALF_A_DAY - 60)
    async with fleet.running(work):
        await asyncio.sleep(HALF_A_DAY)
    assert work.cancelled == [pytest.approx(HALF_A_DAY - 60)]
    assert settled(fleet) == {"ack": 1, "retry": 1}
    assert len(source.extended) < HALF_A_DAY / (timeout_seconds / 4) + 3


async def test_who_ignores_the_cap_loses_the_lease(source: RecordedSource) -> None:
    """From the cap on there are no beats: the message is visible again once the lease has ended (L5, E3)."""
    cancelled: list[float] = []

    async def handler(message: Message[str]) -> None:
        while message.receive_count == 1 and now() < 200:
            try:
                await asyncio.sleep(200 - now())
            except asyncio.CancelledError:
                cancelled.append(now())

    message_id = source.send("order")
    fleet = Fleet(source, max_lease_seconds=100)
    await fleet.run(handler)
    at_cap, at_deadline = cancelled
    assert at_cap == pytest.approx(100)
    assert at_cap < at_deadline < at_cap + 30
    assert source.receives[message_id] == [0, pytest.approx(at_deadline + 1)]
    assert settled(fleet) == {"ack": 1, "abandon": 1}
