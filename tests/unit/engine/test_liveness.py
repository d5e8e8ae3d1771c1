"""Liveness: a stuck loop is found by name, everything else is left alone."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from worker.engine.clock import Clock
from worker.engine.consumer import FULL_GRACE_SECONDS, Consumer
from worker.engine.gate import PROBE_GRACE_SECONDS
from worker.engine.receiver import CALL_GRACE_SECONDS
from worker.engine.survey import LOOK_GRACE_SECONDS
from worker.engine.vitals import Vitals
from worker.errors import Fault, SourceError
from worker.message import Message
from worker.router import Router
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource


def now() -> float:
    return asyncio.get_running_loop().time()


def handler_of(seconds: float) -> Callable[[Message[str]], Awaitable[None]]:
    async def handler(_: Message[str]) -> None:
        await asyncio.sleep(seconds)

    return handler


def send(source: MemorySource, count: int) -> None:
    for number in range(count):
        source.send(str(number))


async def stays_alive(consumer: Consumer, seconds: float) -> None:
    """Look every second."""
    until = now() + seconds
    while now() < until:
        await asyncio.sleep(1)
        assert consumer.context.vitals.stuck_loops() == [], now()


async def dies_within(consumer: Consumer, seconds: float) -> list[str]:
    """Return what is stuck once something is."""
    async with asyncio.timeout(seconds):
        while not (stuck := consumer.context.vitals.stuck_loops()):  # noqa: ASYNC110  # a probe polls
            await asyncio.sleep(1)
    return stuck


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Crashes are logged with their tracebacks; here they are wanted."""
    with structlog.testing.capture_logs() as lines:
        yield lines


# What is alive


async def test_an_idle_queue_is_alive() -> None:
    """A loop that completes a long poll every twenty seconds is heard of (D3)."""
    async with Fleet(MemorySource()).running(handler_of(0)) as consumer:
        assert consumer.context.vitals.stuck_loops() == []
        await stays_alive(consumer, 3600)


async def test_full_for_an_hour_is_alive() -> None:
    """Handlers that need their hour hold all slots, and the loop waits for room: knowingly, not stuck (D3)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 6)
    async with Fleet(source, concurrency=2, max_lease_seconds=3600).running(handler_of(3550)) as consumer:
        await stays_alive(consumer, 7200)
        assert consumer.in_hand == 2


async def test_full_with_slots_given_back_is_alive() -> None:
    """However long a backlog lasts, a slot that comes back within the handler's time limit shows life (D3)."""
    source = MemorySource()
    send(source, 400)
    async with Fleet(source, concurrency=3, handler_timeout_seconds=20).running(handler_of(19)) as consumer:
        await stays_alive(consumer, 2000)
        assert consumer.in_hand == 3


async def test_a_handlers_own_time_limit_counts() -> None:
    """A queue whose slowest handler may run longer than the queue's limit is as patient as that handler (D3)."""
    router = Router()
    router.on("*", timeout=600)(handler_of(590))
    source = MemorySource()
    send(source, 4)
    async with Fleet(source, concurrency=1, handler_timeout_seconds=20).running(router) as consumer:
        await stays_alive(consumer, 1200)


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_dark_for_half_an_hour_is_alive(how: str) -> None:
    """Whether AWS answers is no question of liveness, also for messages in hand that cannot be settled (D3)."""
    source = MemorySource(visibility_timeout_seconds=1200)
    send(source, 30)
    async with Fleet(source, concurrency=10, handler_timeout_seconds=20).running(handler_of(15)) as consumer:
        await stays_alive(consumer, 10)
        if how == "refused":
            source.faults.dark(now(), now() + 1800)
        else:
            rule = source.faults.hang("*", 10, times=None)
            asyncio.get_running_loop().call_later(1800, rule.stop)
        await stays_alive(consumer, 1750)
        assert consumer.context.vitals.problems
        await stays_alive(consumer, 300)
        assert (consumer.context.vitals.problems, source.visible) == ({}, 0)


@pytest.mark.parametrize("operation", ["delete", "extend", "dead_letter"])
async def test_denied_for_hours_is_alive(operation: Any) -> None:
    """A paused intake is no stuck loop: restarting the process would not give it a permission (D3, S6)."""
    source = MemorySource(visibility_timeout_seconds=60)
    source.faults.deny(operation)
    send(source, 30)

    async def handler(message: Message[str]) -> None:
        await asyncio.sleep(25)
        if operation == "dead_letter":
            raise SourceError(Fault.INVALID, message.body)

    async with Fleet(source, concurrency=3, attempts=1, handler_timeout_seconds=30).running(handler) as consumer:
        await stays_alive(consumer, 3 * 3600)
        assert consumer.context.vitals.problems
        source.faults.clear()


