"""The same message in two responses: it runs once at a time, and the newest handle and lease count."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.loop_time import now

from worker.message import Message
from worker.outcome import Ack, Outcome, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


class Work:
    """A handler that notes each run, and finds out when two run at once."""

    def __init__(self, seconds: float, *, outcome: Outcome | None = None) -> None:
        self.seconds = seconds
        self.outcome = outcome or Ack()
        self.began: list[float] = []
        self.counts: list[int] = []
        self.running = 0
        self.most_at_once = 0

    async def __call__(self, message: Message[str]) -> Outcome:
        self.began.append(now())
        self.counts.append(message.receive_count)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        return self.outcome


class Deaf(Work):
    """Ignores every cancellation of its first run."""

    async def __call__(self, message: Message[str]) -> Outcome:
        self.began.append(now())
        self.counts.append(message.receive_count)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        ends_at = now() + (self.seconds if len(self.began) == 1 else 0)
        while (left := ends_at - now()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        self.running -= 1
        return self.outcome


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(visibility_timeout_seconds=30)


@pytest.mark.parametrize("same_response", [True, False])
async def test_a_message_that_comes_twice_is_started_once(source: MemorySource, *, same_response: bool) -> None:
    """In one response or in two; it is deleted with the newest handle, the only one that SQS takes (R9)."""
    source.faults.double(same_response=same_response)
    work = Work(3)
    message_id = source.send("order")
    fleet = Fleet(source)
    async with fleet.running(work) as consumer:
        await asyncio.sleep(4)
        assert source.is_empty
        assert consumer.context.metrics.snapshot()["duplicates"] == 1
    assert work.began == [0]
    assert len(source.receives[message_id]) == 2


@pytest.mark.parametrize("same_response", [True, False])
async def test_the_room_of_the_second_copy_goes_back(source: MemorySource, *, same_response: bool) -> None:
    """It is one message in hand, and the other slots are free for others (R9)."""
    source.faults.double(same_response=same_response)
    work = Work(3)
    source.send("order")
    fleet = Fleet(source, concurrency=2)
    async with fleet.running(work) as consumer:
        await asyncio.sleep(1)
        assert consumer.in_hand == 1
        assert consumer.slots.taken == 1
        source.send("another")
        await asyncio.sleep(1)
        assert work.running == 2
    assert consumer.slots.free == 2


async def test_beats_go_to_the_newest_handle(source: MemorySource) -> None:
    """The old one would be refused, and the message lost although it is ours (R9, L2)."""
    source.faults.double()
    work = Work(300)
    source.send("order")
    fleet = Fleet(source)
    await fleet.run(work)
    assert work.began == [0]
    assert source.is_empty
    assert fleet.consumer is not None
    assert fleet.consumer.context.metrics.snapshot()["leases_lost"] == 0


async def test_a_retry_goes_to_the_newest_handle(source: MemorySource) -> None:
    """The message is back after its delay, not after its lease (R9)."""
    source.faults.double()
    work = Work(3, outcome=Retry(after=7))
    message_id = source.send("order")
    async with Fleet(source).running(work):
        await asyncio.sleep(11)
    assert source.receives[message_id][:3] == [0, pytest.approx(0, abs=0.1), pytest.approx(10, abs=0.1)]


async def test_the_answer_to_a_beat_of_an_old_handle_says_nothing_of_the_new_one(source: MemorySource) -> None:
    """SQS calls the old handle lost while the newer receive is ours (R9)."""
    source.faults.slow("extend", 3, times=1)
    work = Work(100)
    source.send("order")
    fleet = Fleet(source)
    async with fleet.running(work) as consumer:
        await asyncio.sleep(10)  # the beat of 9 s is on its way
        (stored,) = source.stored()
        stored.due = now()  # SQS shows it again although it is hidden, as it sometimes does
        source.store._push(stored.due, stored)
        source.send("wakes the receive that is parked")
        await asyncio.sleep(80)
        snapshot = consumer.context.metrics.snapshot()
        assert (snapshot["duplicates"], snapshot["leases_lost"]) == (1, 0)
    assert work.began == [0, 10]


async def test_a_lost_run_and_its_successor_never_overlap(source: MemorySource) -> None:
    """The old run ignores its cancellation: the message, received again meanwhile, starts once it has ended (R9)."""
    source.faults.dark(5, 40)
    work = Deaf(200)
    message_id = source.send("order")
    await Fleet(source).run(work)
    assert work.began == [0, 200]
    assert work.most_at_once == 1
    assert work.counts == [1, 2]
    assert len(source.receives[message_id]) == 2  # beats keep it while it waits


async def test_a_successor_that_waits_too_long_is_given_back_unfailed(source: MemorySource) -> None:
    """At its own cap it has not run, so it is no failed attempt and no dead letter (L5, S4)."""
    source.faults.dark(5, 40)
    work = Deaf(300)
    source.send("order")
    fleet = Fleet(source, max_lease_seconds=100, attempts=2)
    async with fleet.running(work):
        await asyncio.sleep(500)
    assert source.dead_letters == []
    assert source.is_empty
    assert work.most_at_once == 1
    assert len(work.began) == 2


async def test_a_lost_run_that_ends_lets_its_successor_run_at_once(source: MemorySource) -> None:
    """One slot is enough for both, as they never run at once (R9)."""
    source.faults.dark(5, 40)
    work = Deaf(100)
    source.send("order")
    async with Fleet(source, concurrency=2).running(work) as consumer:
        await asyncio.sleep(70)  # receives back off for up to 20 s
        assert consumer.slots.taken == 1
        await asyncio.sleep(40)
        assert consumer.slots.taken == 0
    assert work.began == [0, 100]


async def test_two_processes_never_run_a_message_at_once(source: MemorySource) -> None:
    """One of them is cut off from SQS, the other takes the message over after the lease (L3)."""
    work = Work(50)
    cut_off, other = Fleet(source.another()), Fleet(source)
    cut_off.source.faults.dark(5, 300)
    message_id = source.send("order")
    async with cut_off.running(work):
        await asyncio.sleep(1)
        async with other.running(work):
            await asyncio.sleep(300)
    assert work.most_at_once == 1
    assert work.began == [0, pytest.approx(30)]
    assert len(source.receives[message_id]) == 2
    assert source.is_empty
