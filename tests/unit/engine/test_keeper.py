"""The keeper at a queue: leases are kept as long as work lasts, and work ends when its lease does."""

import asyncio
import random
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from worker.errors import EntryError, Fault, SourceError
from worker.message import Message
from worker.outcome import Ack, Outcome, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HALF_A_DAY = 43_200


class RecordedSource(MemorySource):
    """A queue that knows which receipts were extended and deleted, and when."""

    def __init__(self, *, visibility_timeout_seconds: int = 30) -> None:
        super().__init__(visibility_timeout_seconds=visibility_timeout_seconds)
        self.extended: list[tuple[float, list[str]]] = []
        self.deleted: list[str] = []
        self.poison: str | None = None
        """SQS refuses every call as a whole that extends a receipt with this end."""

    async def extend(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        receipts = [receipt for receipt, _ in changes]
        self.extended.append((now(), receipts))
        if self.poison is not None and any(receipt.endswith(self.poison) for receipt in receipts):
            raise SourceError(Fault.INVALID, "InvalidRequest")
        return await super().extend(changes)

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        self.deleted.extend(receipts)
        return await super().delete(receipts)


class Work:
    """A handler that takes its time and notes each run: when it began, when and how it ended."""

    def __init__(self, seconds: float, *, outcome: Outcome | None = None, swallows: bool = False) -> None:
        self.seconds = seconds
        self.outcome = outcome or Ack()
        self.swallows = swallows
        self.began: list[float] = []
        self.cancelled: list[float] = []
        self.running = 0
        self.overlaps = 0

    async def __call__(self, message: Message[str]) -> Outcome:
        self.began.append(now())
        self.overlaps += self.running
        self.running += 1
        try:
            await asyncio.sleep(self.seconds if message.receive_count == 1 else 0)
        except asyncio.CancelledError:
            self.cancelled.append(now())
            if not self.swallows:
                raise
        finally:
            self.running -= 1
        return self.outcome if message.receive_count == 1 else Ack()


def now() -> float:
    return asyncio.get_running_loop().time()


def stand_still(seconds: float) -> None:
    """Let the time go on while the event loop does nothing, as a handler does that blocks it."""
    asyncio.get_running_loop().time.__self__.advance(seconds)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def source() -> RecordedSource:
    return RecordedSource()


def settled(fleet: Fleet) -> dict[str, int]:
    """Return how the messages ended, outcomes that did not happen left out."""
    assert fleet.consumer is not None
    return {how: count for how, count in fleet.consumer.context.metrics.snapshot()["settled"].items() if count}


def leases_lost(fleet: Fleet) -> int:
    assert fleet.consumer is not None
    return fleet.consumer.context.metrics.snapshot()["leases_lost"]


# Kept while work lasts


@pytest.mark.parametrize("times", [5, 400])
async def test_a_slow_handler_keeps_its_message(source: RecordedSource, times: int) -> None:
    """A handler of many visibility timeouts is the only one to see its message, whoever else receives (L2)."""
    work = Work(30 * times)
    source.send("order")
    long = {"max_lease_seconds": HALF_A_DAY - 60}
    async with Fleet(source, **long).running(work), Fleet(source.another(), **long).running(work):
        await asyncio.sleep(30 * times + 60)
    assert work.began == [0]
    assert source.is_empty


async def test_every_beat_leaves_a_third_of_the_lease(source: RecordedSource) -> None:
    """At any moment a lease lasts another third of the timeout, so one beat may be missed (L2)."""
    shortest = [30.0]

    async def handler(message: Message[str]) -> None:
        for _ in range(6000):
            await asyncio.sleep(0.1)
            shortest.append(message.lease.remaining_seconds)

    source.send("order")
    await Fleet(source).run(handler)
    assert min(shortest) >= 10


async def test_beats_go_ten_at_a_time(source: RecordedSource) -> None:
    """A hundred messages cost ten calls for each third of the timeout (L2)."""
    for _ in range(100):
        source.send("order")
    await Fleet(source, concurrency=100).run(Work(15))
    assert [len(receipts) for _, receipts in source.extended] == [10] * 10


async def test_the_most_urgent_leases_are_extended_first(source: RecordedSource) -> None:
    """What was received first comes first, also when others are due at the same moment (L2)."""
    async with Fleet(source, concurrency=20).running(Work(15)):
        for _ in range(2):
            for _ in range(10):
                source.send("order")
            await asyncio.sleep(1)
        await asyncio.sleep(15)
    first, second = [{receipt.split(":")[1] for receipt in receipts} for _, receipts in source.extended]
    assert len(first) == len(second) == 10
    assert max(first) < min(second)


async def test_a_settled_message_is_not_beaten_for(source: RecordedSource) -> None:
    """Beats end with the outcome, and nothing of the lease is left (L2)."""
    source.send("order")
    fleet = Fleet(source)
    async with fleet.running(Work(25)) as consumer:
        await asyncio.sleep(300)
        assert len(consumer._keeper) == 0
    assert len(source.extended) == 2
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("beat", "change"))]


