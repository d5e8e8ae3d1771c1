"""What counts as an attempt: failures of the handler, not receives (S4)."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from support.loop_time import LoopTime

from worker import Message
from worker.engine.memory import AttemptMemory
from worker.errors import Fault, PermanentError, SourceError
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
    runs = 0

    async def handle(_: Message[Any]) -> None:
        nonlocal runs
        runs += 1
        if runs <= 4:
            await asyncio.sleep(20)
        elif runs <= 6:
            raise RuntimeError("not yet")

    source.send("{}")
    source.faults.fail_entries("extend", SourceError(Fault.LOST, "ReceiptHandleIsInvalid"), times=4)
    async with Fleet(source, attempts=3, visibility_timeout_seconds=6).running(handle):
        await asyncio.sleep(120)
        assert source.is_empty
    assert runs == 7
    assert source.dead_letters == []


async def test_a_dead_letter_that_is_refused_was_an_attempt(lines: list[MutableMapping[str, Any]]) -> None:
    """It comes again, and what the log says of its attempts goes on (S5)."""
    source = MemorySource()

    async def handle(_: Message[Any]) -> None:
        raise PermanentError("sold out")

    source.send("{}")
    source.faults.deny("dead_letter")
    async with Fleet(source, retry={"base_seconds": 1, "max_seconds": 5}).running(handle):
        await asyncio.sleep(30)
    attempts = [line["attempt"] for line in lines if line["event"] == "dead letter"]
    assert attempts[:4] == [1, 2, 3, 4]
