"""Handlers that we cancel: the cause decides, whatever they do about it."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.bench import Bench, HandlerFunction, deaf, sleeping
from support.loop_time import now

from worker.engine.delivery import Cause
from worker.message import Message
from worker.outcome import Abandon, Ack, Fate, Release, Retry
from worker.router import Router
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


FATES = {
    Cause.THROTTLED: Release,
    Cause.TIMEOUT: Retry,
    Cause.LEASE_CAP: Retry,
    Cause.PERMIT_LOST: Release,
    Cause.MARK_LOST: Release,
    Cause.DRAIN: Release,
    Cause.LEASE_LOST: Abandon,
}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("handler", [sleeping, deaf])
async def test_the_cause_of_an_interruption_decides(handler: HandlerFunction, cause: Cause) -> None:
    """Whether the handler obeys or goes on and returns: time limit and cap are failed attempts, a drain gives back,
    a lost lease is left alone (E1, E3).
    """  # noqa: D205 - one sentence
    bench = Bench(handler)
    delivery = bench.delivery()
    asyncio.get_running_loop().call_later(5, delivery.interrupt, cause)
    fate = await bench.executor.execute(delivery)
    assert type(fate) is FATES[cause]
    assert now() == (5 if handler is sleeping else 1000)


@pytest.mark.parametrize("first", Cause)
@pytest.mark.parametrize("second", Cause)
async def test_a_stronger_cause_replaces_a_weaker_one(first: Cause, second: Cause) -> None:
    """And cancels once more; a weaker one changes nothing (E3)."""
    cancellations: list[float] = []

    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - how it ends is the point
        for _ in range(3):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancellations.append(now())

    bench = Bench(handler)
    delivery = bench.delivery()
    asyncio.get_running_loop().call_later(5, delivery.interrupt, first)
    asyncio.get_running_loop().call_later(6, delivery.interrupt, second)
    fate = await bench.executor.execute(delivery)
    assert type(fate) is FATES[max(first, second, key=lambda cause: cause.value)]
    assert cancellations == ([5, 6] if second.value > first.value else [5])


@pytest.mark.parametrize(
    ("cause", "fate"), [(Cause.LEASE_CAP, Release()), (Cause.DRAIN, Release()), (Cause.LEASE_LOST, Abandon())]
)
async def test_what_is_interrupted_before_it_starts_never_runs(cause: Cause, fate: Fate) -> None:
    """It has not failed either, so it is no attempt (S4, S8)."""
    runs: list[int] = []

    async def handler(message: Message[str]) -> None:
        runs.append(message.receive_count)

    bench = Bench(handler)
    delivery = bench.delivery()
    delivery.interrupt(cause)
    assert await bench.executor.execute(delivery) == fate
    assert runs == []


async def test_waiting_for_the_process_wide_cap_is_no_attempt() -> None:
    """A message that has waited until its lease's cap goes back unfailed (R10, S4)."""
    bench = Bench(sleeping, cap=1)
    first, second = bench.delivery(), bench.delivery()
    running = [asyncio.create_task(bench.executor.execute(delivery)) for delivery in (first, second)]
    await asyncio.sleep(5)
    second.interrupt(Cause.LEASE_CAP)
    assert await running[1] == Release()
    first.interrupt(Cause.LEASE_CAP)
    assert isinstance(await running[0], Retry)
    assert await bench.execute() == Ack()  # the place under the cap came back


async def test_the_handlers_own_time_limit_comes_before_the_queues() -> None:
    """`router.on(..., timeout=)` replaces `handler_timeout_seconds` (E3)."""
    source = MemorySource(max_receive_count=None)
    router = Router()
    router.on("*", timeout=7)(sleeping)
    source.send("order")
    async with Fleet(source, handler_timeout_seconds=90, attempts=1).running(router):
        await asyncio.sleep(8)
    (dead,) = source.dead_letters
    assert dead.arrived_at == pytest.approx(7, abs=0.1)
    assert "the handler ran into its time limit" in str(dead.attributes["longshore.dead_letter"].value)


