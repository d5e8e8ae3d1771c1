"""Virtual time: the clock jumps, a deadlock raises, an absent package is named."""

import asyncio
import sys
import time

import pytest

from worker.errors import UsageError
from worker.testing import virtual_time


async def test_an_hour_passes_in_a_moment() -> None:
    """Sleeping moves the loop's clock by exactly the time slept, and the real one hardly."""
    started = time.monotonic()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(3600)
    assert loop.time() == 3600
    assert time.monotonic() - started < 5


async def test_the_clock_starts_at_zero_and_counts_whole_microseconds() -> None:
    """Sums of times stay readable: ten times a tenth of a second is a second."""
    loop = asyncio.get_running_loop()
    assert loop.time() == 0
    for _ in range(10):
        await asyncio.sleep(0.1)
    assert loop.time() == 1


async def test_waiting_for_a_moment_that_is_no_whole_microsecond_ends() -> None:
    """The clock never stops short of a timer, so a loop that asks for the time makes progress."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 1 / 3
    rounds = 0
    while rounds < 10 and (left := deadline - loop.time()) > 0:
        await asyncio.sleep(left)
        rounds += 1
    assert rounds == 1


async def test_timers_fire_in_the_order_of_their_times() -> None:
    order: list[str] = []

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        order.append(name)

    await asyncio.gather(after(30, "late"), after(10, "early"), after(20, "between"))
    assert order == ["early", "between", "late"]


def test_run_returns_the_result() -> None:
    """Without pytest, `run` gives a coroutine its own virtual loop."""

    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 86_400


def test_a_deadlock_raises_and_names_who_waits() -> None:
    """When nothing can ever happen again the test fails at once instead of hanging."""

    async def wait_for_ever() -> None:
        await asyncio.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(virtual_time.DeadlockError, match=r"no timer is left at 5 s: .*wait_for_ever"):
        virtual_time.run(wait_for_ever())


async def test_it_says_whether_it_runs() -> None:
    assert virtual_time.is_running()


@pytest.mark.real_time
async def test_a_test_may_ask_for_the_real_clock() -> None:
    assert not virtual_time.is_running()


def test_outside_of_a_loop_it_does_not_run() -> None:
    assert not virtual_time.is_running()


def test_an_absent_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """async-solipsism is a development dependency; who lacks it is told what to install (X1)."""
    monkeypatch.setitem(sys.modules, "async_solipsism", None)
    with pytest.raises(UsageError, match="pip install async-solipsism"):
        virtual_time.new_event_loop()