async def test_patience_starts_anew_when_settlement_works_again() -> None:
    """Slots that could not be given back while the gate was closed get the whole bound from its opening on (D3, S6)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 2)
    rule = source.faults.fail("check_settlement", times=None)

    async def stubborn(_: Message[str]) -> None:
        until = now() + 115
        while now() < until:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(until - now())

    async with Fleet(source, concurrency=1, handler_timeout_seconds=20).running(stubborn) as consumer:
        await stays_alive(consumer, 5)
        consumer._gate.failed(Fault.DENIED, "AccessDenied")
        await stays_alive(consumer, 75)
        assert consumer._gate.is_closed
        rule.stop()
        await stays_alive(consumer, 30)
        assert not consumer._gate.is_closed


async def test_without_its_queue_it_is_alive() -> None:
    """A missing queue is a matter of readiness (D3)."""
    source = MemorySource()
    source.exists = False
    async with Fleet(source).running(handler_of(0)) as consumer:
        await stays_alive(consumer, 3600)
        assert consumer.context.vitals.problems


async def test_slow_answers_are_alive() -> None:
    """A receive may use its whole deadline, wait and ten seconds, each time (D3)."""
    source = MemorySource()
    source.faults.hang("receive", 29.9, times=None)
    async with Fleet(source).running(handler_of(0)) as consumer:
        await stays_alive(consumer, 1800)


async def test_a_draining_queue_is_alive() -> None:
    """A handler that takes its time at the end is waited for (D1, D3)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 1)
    async with Fleet(source, concurrency=1).running(handler_of(3000)) as consumer:
        await asyncio.sleep(1)
        consumer.quiet(now() + 3600)
        await stays_alive(consumer, 2900)


# What is stuck


@pytest.mark.parametrize(
    ("operation", "loop", "doing", "seconds"),
    [
        ("receive", "receive-orders-1", "waiting for SQS", 20 + 20 + CALL_GRACE_SECONDS),
        ("depth", "survey-orders", "reading attributes", 60 + LOOK_GRACE_SECONDS),
        ("describe", "survey-orders", "reading attributes", 400 + LOOK_GRACE_SECONDS),
    ],
)
async def test_a_call_that_never_returns_is_found(operation: Any, loop: str, doing: str, seconds: float) -> None:
    """A source that does not keep its own deadline leaves its loop stuck, by name (D3)."""
    source = MemorySource()
    async with Fleet(source).running(handler_of(0)) as consumer:
        await stays_alive(consumer, 30)
        source.faults.hang(operation, times=None)
        assert await dies_within(consumer, seconds) == [f"{loop}: {doing}"]
        source.faults.clear()
        await consumer.cut_short()


async def test_a_probe_that_never_returns_is_found() -> None:
    """A closed gate waits for its probe; one that never ends would keep intake shut for ever (D3, S6)."""
    source = MemorySource(visibility_timeout_seconds=5)
    source.faults.deny("delete")
    source.faults.hang("check_settlement", times=None)
    send(source, 1)
    async with Fleet(source).running(handler_of(0), drain_seconds=10) as consumer:
        found = await dies_within(consumer, 30 + PROBE_GRACE_SECONDS)
        assert found == ["gate-orders: asking whether settlement works again"]


async def test_one_deaf_queue_is_found_among_others() -> None:
    """The loop of exactly one queue hangs: it is named, and the others go on (D3, A10)."""
    deaf, other = MemorySource("deaf"), MemorySource("other")
    deaf.faults.hang("receive", times=None)
    async with Fleet(deaf).running(handler_of(0), drain_seconds=1) as one, Fleet(other).running(handler_of(0)) as two:
        assert await dies_within(one, 60) == ["receive-deaf-1: waiting for SQS"]
        assert two.context.vitals.stuck_loops() == []
        send(other, 20)
        await asyncio.sleep(30)
        assert other.is_empty


async def test_slots_that_never_come_back_are_found() -> None:
    """Full beyond the handler's time limit and thirty seconds: whatever holds the slots, it is not working (D3)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 5)
    may_end = asyncio.Event()

    async def stubborn(_: Message[str]) -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    async with Fleet(source, concurrency=2, handler_timeout_seconds=20).running(stubborn, drain_seconds=1) as consumer:
        started = now()
        await stays_alive(consumer, 20 + FULL_GRACE_SECONDS - 1)
        assert await dies_within(consumer, 5) == ["receive-orders-1: waiting for room"]
        assert now() - started == pytest.approx(20 + FULL_GRACE_SECONDS, abs=2)
        may_end.set()


async def test_a_slot_given_back_is_life() -> None:
    """One slot that comes back starts the patience anew for a loop that waits for room (D3)."""

    class FixedClock(Clock):
        seconds = 0.0

        def now(self) -> float:
            return self.seconds

        def wall(self) -> float:
            return self.seconds

    clock = FixedClock()
    vitals = Vitals(clock, full_bound_seconds=50)
    with vitals.pulse("receive-1") as pulse:
        pulse.wait_for_room()
        clock.seconds = 51
        assert vitals.stuck_loops() == ["receive-1: waiting for room"]
        vitals.slot_freed_at = 40
        assert vitals.stuck_loops() == []
        clock.seconds = 91
        assert vitals.stuck_loops() != []
    assert vitals.stuck_loops() == []
