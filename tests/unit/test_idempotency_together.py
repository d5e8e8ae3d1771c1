"""Entries that are due together share a call."""

import asyncio
from collections.abc import Sequence

import pytest

from worker.idempotency import StoreError, Together


class Calls:
    """Doubles numbers, one second a call; fails for a negative one."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.made.append(list(numbers))
        await asyncio.sleep(1)
        if min(numbers) < 0:
            raise StoreError("negative")
        return [2 * number for number in numbers]


async def test_what_comes_at_once_or_meanwhile_goes_together() -> None:
    calls = Calls()
    together = Together(calls, "double")
    first = [asyncio.create_task(together.submit(number)) for number in range(3)]
    await asyncio.sleep(0.5)
    then = [asyncio.create_task(together.submit(number)) for number in range(3, 6)]
    assert await asyncio.gather(*first, *then) == [0, 2, 4, 6, 8, 10]
    assert calls.made == [[0, 1, 2], [3, 4, 5]]


async def test_no_call_has_more_than_the_most() -> None:
    calls = Calls()
    together = Together(calls, "double", most=2)
    assert await asyncio.gather(*(together.submit(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert [len(call) for call in calls.made] == [2, 2, 1]


async def test_a_failed_call_fails_its_own_entries_only() -> None:
    together = Together(Calls(), "double")
    failing = asyncio.create_task(together.submit(-1))
    await asyncio.sleep(0.5)
    fine = asyncio.create_task(together.submit(1))
    with pytest.raises(StoreError, match="negative"):
        await failing
    assert await fine == 2


async def test_who_does_not_wait_any_more_takes_nobody_along() -> None:
    calls = Calls()
    together = Together(calls, "double")
    tasks = [asyncio.create_task(together.submit(number)) for number in range(2)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    assert await tasks[1] == 2
    assert calls.made == [[0, 1]]