async def test_a_waiting_delete_is_beaten_for_like_work(source: RecordedSource) -> None:
    """While deletes fail the message is kept, and deleted once they succeed, without a second receive (L2)."""
    rule = source.faults.fail("delete", times=None)
    work = Work(1)
    message_id = source.send("order")
    async with Fleet(source).running(work):
        await asyncio.sleep(120)
        rule.stop()
        await asyncio.sleep(30)
    assert len(source.receives[message_id]) == 1
    assert work.began == [0]
    assert source.is_empty


# What SQS refuses

PASSING = [fault for fault in Fault if fault is not Fault.LOST]


@pytest.mark.parametrize("fault", PASSING)
async def test_a_failed_beat_is_repeated(source: RecordedSource, fault: Fault) -> None:
    """Three calls that fail in a row, whatever SQS says, cost no lease (L2)."""
    source.faults.fail("extend", SourceError(fault, "Refused"), times=3)
    work = Work(100)
    source.send("order")
    await Fleet(source).run(work)
    assert work.began == [0]
    assert work.cancelled == []


@pytest.mark.parametrize("fault", PASSING)
async def test_a_failed_entry_is_repeated_alone(source: RecordedSource, fault: Fault) -> None:
    """The other entries of the call are extended and wait for their next beat (L2)."""
    source.faults.fail_entries("extend", SourceError(fault, "Refused"), times=1)
    work = Work(12)
    for _ in range(10):
        source.send("order")
    await Fleet(source).run(work)
    assert [len(receipts) for _, receipts in source.extended] == [10, 1]
    assert work.cancelled == []


@pytest.mark.parametrize("seed", range(10))
async def test_a_beat_is_repeated_inside_the_margin(source: RecordedSource, seed: int) -> None:
    """Extends that work again two seconds before the deadline come in time, however the jitter falls (L2)."""
    random.seed(seed)
    rule = source.faults.fail("extend", times=None)
    work = Work(60)
    source.send("order")
    async with Fleet(source).running(work):
        await asyncio.sleep(27)
        rule.stop()
    assert work.cancelled == []
    assert len(source.extended) < 30


async def test_a_beat_that_gets_no_answer_is_repeated(source: RecordedSource) -> None:
    """Ten seconds of silence, then a timeout: there is time for another (L1)."""
    source.faults.hang("extend", 10)
    work = Work(60)
    source.send("order")
    await Fleet(source).run(work)
    assert work.cancelled == []
    assert work.began == [0]


async def test_one_entry_that_spoils_its_call_does_not_cost_the_others(source: RecordedSource) -> None:
    """A batch that SQS refuses as a whole is split (L2)."""
    source.poison = "3:1"
    work = Work(100)
    for _ in range(10):
        source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert leases_lost(fleet) == 1
    assert len(work.began) == 11


async def test_a_handlers_own_extension_that_fails_costs_no_beat(source: RecordedSource) -> None:
    """The beat that was due while it was on the wire is made afterwards (L2, L7)."""
    source.faults.slow("extend", 4, times=1)
    source.faults.fail("extend", times=1)
    ended: list[float] = []

    async def handler(message: Message[str]) -> None:
        await asyncio.sleep(8)
        with pytest.raises(SourceError):
            await message.lease.extend(300)
        await asyncio.sleep(60)
        ended.append(now())

    source.send("order")
    await Fleet(source).run(handler)
    assert ended == [72]


async def test_a_source_that_raises_what_it_must_not_costs_no_lease(
    source: RecordedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect is logged and the beat is made again (L2)."""
    extend = source.extend

    async def broken(changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        if now() < 15:
            raise KeyError("broken")
        return await extend(changes)

    monkeypatch.setattr(source, "extend", broken)
    work = Work(60)
    source.send("order")
    await Fleet(source).run(work)
    assert work.began == [0]
    assert work.cancelled == []


# Lost


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


async def test_a_blocked_loop_beats_as_soon_as_it_can(source: RecordedSource) -> None:
    """Two thirds of the timeout without a beat are survived (L1)."""
    work = Work(60)
    source.send("order")
    async with Fleet(source).running(work):
        await asyncio.sleep(8)
        stand_still(20)
        await asyncio.sleep(100)
    assert work.began == [0]
    assert work.cancelled == []


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
