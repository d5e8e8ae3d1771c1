"""The benchmark of the guards times the calls that the engine really makes, and counts them per message."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from benchmarks.guards import Guards
from benchmarks.metered import Meter
from worker import Message
from worker.engine.breaker import Breaker
from worker.engine.clock import SystemClock, Ticker
from worker.engine.journal import Journal, Suspects
from worker.engine.watchdog import Watchdog
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


class Clock:
    """Each reading is one more nanosecond; work takes as many as it says."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def work(self, nanoseconds: int) -> Callable[..., None]:
        """Return a function that takes so long."""

        def function(*_: object) -> None:
            self.now += nanoseconds

        return function


async def test_every_guard_is_called_once_for_a_message(tmp_path: Path) -> None:
    """So a guard that is called elsewhere one day, or twice, is not missed."""
    meter, source = Meter(), MemorySource("orders", visibility_timeout_seconds=30)

    async def handle(message: Message[bytes]) -> None:
        """Do nothing."""

    with meter.attached():
        async with Fleet(source).running(handle) as consumer:
            consumer.context.journal = Journal(tmp_path, "orders", 10)
            for _ in range(25):
                source.send("{}", attributes={"event_type": "order.created"})
            await asyncio.sleep(10)
            consumer.context.journal.close()
    assert source.is_empty
    assert set(meter.calls.values()) == {25}, meter.calls


def test_a_call_costs_what_it_takes_less_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading of the clock inside of a timed call is not the call's, and a round is so many messages."""
    clock = Clock()
    monkeypatch.setattr(Suspects, "deaths", clock.work(70))
    monkeypatch.setattr(Breaker, "succeeded", clock.work(30))
    meter, anything = Meter(clock, round_messages=2), cast("Any", None)
    with meter.attached():
        for _ in range(5):
            Suspects.deaths(anything, "id")
            Breaker.succeeded(anything, anything)
    assert meter.rounds == [{"breaker": 60, "journal": 140}] * 2


async def test_the_watchdogs_thread_is_noted_at_each_look() -> None:
    meter = Meter()
    watchdog = Watchdog(Ticker(SystemClock()), SystemClock(), list)
    with meter.attached():
        for _ in range(3):
            watchdog._look(0.0)
    assert len(meter.looks) == 3
    assert meter.looks == sorted(meter.looks)


def test_guards_are_microseconds_per_message() -> None:
    """The warm-up is left out, and of the watchdog only what it used in each span."""
    slow, usual = {"breaker": 90_000_000, "journal": 90_000_000}, {"breaker": 1_000_000, "journal": 3_000_000}
    looks = [(0.0, 0.0), (10.0, 1.0), (15.0, 1.001), (20.0, 1.002), (30.0, 2.0), (40.0, 2.004), (99.0, 9.0)]
    found = {"rounds": [slow] * 5 + [usual] * 3, "looks": looks, "round_messages": 1_000}
    guards = Guards.read(found, idle=(9.0, 21.0), busy=(29.0, 41.0), messages=8_000)
    assert (guards.breaker.values, guards.journal.values) == ([1.0] * 3, [3.0] * 3)
    assert guards.watchdog_idle_percent == pytest.approx(0.02)
    assert guards.watchdog == pytest.approx(0.5)
    assert guards.together == pytest.approx(4.5)


def test_a_watchdog_that_does_not_look_is_no_figure() -> None:
    found = {"rounds": [], "looks": [(1.0, 0.1)], "round_messages": 1_000}
    with pytest.raises(SystemExit, match="does not look"):
        Guards.read(found, idle=(0.0, 2.0), busy=(2.0, 3.0), messages=1)
