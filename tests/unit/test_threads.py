"""Sync handlers in threads: reused, carried context, and no way to leave early.

These run on a real event loop: threads do not know virtual time.
"""

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from worker.router.threads import RUN_IN_PLACE, Threads
from worker.testing import virtual_time

colour: ContextVar[str] = ContextVar("colour", default="none")


def on_a_real_loop(main: Callable[[Threads], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main(Threads(idle_seconds=0.05)))


def test_a_call_runs_in_a_daemon_thread_with_the_callers_context() -> None:
    async def main(threads: Threads) -> None:
        colour.set("blue")
        here = threading.current_thread()
        there, seen, total = await threads.run(lambda a, b: (threading.current_thread(), colour.get(), a + b), 2, 3)
        assert (seen, total) == ("blue", 5)
        assert there is not here
        assert there.daemon
        assert there.name.startswith("longshore-handler-")

    on_a_real_loop(main)


def test_threads_are_reused_one_per_running_call() -> None:
    async def main(threads: Threads) -> None:
        one_after_the_other = {await threads.run(threading.get_ident) for _ in range(20)}
        assert len(one_after_the_other) == 1
        meeting = threading.Barrier(8)  # passes only when eight calls run at once

        def meet() -> int:
            meeting.wait(timeout=10)
            return threading.get_ident()

        assert len(set(await asyncio.gather(*(threads.run(meet) for _ in range(8))))) == 8

    on_a_real_loop(main)


def test_idle_threads_end() -> None:
    """Nothing leaks (D5): after some idle seconds the threads are gone, and new calls get new ones."""

    async def main(threads: Threads) -> None:
        first = await threads.run(threading.current_thread)
        await asyncio.to_thread(first.join, 10)
        assert not first.is_alive()
        assert (await threads.run(threading.current_thread)).is_alive()

    on_a_real_loop(main)


def test_a_thread_taken_while_it_retires_goes_on() -> None:
    """A thread that waited long enough asks before it ends, so that no call is handed to one that is gone."""

    class Reluctant(Threads):
        asked = 0

        def retire(self, thread: Any) -> bool:
            self.asked += 1
            return self.asked > 1 and super().retire(thread)

    async def main(_: Threads) -> None:
        threads = Reluctant(idle_seconds=0.01)
        thread = await threads.run(threading.current_thread)
        await asyncio.to_thread(thread.join, 10)
        assert threads.asked == 2

    on_a_real_loop(main)


def test_a_thread_in_use_does_not_retire() -> None:
    threads = Threads()
    thread = threads._take()
    assert not threads.retire(thread)
    threads.give_back(thread)
    assert threads.retire(thread)
    assert threads._take() is not thread


def test_threads_that_retire_all_the_time_lose_no_call() -> None:
    async def main(_: Threads) -> None:
        hasty = Threads(idle_seconds=0.0)
        for number in range(200):
            assert await asyncio.wait_for(hasty.run(lambda n: n, number), 10) == number

    on_a_real_loop(main)


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), asyncio.CancelledError()], ids=lambda e: type(e).__name__
)
def test_what_the_function_raises_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def main(threads: Threads) -> None:
        async with asyncio.timeout(10):
            with pytest.raises(type(error)) as caught:
                await threads.run(fail)
        assert caught.value is error

    on_a_real_loop(main)


def test_a_stop_iteration_is_an_error_and_no_hang() -> None:
    async def main(threads: Threads) -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(threads.run(lambda: next(iter(()))), 10)

    on_a_real_loop(main)


def test_a_cancelled_caller_waits_for_the_end_of_the_function() -> None:
    """A thread cannot be cancelled, so its message stays leased until it has really ended (E3)."""

    async def main(threads: Threads) -> None:
        started, may_end = threading.Event(), threading.Event()

        def work() -> str:
            started.set()
            assert may_end.wait(timeout=10)
            return "dropped"

        task = asyncio.create_task(threads.run(work))
        await asyncio.to_thread(started.wait, 10)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    on_a_real_loop(main)


def test_a_timeout_around_a_sync_call_is_told_as_a_timeout() -> None:
    async def main(threads: Threads) -> None:
        may_end = threading.Event()
        asyncio.get_running_loop().call_later(0.05, may_end.set)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(threads.run(may_end.wait, 10), 0.01)
        assert may_end.is_set()

    on_a_real_loop(main)


def test_a_loop_that_is_gone_does_not_hurt_the_thread() -> None:
    """A call that outlives its event loop ends quietly: pytest would report an error in its thread."""
    threads = Threads(idle_seconds=0.05)
    may_end = threading.Event()
    seen: list[threading.Thread] = []

    def work() -> None:
        seen.append(threading.current_thread())
        assert may_end.wait(timeout=10)

    call = threads.run(work)

    async def start() -> None:
        call.send(None)  # up to its first wait, as a task that is then left alone

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    loop.close()
    call.close()
    may_end.set()

    async def use_again() -> int:
        return await asyncio.wait_for(threads.run(lambda: 1), 10)

    assert asyncio.run(use_again()) == 1
    seen[0].join(10)
    assert not seen[0].is_alive()


def test_nothing_keeps_a_message_alive_after_its_call() -> None:
    """Neither the idle thread nor the traceback of what was raised; no garbage collector is needed."""

    class Message:
        pass

    async def main(threads: Threads) -> None:
        for function in (lambda _: None, lambda _: 1 / 0):
            message, gone = Message(), threading.Event()
            weakref.finalize(message, gone.set)
            with contextlib.suppress(ZeroDivisionError):
                await threads.run(function, message)
            del message
            assert await asyncio.to_thread(gone.wait, 10)

    gc.disable()
    try:
        asyncio.run(main(Threads()))
    finally:
        gc.enable()


def test_where_threads_cannot_be_waited_for_the_function_runs_in_place() -> None:
    """Virtual time does not know threads; context variables stay the function's own all the same."""

    async def main() -> None:
        RUN_IN_PLACE.set(True)
        threads = Threads()
        assert await threads.run(threading.get_ident) == threading.get_ident()
        await threads.run(colour.set, "red")
        assert colour.get() == "none"

    virtual_time.run(main())
