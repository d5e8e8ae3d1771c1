"""Any program as a handler, interrupted at any time."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.bench import Bench
from support.loop_time import current_task

from worker.engine.delivery import Cause, Delivery
from worker.errors import PermanentError
from worker.message import Message
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Release, Retry
from worker.testing import virtual_time

Steps = list[Any]
seconds = st.sampled_from([0, 0.5, 1, 2, 3])
leaves = st.one_of(
    st.tuples(st.just("sleep"), seconds),
    st.tuples(st.just("raise"), st.sampled_from([ValueError, TimeoutError, asyncio.CancelledError, PermanentError])),
    st.tuples(st.sampled_from(["cancel itself", "uncancel itself", "forget a timer"])),
)
programs = st.recursive(
    st.lists(leaves, min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            leaves,
            st.tuples(st.just("timeout"), seconds, inner),
            st.tuples(st.just("group"), inner, inner),
            st.tuples(st.sampled_from(["shield", "swallow", "clean up"]), inner),
        ),
        min_size=1,
        max_size=3,
    ),
    max_leaves=10,
)


async def perform(steps: Steps) -> None:
    """Do what handlers do."""
    for step in steps:
        match step:
            case "sleep", delay:
                await asyncio.sleep(delay)
            case "raise", error:
                raise error
            case ("cancel itself",):
                current_task().cancel()
            case ("uncancel itself",):
                current_task().uncancel()
            case ("forget a timer",):
                asyncio.get_running_loop().call_later(1.5, current_task().cancel)
            case _:
                await perform_around(step)


async def perform_around(step: Any) -> None:
    match step:
        case "timeout", delay, inner:
            async with asyncio.timeout(delay):
                await perform(inner)
        case "group", one, other:
            async with asyncio.TaskGroup() as group:
                group.create_task(perform(one))
                await perform(other)
        case "shield", inner:
            await asyncio.shield(asyncio.ensure_future(perform(inner)))
        case "swallow", inner:
            try:
                await perform(inner)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
        case "clean up", inner:
            try:
                await perform(inner)
            finally:
                await asyncio.sleep(1)


FATES: dict[Cause | None, tuple[type, ...]] = {
    None: (Ack, Retry, DeadLetter),
    Cause.THROTTLED: (Release,),
    Cause.TIMEOUT: (Retry,),
    Cause.LEASE_CAP: (Retry, Release),
    Cause.PERMIT_LOST: (Release,),
    Cause.MARK_LOST: (Release,),
    Cause.DRAIN: (Release,),
    Cause.LEASE_LOST: (Abandon,),
}


@given(
    program=programs,
    interruptions=st.lists(st.tuples(seconds, st.sampled_from(Cause)), max_size=4),
    cancelled_after=st.none() | seconds,
)
@settings(max_examples=150, deadline=None)
def test_any_handler_interrupted_at_any_time_ends_in_one_fate(
    program: Steps, interruptions: list[tuple[float, Cause]], cancelled_after: float | None
) -> None:
    """The strongest cause decides, a cancellation from outside comes through, and no other one is left behind (E1)."""

    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - how it ends is the point
        await perform(program)

    async def execute(bench: Bench, delivery: Delivery) -> tuple[Fate | None, Cause | None]:
        fate, cause = await bench.executor.execute(delivery), delivery.cause
        assert not current_task().cancelling()
        await asyncio.sleep(10)  # the settlement: nothing hits it
        return fate, cause

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # shielded children fail unseen
        bench = Bench(handler)
        delivery = bench.delivery()
        task = asyncio.create_task(execute(bench, delivery))
        for delay, cause in interruptions:
            loop.call_later(delay, delivery.interrupt, cause)
        if cancelled_after is not None:
            loop.call_later(cancelled_after, task.cancel)
        await asyncio.wait({task}, timeout=100)
        assert task.cancelled() == (cancelled_after is not None)
        assert delivery.run is None
        assert bench.running == 0
        assert bench.vitals.stuck == 0
        if not task.cancelled():
            fate, decided_by = task.result()
            assert isinstance(fate, FATES[decided_by])

    with capture_logs():
        virtual_time.run(main())
