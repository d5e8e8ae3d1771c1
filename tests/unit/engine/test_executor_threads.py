"""Sync handlers run in threads, one per slot; a thread cannot be cancelled, so its message waits for its end."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.bench import Bench

from worker.engine import calls
from worker.engine.delivery import Cause
from worker.message import Message
from worker.outcome import Abandon, Ack, DeadLetter, Outcome, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def taking(seconds: float, ended: list[float]) -> Callable[[Message[str]], None]:
    def handler(message: Message[str]) -> None:  # noqa: ARG001 - how it ends is the point
        time.sleep(seconds)
        ended.append(time.monotonic())

    return handler


async def test_a_sync_handler_does_not_block_the_event_loop() -> None:
    """It runs in a thread of its own (L6)."""
    threads: list[threading.Thread] = []

    def handler(message: Message[str]) -> Outcome:
        threads.append(threading.current_thread())
        time.sleep(0.1)
        return DeadLetter(message.body)

    turns = 0
    execution = asyncio.create_task(Bench(handler).execute())
    while not execution.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert execution.result() == DeadLetter("order")
    assert turns >= 5
    assert threads[0] is not threading.main_thread()


async def test_every_slot_has_a_thread() -> None:
    """Fifty calls run at once, on however few cores (L6)."""
    everyone = threading.Barrier(50, timeout=10)

    def handler(message: Message[str]) -> None:  # noqa: ARG001 - that they meet is the point
        everyone.wait()

    bench = Bench(handler, concurrency=50)
    assert await asyncio.gather(*(bench.execute() for _ in range(50))) == [Ack()] * 50


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_whatever_a_sync_handler_raises_is_a_failed_attempt(error: BaseException) -> None:
    """The process and its event loop go on (E1)."""

    def handler(message: Message[str]) -> None:  # noqa: ARG001 - what it raises is the point
        raise error

    fate = await Bench(handler).execute()
    assert isinstance(fate, Retry)
    assert fate.reason.startswith(type(error).__name__)


async def test_a_timed_out_thread_is_waited_for() -> None:
    """Then it is a failed attempt, although the function returned (E3)."""
    ended: list[float] = []
    fate = await Bench(taking(0.2, ended), handler_timeout_seconds=0.05).execute()
    assert fate == Retry(reason="the handler ran into its time limit")
    assert len(ended) == 1


async def test_a_thread_whose_lease_is_lost_is_waited_for() -> None:
    """Nothing is settled, and the message's next run waits too (L3, R9)."""
    ended: list[float] = []
    bench = Bench(taking(0.2, ended))
    delivery = bench.delivery()
    asyncio.get_running_loop().call_later(0.05, delivery.interrupt, Cause.LEASE_LOST)
    assert await bench.executor.execute(delivery) == Abandon()
    assert len(ended) == 1


async def test_a_thread_that_outlasts_its_time_limit_is_reported_as_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its slot (E3)."""
    monkeypatch.setattr(calls, "STUCK_SECONDS", 0.05)
    bench = Bench(taking(0.3, []), handler_timeout_seconds=0.05, concurrency=2)
    execution = asyncio.create_task(bench.execute())
    await asyncio.sleep(0.2)
    assert bench.vitals.stuck == 1
    assert bench.running == 1
    assert len(bench.fatal) == 1
    await execution
    assert bench.vitals.stuck == 0


async def test_a_sync_handler_keeps_its_message() -> None:
    """Beats go on while the thread works: of two processes only one sees the message (L2)."""
    source = MemorySource(visibility_timeout_seconds=2)
    ended: list[float] = []
    source.send("order")
    handler, other = taking(2.3, ended), source.another()
    async with Fleet(source).running(handler, drain_seconds=0), Fleet(other).running(handler, drain_seconds=0):
        await asyncio.sleep(2.5)
    assert len(ended) == 1
    assert source.is_empty
    assert source.calls["extend"] + other.calls["extend"] >= 2
