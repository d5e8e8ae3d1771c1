"""Rules of `worker.aws.deadline`."""

import asyncio

import pytest

from worker.aws.deadline import DeadlineExceededError, within

SOON = 0.02


async def test_what_the_call_returns_or_raises_is_passed_on() -> None:
    async def fails() -> None:
        raise LookupError("no")

    assert await within(asyncio.sleep(0, "answer"), 5) == "answer"
    with pytest.raises(LookupError):
        await within(fails(), 5)


async def test_a_call_past_its_deadline_is_cancelled_and_awaited() -> None:
    """When `within` raises, the call has ended: nothing of it goes on behind our back (R5)."""
    ended = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(SOON)
            ended.set()

    with pytest.raises(DeadlineExceededError):
        await within(hangs(), SOON)
    assert ended.is_set()


async def test_a_result_that_arrives_with_the_cancellation_is_used() -> None:
    """Received messages are never dropped because the deadline fired at the same moment (R5)."""

    async def answers_anyway() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "ten messages"
        return ""

    assert await within(answers_anyway(), SOON) == "ten messages"


async def test_cancelling_the_caller_cancels_and_awaits_the_call() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(SOON)
            ended.set()

    caller = asyncio.create_task(within(hangs(), 60))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_call_that_ignores_cancellation_is_left_behind_and_forgotten() -> None:
    """Awaiting what was cancelled has a bound, too; what comes of it later is swallowed, not reported (R5)."""
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise ConnectionResetError("late")

    before = asyncio.all_tasks()
    with pytest.raises(DeadlineExceededError):
        await within(stubborn(), SOON)
    assert len(asyncio.all_tasks() - before) == 1
    release.set()
    await asyncio.sleep(SOON)
    assert asyncio.all_tasks() == before