async def test_a_handler_in_its_own_timeout_obeys_ours() -> None:
    """Our cancellation does not come out of it as the handler's `TimeoutError` (E1, E3)."""
    swallowed: list[str] = []

    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - how it ends is the point
        try:
            async with asyncio.timeout(100):
                await asyncio.sleep(1000)
        except TimeoutError:
            swallowed.append("timeout")

    bench = Bench(handler, handler_timeout_seconds=10)
    assert await bench.execute() == Retry(reason="the handler ran into its time limit")
    assert swallowed == []
    assert now() == 10


async def test_a_timed_out_handler_keeps_its_message_until_it_has_ended() -> None:
    """It ignores its cancellation for a hundred seconds: leased and unsettled, then a failed attempt (E3)."""
    source = MemorySource(visibility_timeout_seconds=30)
    runs: list[float] = []

    async def handler(message: Message[str]) -> None:
        runs.append(now())
        while message.receive_count == 1 and now() < 110:
            try:
                await asyncio.sleep(110 - now())
            except asyncio.CancelledError:
                continue

    message_id = source.send("order")
    fleet = Fleet(source, handler_timeout_seconds=10, retry={"base_seconds": 20})
    async with fleet.running(handler):
        await asyncio.sleep(1)
        async with Fleet(source.another()).running(handler):
            await asyncio.sleep(200)
    assert len(source.receives[message_id]) == 2
    assert runs == [0, pytest.approx(125, abs=6)]
    assert fleet.consumer is not None
    assert fleet.consumer.context.metrics.snapshot()["settled"]["retry"] == 1


# Cancelled from outside


@pytest.mark.parametrize("handler", [sleeping, deaf])
async def test_a_cancellation_from_outside_passes_once_the_handler_has_ended(handler: HandlerFunction) -> None:
    """It is no outcome: nothing is settled, also if the handler swallowed it (E1)."""
    bench = Bench(handler)
    execution = asyncio.create_task(bench.execute())
    await asyncio.sleep(5)
    execution.cancel()
    with pytest.raises(asyncio.CancelledError):
        await execution
    assert now() == (5 if handler is sleeping else 1000)
    assert bench.running == 0


# Stuck


async def test_a_handler_that_ignores_its_cancellation_is_reported(logs: list[EventDict]) -> None:
    """Ten seconds after it, with the place where it waits; the report ends with the handler (E3)."""
    bench = Bench(deaf, handler_timeout_seconds=5, concurrency=10)
    execution = asyncio.create_task(bench.execute())
    await asyncio.sleep(14)
    assert bench.vitals.stuck == 0
    await asyncio.sleep(2)
    assert bench.vitals.stuck == 1
    assert bench.metrics.snapshot()["stuck"] == 1
    (line,) = [line for line in logs if line["event"] == "a handler ignores its cancellation"]
    assert any("bench.py" in place for place in line["stack"])
    await execution
    assert bench.vitals.stuck == 0
    assert bench.metrics.snapshot()["stuck"] == 0
    assert bench.fatal == []


async def test_a_handler_that_obeys_is_not_reported(logs: list[EventDict]) -> None:
    """Nothing is left of its interruption (E3)."""
    bench = Bench(sleeping, handler_timeout_seconds=5)
    await bench.execute()
    await asyncio.sleep(60)
    assert bench.vitals.stuck == 0
    assert logs == []


async def test_when_half_the_slots_are_stuck_the_process_ends() -> None:
    """Fewer than that cost their slots only (E3)."""
    bench = Bench(deaf, handler_timeout_seconds=5, concurrency=4)
    executions = [asyncio.create_task(bench.execute())]
    await asyncio.sleep(100)
    assert bench.fatal == []
    executions.append(asyncio.create_task(bench.execute()))
    await asyncio.sleep(14)
    assert bench.fatal == []
    await asyncio.sleep(2)
    (sentence,) = bench.fatal
    assert "2 of 4 slots of queue orders" in sentence
    await asyncio.gather(*executions)
