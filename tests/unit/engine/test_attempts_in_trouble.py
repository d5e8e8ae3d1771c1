"""Attempts are failures, also where receives overlap, and no reason counts what was not (S4, R9)."""

import asyncio
import json
from typing import Any

from worker import Message
from worker.outcome import Outcome, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


async def test_a_receive_that_waits_for_the_end_of_a_lost_one_does_not_count_it() -> None:
    """It is in hand before the old run has ended, and is an attempt less all the same (S4, R9)."""
    source = MemorySource(visibility_timeout_seconds=6)
    runs = 0

    async def handle(_: Message[Any]) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            source.faults.fail("extend", times=None)
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                await asyncio.sleep(5)  # meanwhile the message is received again
                source.faults.clear()
                raise
        raise RuntimeError("broken")

    source.send("{}")
    await Fleet(source, attempts=3, visibility_timeout_seconds=6).run(handle)
    assert runs == 4


async def test_a_message_that_comes_twice_fails_once() -> None:
    """The newest receipt counts, and is no attempt more (R9, S4)."""
    source, runs = MemorySource(), 0

    async def handle(_: Message[Any]) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(3)
        raise RuntimeError("broken")

    source.send("{}")
    source.faults.double(times=1)
    await Fleet(source, attempts=3).run(handle)
    assert runs == 3


async def test_a_head_that_is_given_back_too_often_is_not_said_to_have_failed_no_times() -> None:
    """A drain at the last receive ends its waiting in place (S4, D1)."""
    source = MemorySource("orders.fifo", max_receive_count=1)

    async def handle(_: Message[Any]) -> Outcome:
        return Retry(after=30)

    source.send("a-0", group_id="a")
    async with Fleet(source, attempts=3, dead_letter={"max_receive_count": 3}).running(handle, drain_seconds=22):
        await asyncio.sleep(2)
    (letter,) = source.dead_letters
    assert json.loads(letter.attributes["longshore.dead_letter"].value)["reason"] == "returned too often"
