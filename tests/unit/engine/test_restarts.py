"""Restarts: a loop that ends unasked comes back, and past its budget the process is told why it cannot go on."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog

from worker.engine.guarded import RESTARTS, WINDOW_SECONDS, guarded
from worker.engine.vitals import LoopPulse
from worker.message import Message, Received
from worker.source import QueueFacts, ReceiveRequest
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource


def now() -> float:
    return asyncio.get_running_loop().time()


def handler_of(seconds: float) -> Callable[[Message[str]], Awaitable[None]]:
    async def handler(_: Message[str]) -> None:
        await asyncio.sleep(seconds)

    return handler


def send(source: MemorySource, count: int) -> None:
    for number in range(count):
        source.send(str(number))


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[Any]]:
    """Crashes are logged with their tracebacks; here they are wanted."""
    with structlog.testing.capture_logs() as lines:
        yield lines


class CrashingSource(MemorySource):
    """Receives end in an error that no source may raise."""

    error: BaseException | None = None
    crashes = 0
    crashed = 0

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        if self.crashes:
            self.crashes -= 1
            self.crashed += 1
            assert self.error is not None
            raise self.error
        return await super().receive(request)


class DeepError(BaseException):
    """What `except Exception` does not see."""


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyError("x"), asyncio.CancelledError(), DeepError()])
async def test_a_receive_loop_that_crashes_is_restarted(error: BaseException) -> None:
    """Whatever a receive raises, a library's own CancelledError too, the loop goes on and no room is lost (D2)."""
    source = CrashingSource()
    source.error, source.crashes = error, RESTARTS
    fleet = Fleet(source, concurrency=4)
    async with fleet.running(handler_of(0)) as consumer:
        await asyncio.sleep(60)
        assert source.crashed == RESTARTS
        send(source, 10)
        await asyncio.sleep(5)
        assert source.is_empty
    assert (consumer.slots.free, fleet.fatal) == (4, [])


async def test_a_receive_loop_that_goes_on_crashing_ends_the_consumer() -> None:
    """Past its budget the process is told why it cannot go on; what is in hand is finished first (D2)."""
    source = CrashingSource()
    fleet = Fleet(source, concurrency=3)
    done: list[str] = []

    async def handler(message: Message[str]) -> None:
        await asyncio.sleep(120)
        done.append(message.body)

    send(source, 1)
    async with fleet.running(handler) as consumer:
        await asyncio.sleep(1)
        source.error, source.crashes = RuntimeError("a defect"), 1000
        send(source, 1)
        await asyncio.sleep(60)
        assert source.crashed == RESTARTS + 1
        assert fleet.fatal == [
            f"the receive loop of queue orders crashed {RESTARTS + 1} times, last with RuntimeError: a defect"
        ]
        assert consumer.in_hand == 2
    assert done == ["0", "0"]


@pytest.mark.parametrize("operation", ["describe", "check_settlement"])
async def test_the_loops_beside_the_receives_are_restarted_too(operation: str) -> None:
    """The survey and the gate come back after a crash, and past their budget end the process (D2)."""

    class Broken(MemorySource):
        async def describe(self) -> QueueFacts:
            if operation == "describe":
                raise RuntimeError("a defect")
            return await super().describe()

        async def check_settlement(self) -> None:
            if operation == "check_settlement":
                raise RuntimeError("a defect")
            await super().check_settlement()

    source = Broken(visibility_timeout_seconds=5)
    source.faults.deny("delete")
    send(source, 1)
    fleet = Fleet(source, concurrency=1)
    async with fleet.running(handler_of(0), drain_seconds=1):
        await asyncio.sleep(120)
    loop = {"describe": "survey", "check_settlement": "gate"}[operation]
    assert fleet.fatal == [
        f"the {loop} loop of queue orders crashed {RESTARTS + 1} times, last with RuntimeError: a defect"
    ]


async def test_restarts_wait_longer_each_time_and_are_counted(lines: list[dict[str, Any]]) -> None:
    """Five restarts within five minutes, with growing jittered pauses, each logged with its cause (D2)."""
    fleet = Fleet(MemorySource())
    started_at: list[float] = []

    async def loop(_: LoopPulse) -> None:
        started_at.append(now())
        raise RuntimeError("a defect")

    async with fleet.running(handler_of(0)) as consumer:
        await guarded("lease", consumer.context, loop)
        assert len(started_at) == RESTARTS + 1
        assert 0 < started_at[-1] - started_at[0] <= 0.5 + 1 + 2 + 4 + 8
        assert len(set(started_at)) == RESTARTS + 1
        assert len(fleet.fatal) == 1
        metrics = consumer.context.metrics
        assert metrics._loop_restarts["lease"].value == RESTARTS + 1
    crashes = [line for line in lines if line["event"] == "a loop of the consumer crashed"]
    assert [line["crashes"] for line in crashes] == list(range(1, RESTARTS + 2))
    assert {line["loop"] for line in crashes} == {"lease"}


async def test_old_crashes_are_forgiven() -> None:
    """The budget is for five minutes: a loop that crashes every minute is restarted for ever (D2)."""
    fleet = Fleet(MemorySource())
    crashes = 0

    async def loop(_: LoopPulse) -> None:
        nonlocal crashes
        crashes += 1
        await asyncio.sleep(WINDOW_SECONDS / RESTARTS + 1)
        raise RuntimeError("a defect")

    async with fleet.running(handler_of(0)) as consumer:
        task = asyncio.create_task(guarded("lease", consumer.context, loop))
        await asyncio.sleep(6 * 3600)
        assert not task.done()
        assert crashes > 300
        assert fleet.fatal == []
        task.cancel()


async def test_a_loop_that_waits_to_be_restarted_is_alive() -> None:
    """The pause after a crash is part of the plan (D2, D3)."""
    fleet = Fleet(MemorySource())

    async def loop(pulse: LoopPulse) -> None:
        pulse.expect("working", 0.01)
        raise RuntimeError("a defect")

    async with fleet.running(handler_of(0)) as consumer:
        task = asyncio.create_task(guarded("lease", consumer.context, loop), name="lease-test")
        while not task.done():
            await asyncio.sleep(0.02)
            assert consumer.context.vitals.stuck_loops() == []


async def test_our_own_cancellation_ends_a_loop() -> None:
    """A loop that is told to end ends, and leaves no pulse behind (D2, D5)."""
    fleet = Fleet(MemorySource())

    async def loop(_: LoopPulse) -> None:
        await asyncio.sleep(math.inf)

    async with fleet.running(handler_of(0)) as consumer:
        await asyncio.sleep(1)
        pulses = len(consumer.context.vitals.pulses)
        task = asyncio.create_task(guarded("lease", consumer.context, loop))
        await asyncio.sleep(1)
        assert len(consumer.context.vitals.pulses) == pulses + 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(consumer.context.vitals.pulses) == pulses
