"""The keeper at a queue: leases are kept as long as work lasts, whatever SQS refuses; see also `test_keeper_lost.py`."""

import asyncio
import random
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.lease_work import RecordedSource, Work, leases_lost
from support.loop_time import now, stand_still

from worker.errors import EntryError, Fault, SourceError
from worker.message import Message
from worker.testing.fleet import Fleet

HALF_A_DAY = 43_200


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def source() -> RecordedSource:
    return RecordedSource()


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


async def test_what_is_due_soon_comes_along(source: RecordedSource) -> None:
    """Leases that are due within a twelfth of the timeout share a call (L2)."""
    async with Fleet(source).running(Work(15)):
        for _ in range(5):
            source.send("order")
            source.send("order")
            await asyncio.sleep(0.5)
        await asyncio.sleep(15)
    assert [len(receipts) for _, receipts in source.extended] == [10]


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
        assert len(consumer.keeper) == 0
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
    work = Work(14)
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


async def test_a_crash_of_the_keeper_costs_no_lease(source: RecordedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop is started again, and beats that were on the wire are made again (D2, L2)."""
    source.faults.slow("extend", 1)
    work = Work(100)
    source.send("order")
    async with Fleet(source).running(work) as consumer:
        keeper = consumer.keeper
        turn = keeper._turn

        def turn_and_crash() -> float:
            turn()
            monkeypatch.setattr(keeper, "_turn", turn)
            raise RuntimeError("a defect")

        await asyncio.sleep(5)
        monkeypatch.setattr(keeper, "_turn", turn_and_crash)
        await asyncio.sleep(200)
    assert work.cancelled == []
    assert work.began == [0]


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
