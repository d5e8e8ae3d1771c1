"""What counts as an attempt: failures of the handler, not receives (S4)."""

import asyncio
from typing import Any

from support.loop_time import LoopTime

from worker import Message
from worker.engine.memory import AttemptMemory
from worker.message import Received
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


def received(times: int) -> Received:
    return Received("id", "receipt", "body", receive_count=times)


async def test_without_anything_known_each_receive_is_an_attempt() -> None:
    assert AttemptMemory(LoopTime()).number(received(4)) == 4


async def test_a_receive_without_a_failure_is_none() -> None:
    memory = AttemptMemory(LoopTime())
    memory.ended("id", 1)
    memory.ended("id", 0)
    memory.ended("id", 0)
    assert memory.number(received(4)) == 2


async def test_failures_in_place_count_each() -> None:
    memory = AttemptMemory(LoopTime())
    memory.ended("id", 3)
    assert memory.number(received(2)) == 4


async def test_the_first_run_is_never_less_than_the_first_attempt() -> None:
    """SQS counts receives loosely on standard queues."""
    memory = AttemptMemory(LoopTime())
    for _ in range(5):
        memory.ended("id", 0)
    assert memory.number(received(2)) == 1


async def test_lost_leases_use_up_no_attempt() -> None:
    """The handler was cancelled: nothing is known against the message (S4, L3)."""
    source = MemorySource(visibility_timeout_seconds=6)
    runs: list[float] = []

    async def handle(_: Message[Any]) -> None:
        runs.append(asyncio.get_running_loop().time())
        if len(runs) <= 4:
            await asyncio.sleep(20)
        elif len(runs) <= 6:
            raise RuntimeError("not yet")

    source.send("{}")
    failing = source.faults.fail("extend", times=None)
    async with Fleet(source, attempts=3, visibility_timeout_seconds=6).running(handle):
        while len(runs) < 5:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(1)
        failing.stop()
        await asyncio.sleep(60)
        assert source.is_empty
    assert len(runs) == 7
    assert source.dead_letters == []
