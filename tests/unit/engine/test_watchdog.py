"""Leases while the event loop is blocked: the watchdog's calls, and what the loop finds in the table afterwards (L6)."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.lease_work import RecordedSource, Work, leases_lost, settled
from support.loop_time import LoopTime, stand_still

from worker.engine.clock import SystemClock, Ticker
from worker.engine.consumer import Consumer
from worker.engine.watchdog import Watchdog
from worker.errors import EntryError, Fault, SourceError
from worker.message import Message
from worker.outcome import Retry
from worker.testing.fleet import Fleet


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


class Blocked(RecordedSource):
    """A queue that notes what was extended without the loop."""

    def __init__(self, *, visibility_timeout_seconds: int = 30) -> None:
        super().__init__(visibility_timeout_seconds=visibility_timeout_seconds)
        self.beats: list[tuple[int, int]] = []
        """How many receipts, for how many seconds."""
        self.answer: EntryError | SourceError | None = None

    def extend_blocking(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        self.beats.append((len(changes), changes[0][1]))
        if isinstance(self.answer, SourceError):
            raise self.answer
        if self.answer is not None:
            return [self.answer] * len(changes)
        return super().extend_blocking(changes)


class ThreadTime(LoopTime):
    """The loop's clock, also for threads without a loop."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()


@pytest.fixture
def source() -> Blocked:
    return Blocked()


def block(consumer: Consumer, seconds: float, *, looks_every: float = 0.25) -> None:
    """Stand still for so long, with a watchdog that looks."""
    looks = int(seconds / looks_every)
    for look in range(1, looks + 1):
        stand_still(looks_every)
        consumer.keeper.beat_without_loop(look * looks_every, asyncio.get_running_loop())


async def test_a_blocked_loop_loses_nothing_for_three_timeouts(source: Blocked) -> None:
    """Neither the message whose handler blocks nor its neighbours are seen by anyone else (L6)."""
    work = Work(5)
    source.send("order")
    source.send("order")
    async with Fleet(source).running(work) as consumer:
        await asyncio.sleep(1)
        async with Fleet(source.another()).running(work):
            block(consumer, 90)
            await asyncio.sleep(30)
    assert len(work.began) == 2
    assert source.is_empty


async def test_after_two_timeouts_the_watchdog_lets_go(source: Blocked) -> None:
    """Work that hangs for ever is somebody else's at last (L6)."""
    source.send("order")
    async with Fleet(source).running(Work(5)) as consumer:
        await asyncio.sleep(1)
        block(consumer, 60)
        told = list(source.beats)
        block(consumer, 0)
        stand_still(60)
        consumer.keeper.beat_without_loop(120, asyncio.get_running_loop())
        assert source.beats == told
        assert told[-1] == (1, 45)  # the last one lasts half a timeout longer
        assert {seconds for _, seconds in told[:-1]} == {30}


async def test_only_what_is_due_is_extended_and_ten_at_a_time(source: Blocked) -> None:
    for _ in range(25):
        source.send("order")
    async with Fleet(source, concurrency=30).running(Work(40)) as consumer:
        await asyncio.sleep(1)
        consumer.keeper.beat_without_loop(1, asyncio.get_running_loop())
        assert source.beats == []
        stand_still(12)
        consumer.keeper.beat_without_loop(12, asyncio.get_running_loop())
        assert sorted(count for count, _ in source.beats) == [5, 10, 10]
        consumer.keeper.beat_without_loop(12.25, asyncio.get_running_loop())
        assert len(source.beats) == 3


@pytest.mark.parametrize(
    "answer", [EntryError(Fault.LOST, "ReceiptHandleIsInvalid"), SourceError(Fault.UNAVAILABLE, "ConnectionRefused")]
)
async def test_a_lease_that_could_not_be_kept_is_lost_when_the_loop_runs_again(
    source: Blocked, answer: EntryError | SourceError
) -> None:
    """The thread cancels nothing: the loop reads the table and does (L6)."""
    work = Work(100)
    source.answer = answer
    source.send("order")
    fleet = Fleet(source)
    async with fleet.running(work, drain_seconds=0) as consumer:
        await asyncio.sleep(1)
        block(consumer, 40)
        assert work.cancelled == []
        await asyncio.sleep(1)
        assert len(work.cancelled) == 1
        assert leases_lost(fleet) == 1


async def test_what_is_being_given_back_is_not_extended(source: Blocked) -> None:
    """A late beat would overwrite the retry delay (L4)."""

    async def fails(_: Message[str]) -> Retry:
        return Retry(after=20)

    source.send("order")
    fleet = Fleet(source)
    async with fleet.running(fails, drain_seconds=0) as consumer:
        await asyncio.sleep(1)
        stand_still(15)
        consumer.keeper.beat_without_loop(15, asyncio.get_running_loop())
    assert source.beats == []
    assert settled(fleet) == {"retry": 1}


async def test_the_loop_waits_for_the_call_on_the_wire(source: Blocked) -> None:
    """It comes too late for the deadline that the loop knows; until it is answered, the lease is still ours (L6)."""
    work = Work(100)
    source.send("order")
    fleet = Fleet(source)
    fleet.clock = ThreadTime()
    async with fleet.running(work, drain_seconds=0) as consumer:
        await asyncio.sleep(1)
        entered, answer = threading.Event(), threading.Event()

        def slow(changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
            entered.set()
            answer.wait(10)
            return [None] * len(changes)

        source.extend_blocking = slow  # type: ignore[method-assign]
        stand_still(12)
        loop = asyncio.get_running_loop()
        watchdog = threading.Thread(target=consumer.keeper.beat_without_loop, args=(12, loop))
        watchdog.start()
        entered.wait(10)
        await asyncio.sleep(5)  # the loop runs: it sends no beat of its own, and cancels nothing
        assert source.extended == []
        answer.set()
        watchdog.join(10)
        await asyncio.sleep(10)
        assert work.cancelled == []
        assert leases_lost(fleet) == 0


@pytest.mark.real_time
async def test_the_log_names_the_line_that_blocks_once(logs: list[EventDict]) -> None:
    """Who is woken at 3 AM reads where the loop stands (L6)."""
    clock = SystemClock()
    ticker = Ticker(clock)
    ticking = asyncio.create_task(ticker.run())
    with Watchdog(ticker, clock, list):
        await asyncio.sleep(0.1)
        time.sleep(3)  # noqa: ASYNC251 - to block the loop is the point
        await asyncio.sleep(1)
    ticking.cancel()
    reports = [line for line in logs if line["event"] == "the event loop is blocked"]
    assert len(reports) == 1
    assert "test_watchdog.py" in reports[0]["stands_in"][-1]
    assert reports[0]["stands_in"][-1].endswith("test_the_log_names_the_line_that_blocks_once")


@pytest.mark.real_time
async def test_a_loop_that_runs_is_not_reported(logs: list[EventDict]) -> None:
    clock = SystemClock()
    ticker = Ticker(clock)
    ticking = asyncio.create_task(ticker.run())
    with Watchdog(ticker, clock, list):
        await asyncio.sleep(2)
    ticking.cancel()
    assert logs == []
