"""The clock of leases: it counts suspension, and it is noticed when the process stood still."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.loop_time import LoopTime, now, stand_still

from worker.engine.clock import SystemClock, Ticker
from worker.message import Message
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def ticker() -> AsyncIterator[Ticker]:
    """A ticker that runs and has ticked at 0 s."""
    ticker = Ticker(LoopTime())
    task = asyncio.create_task(ticker.run())
    await asyncio.sleep(0)
    yield ticker
    task.cancel()


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases go by the clock that counts suspension (L1)."""
    readings = {7: 1000.0, time.CLOCK_MONOTONIC: 10.0}
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", readings.__getitem__)
    assert SystemClock().now() == 1000


def test_the_wall_clock_is_unix_time() -> None:
    """It is compared with SQS's timestamps only."""
    assert SystemClock().wall() == pytest.approx(time.time(), abs=1)


def test_a_machine_without_such_a_clock_uses_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no CLOCK_BOOTTIME on macOS (L1)."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert SystemClock().now() == pytest.approx(time.monotonic(), abs=1)


async def test_a_quiet_loop_never_stood_still(ticker: Ticker) -> None:
    """Ticks in time say nothing, however long they go on (L1)."""
    await asyncio.sleep(3600)
    assert not ticker.stood_still_since(0)
    assert ticker.lag_seconds == 0


async def test_a_blocked_loop_stood_still(ticker: Ticker) -> None:
    """Whoever asks from a moment before the end of the block on is told (L1)."""
    await asyncio.sleep(5)
    stand_still(3)
    assert ticker.stood_still_since(5)  # asked before the late tick could run: sockets are read before timers
    await asyncio.sleep(60)
    assert ticker.stood_still_since(5)
    assert ticker.stood_still_since(8)
    assert not ticker.stood_still_since(8.5)


async def test_every_tick_says_how_late_it_was() -> None:
    """The metric of the event loop's lag is made of them (M1)."""
    lags: list[float] = []
    task = asyncio.create_task(Ticker(LoopTime(), lags.append).run())
    await asyncio.sleep(1.1)
    stand_still(3)
    await asyncio.sleep(0.1)
    task.cancel()
    assert lags == [pytest.approx(0), pytest.approx(0), pytest.approx(2.6)]


async def test_a_late_tick_is_enough(ticker: Ticker) -> None:
    """Nobody needs to ask at the very moment (L1)."""
    await asyncio.sleep(5)
    stand_still(3)
    await asyncio.sleep(1)
    assert ticker.stood_still_since(5)


async def test_the_lag_is_that_of_the_late_tick(ticker: Ticker) -> None:
    """A tick was due after half a second, and three were slept through."""
    await asyncio.sleep(5.1)
    stand_still(3)
    ticker.stood_still_since(0)
    assert ticker.lag_seconds == pytest.approx(2.6)


async def test_half_a_second_is_no_standing_still(ticker: Ticker) -> None:
    """What the margin of a lease covers does not count (L1)."""
    await asyncio.sleep(5.1)
    stand_still(0.5)
    await asyncio.sleep(10)
    assert not ticker.stood_still_since(0)


async def test_those_who_wait_for_deadlines_are_told(ticker: Ticker) -> None:
    """Timers sleep while the machine is suspended, so the keeper is woken by whoever noticed (L1)."""
    told_at: list[float] = []
    ticker.on_stall.append(lambda: told_at.append(now()))
    await asyncio.sleep(5)
    stand_still(3)
    await asyncio.sleep(60)
    assert told_at == [8]


async def test_a_ticker_that_does_not_run_knows_nothing() -> None:
    """The time before its start and after its end is no standing still."""
    ticker = Ticker(LoopTime())
    assert not ticker.stood_still_since(0)
    task = asyncio.create_task(ticker.run())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(3600)
    assert not ticker.stood_still_since(0)


class Seen:
    """A handler that notes how often its message was received and how long its lease still lasts."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.remaining_seconds: list[float] = []

    async def __call__(self, message: Message[str]) -> None:
        self.counts.append(message.receive_count)
        self.remaining_seconds.append(message.lease.remaining_seconds)


async def send_into_a_parked_receive(source: MemorySource, fleet: Fleet, seen: Seen, *, stall_seconds: float) -> None:
    """Send at 5 s, and stand still from the moment SQS has answered until the answer is read."""
    async with fleet.running(seen) as consumer:
        ticker = asyncio.create_task(consumer.context.ticker.run())
        await asyncio.sleep(5)
        source.send("order")
        await asyncio.sleep(0)  # SQS hands it to the receive that is parked since 0 s
        stand_still(stall_seconds)
        await asyncio.sleep(60)
        ticker.cancel()


async def test_a_lease_counts_from_the_reading_of_the_answer() -> None:
    """A long poll that was parked for a while costs the lease nothing (L1)."""
    source, seen = MemorySource(visibility_timeout_seconds=30), Seen()
    await send_into_a_parked_receive(source, Fleet(source), seen, stall_seconds=0.001)
    assert seen.counts == [1]
    assert seen.remaining_seconds == [pytest.approx(29)]


async def test_a_lease_counts_from_the_sending_when_the_process_stood_still() -> None:
    """The answer may have waited in the socket: sent at 0 s, read at 15 s, the lease ends at 29 s (L1)."""
    source, seen = MemorySource(visibility_timeout_seconds=30), Seen()
    await send_into_a_parked_receive(source, Fleet(source), seen, stall_seconds=10)
    assert seen.counts == [1]
    assert seen.remaining_seconds == [pytest.approx(14)]


async def test_what_is_past_its_deadline_when_it_is_read_is_not_started() -> None:
    """After forty seconds someone else may have it: it is run at its next receive only (L1)."""
    source, seen = MemorySource(visibility_timeout_seconds=30), Seen()
    fleet = Fleet(source)
    await send_into_a_parked_receive(source, fleet, seen, stall_seconds=40)
    assert seen.counts == [2]
    assert source.is_empty
    assert fleet.consumer is not None
    assert fleet.consumer.context.metrics.snapshot()["leases_lost"] == 1


async def test_a_suspended_machine_notices_its_lost_leases_when_it_wakes() -> None:
    """No timer counts the suspension, yet handlers are cancelled within half a second of its end (L1, L3)."""
    source = MemorySource(visibility_timeout_seconds=300)
    fleet = Fleet(source)
    fleet.clock = clock = LoopTime()
    cancelled_at: list[float] = []

    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - only its end matters
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled_at.append(now())
            raise

    source.send("order")
    async with fleet.running(handler, drain_seconds=0) as consumer:
        ticker = asyncio.create_task(consumer.context.ticker.run())
        await asyncio.sleep(10)
        clock.suspended_seconds = 1000
        await asyncio.sleep(10)
        ticker.cancel()
        assert cancelled_at == [pytest.approx(10, abs=0.6)]
        assert consumer.context.metrics.snapshot()["leases_lost"] == 1
