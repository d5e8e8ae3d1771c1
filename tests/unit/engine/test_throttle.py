"""The throttle: a limit is taken before the receive, so it costs no receive count; a handler's own is waited for in its slot."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from worker.limits import Limiter, LocalLimiter, SharedLimiter
from worker.message import Message
from worker.router import Batch, Router
from worker.settings import LimitSettings
from worker.testing import Fleet, MemoryPermits, MemorySource

Handler = Callable[[Message[Any]], Awaitable[None]]

STORE = "redis://nowhere"
ONCE = {"attempts": 1, "dead_letter": {"max_receive_count": 1}}
"""One receive more than the first, or one failure, and a message is dead-lettered."""


def now() -> float:
    return asyncio.get_running_loop().time()


def fleet_wide(concurrency: int | None = None, **settings: Any) -> LimitSettings:
    return LimitSettings(concurrency=concurrency, scope="fleet", store=STORE, **settings)


class Downstream:
    """Counts how many calls it has at once, and when they came."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.running = self.most = 0
        self.calls: list[float] = []
        self.cancelled = 0

    async def __call__(self, _: Message[Any]) -> None:
        self.calls.append(now())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@asynccontextmanager
async def running(*limits: Limiter) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(limit.run()) for limit in limits]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a queue in memory tells nobody that it is empty
        await asyncio.sleep(0.5)


def limited_router(handler: Handler, limit: str = "crm", **options: Any) -> Router:
    router = Router()
    router.on("*", limit=limit, **options)(handler)
    return router


def at_queue(source: MemorySource, limit: Limiter, **settings: Any) -> Fleet:
    fleet = Fleet(source, limit="crm", **settings)
    fleet.limits = {"crm": limit}
    return fleet


async def consume_together(
    source: MemorySource,
    settings: LimitSettings,
    handler: Handler,
    *,
    replicas: int,
    store: MemoryPermits,
    **queue: Any,
) -> None:
    """Run so many workers at one queue until it is empty."""
    async with AsyncExitStack() as stack:
        for number in range(replicas):
            limit = SharedLimiter("crm", settings, store, now=now)
            await stack.enter_async_context(running(limit))
            fleet = at_queue(source if number == 0 else source.another(), limit, **queue)
            router = Router()
            router.on("*")(handler)
            await stack.enter_async_context(fleet.running(router))
        await until(lambda: source.is_empty)


async def test_six_workers_have_three_messages_in_flight_at_most() -> None:
    """Zanda's case: three at once, a hundred messages, a lease that is no longer than the work; nothing is received twice."""
    source = MemorySource("crm", visibility_timeout_seconds=30, max_receive_count=1)
    for number in range(100):
        source.send(f"{number}")
    downstream, store = Downstream(20), MemoryPermits()
    await consume_together(source, fleet_wide(3), downstream, replicas=6, store=store, **ONCE)
    assert source.max_in_flight == downstream.most == store.most_held == 3
    assert len(downstream.calls) == 100
    assert all(len(receives) == 1 for receives in source.receives.values())
    assert source.dead_letters == []


async def test_a_burst_at_concurrency_one_dead_letters_nothing() -> None:
    """Jeff's case: one at a time, a thousand messages at once."""
    source = MemorySource("crm", visibility_timeout_seconds=30, max_receive_count=1)
    for number in range(1000):
        source.send(f"{number}")
    downstream = Downstream(5)
    await consume_together(source, fleet_wide(1), downstream, replicas=3, store=MemoryPermits(), **ONCE)
    assert source.max_in_flight == downstream.most == 1
    assert len(downstream.calls) == 1000
    assert all(len(receives) == 1 for receives in source.receives.values())
    assert source.dead_letters == []


async def test_workers_are_served_in_turn() -> None:
    """A worker that is busy does not keep the others from their share."""
    source, store, shares = MemorySource("crm"), MemoryPermits(), [0, 0, 0]

    def counting(number: int) -> Handler:
        async def handler(_: Message[Any]) -> None:
            shares[number] += 1
            await asyncio.sleep(1)

        return handler

    for number in range(90):
        source.send(f"{number}")
    async with AsyncExitStack() as stack:
        for number in range(3):
            limit = SharedLimiter("crm", fleet_wide(1), store, now=now)
            await stack.enter_async_context(running(limit))
            fleet = at_queue(source.another(), limit)
            router = Router()
            router.on("*")(counting(number))
            await stack.enter_async_context(fleet.running(router))
        await until(lambda: source.is_empty)
    assert max(shares) - min(shares) <= 2


async def test_a_killed_workers_permits_come_back() -> None:
    """What a worker held that died ends with its lease, and no sooner."""
    store, settings = MemoryPermits(), fleet_wide(1)
    dead, alive = (SharedLimiter("crm", settings, store, now=now) for _ in range(2))
    async with running(alive):
        task = asyncio.create_task(dead.run())
        assert len(await dead.take(1)) == 1
        died_at = now()
        store.is_down = True  # it cannot say goodbye
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.is_down = False
        assert len(await alive.take(1)) == 1
        assert 30 <= now() - died_at < 42


async def test_an_idle_queue_keeps_one_permit_and_long_polls() -> None:
    """Nobody waits: a poll is as long as ever, and holds one permit of ten."""
    source, store = MemorySource("crm"), MemoryPermits()
    limit = SharedLimiter("crm", fleet_wide(10), store, now=now)
    async with running(limit), at_queue(source, limit).running(Downstream()):
        await asyncio.sleep(100)
        assert store.held == 1
    assert source.calls["receive"] <= 7


async def test_an_idle_queue_does_not_keep_a_permit_from_who_waits() -> None:
    """Two queues share one permit: the one that is idle polls for a second at most while the other has work."""
    store = MemoryPermits()
    idle, busy = MemorySource("idle"), MemorySource("busy")
    for number in range(20):
        busy.send(f"{number}")
    limits = [SharedLimiter("crm", fleet_wide(1), store, now=now) for _ in range(2)]
    async with (
        running(*limits),
        at_queue(idle, limits[0]).running(Downstream()),
        at_queue(busy, limits[1]).running(Downstream()),
    ):
        await asyncio.sleep(25)  # the first poll had begun before anybody waited
        began = now()
        await until(lambda: busy.is_empty)
    assert now() - began < 20 * 2.5 + 5


async def test_a_lost_permit_cancels_its_handler_and_gives_the_message_back() -> None:
    """The store is gone for longer than the permits last: what runs must stop, and comes back once they are had again."""
    source, store, downstream = MemorySource("crm"), MemoryPermits(), Downstream(300)
    source.send("slow")
    limit = SharedLimiter("crm", fleet_wide(2), store, now=now)
    async with running(limit), at_queue(source, limit).running(downstream, drain_seconds=1) as consumer:
        await asyncio.sleep(50)
        assert downstream.running == 1  # renewed
        store.is_down = True
        await asyncio.sleep(15)
        assert downstream.running == 1  # its permit still holds
        assert "limit crm" in consumer.context.vitals.problems["limit"]
        await asyncio.sleep(20)
        assert (downstream.running, downstream.cancelled) == (0, 1)
        assert source.visible == 1
        receives = source.calls["receive"]
        await asyncio.sleep(60)
        assert source.calls["receive"] == receives  # nothing is received
        assert consumer.context.vitals.stuck_loops() == []
        store.is_down = False
        await asyncio.sleep(10)
        assert downstream.running == 1
        assert consumer.context.vitals.problems == {}
    assert source.dead_letters == []


async def test_an_open_limit_goes_on_with_its_share() -> None:
    """Of four at once and two workers, each has two while the store is gone; a warning says so."""
    store, settings = MemoryPermits(), fleet_wide(4, fail="open")
    limits = [SharedLimiter("crm", settings, store, now=now) for _ in range(2)]
    source, downstream = MemorySource("crm"), Downstream(5)
    async with running(*limits):
        await asyncio.sleep(15)  # each has heard of the other
        store.is_down = True
        await asyncio.sleep(40)
        for number in range(40):
            source.send(f"{number}")
        async with at_queue(source, limits[0]).running(downstream) as consumer:
            await until(lambda: source.is_empty)
            assert "this process alone, 2 at once" in consumer.context.vitals.warnings["limit"]
            assert consumer.context.vitals.problems == {}
    assert downstream.most == 2


async def test_a_handlers_own_limit_is_waited_for_in_its_slot() -> None:
    """Ten slots, two calls at once; who has waited for thirty seconds is given back, which is no failure."""
    source, downstream = MemorySource("crm", visibility_timeout_seconds=30), Downstream(10)
    for number in range(10):
        source.send(f"{number}")
    fleet = Fleet(source, attempts=1)
    fleet.limits = {"crm": LocalLimiter("crm", LimitSettings(concurrency=2))}
    await fleet.run(limited_router(downstream))
    assert downstream.most == 2
    assert len(downstream.calls) == 10
    assert max(len(receives) for receives in source.receives.values()) == 2
    assert source.dead_letters == []


async def test_at_its_last_receive_a_message_waits_on() -> None:
    """SQS would not give it again: it waits for its handler's limit as long as its lease may last."""
    source, downstream = MemorySource("crm", max_receive_count=1), Downstream(40)
    for number in range(4):
        source.send(f"{number}")
    fleet = Fleet(source, **ONCE)
    fleet.limits = {"crm": LocalLimiter("crm", LimitSettings(concurrency=1))}
    await fleet.run(limited_router(downstream))
    assert downstream.most == 1
    assert len(downstream.calls) == 4
    assert source.dead_letters == []


async def test_rates_count_at_the_start_of_a_handler() -> None:
    """Half a call a second, with ten slots: starts are two seconds apart."""
    source, downstream = MemorySource("crm"), Downstream(0)
    for number in range(12):
        source.send(f"{number}")
    await at_queue(source, LocalLimiter("crm", LimitSettings(per_second=0.5)), **ONCE).run(downstream)
    gaps = [later - earlier for earlier, later in itertools.pairwise(downstream.calls)]
    assert len(downstream.calls) == 12
    assert min(gaps) == pytest.approx(2, abs=0.01)
    assert all(len(receives) == 1 for receives in source.receives.values())


async def test_a_rate_over_a_fleet_is_one_rate() -> None:
    """Three workers start five calls a second between them."""
    source, downstream = MemorySource("crm"), Downstream(0.1)
    for number in range(100):
        source.send(f"{number}")
    await consume_together(source, fleet_wide(per_second=5), downstream, replicas=3, store=MemoryPermits())
    starts = sorted(downstream.calls)
    assert all(starts[at + 5] - starts[at] >= 0.99 for at in range(len(starts) - 5))


async def test_a_rate_that_is_far_behind_gives_messages_back_and_wastes_none_of_it() -> None:
    """A handler that may start once in ten seconds goes on doing so, however many messages give up."""
    source, downstream = MemorySource("crm"), Downstream(0)
    for number in range(20):
        source.send(f"{number}")
    fleet = Fleet(source, dead_letter={"max_receive_count": 100})
    fleet.limits = {"crm": LocalLimiter("crm", LimitSettings(per_second=0.1))}
    await fleet.run(limited_router(downstream))
    assert len(downstream.calls) == 20
    assert downstream.calls[-1] - downstream.calls[0] < 250


async def test_a_batch_is_one_call_of_its_handlers_limit() -> None:
    """A handler of batches takes a permit per call, however many messages are in it."""
    source, sizes, running_now, most = MemorySource("crm"), [], 0, 0

    async def handler(messages: Sequence[Message[Any]]) -> None:
        nonlocal running_now, most
        sizes.append(len(messages))
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(2)
        running_now -= 1

    for number in range(40):
        source.send(f"{number}")
    router = Router()
    router.on("*", limit="crm", batch=Batch(size=5))(handler)
    fleet = Fleet(source, concurrency=4)
    fleet.limits = {"crm": LocalLimiter("crm", LimitSettings(concurrency=1))}
    await fleet.run(router)
    assert most == 1
    assert sizes == [5] * 8


async def test_a_batch_of_a_limited_queue_takes_a_permit_per_message() -> None:
    """Ten messages may be in hand: batches are no larger than that."""
    source, sizes = MemorySource("crm"), []

    async def handler(messages: Sequence[Message[Any]]) -> None:
        sizes.append(len(messages))
        await asyncio.sleep(1)

    for number in range(40):
        source.send(f"{number}")
    router = Router()
    router.on("*", batch=Batch(size=50, window_seconds=30))(handler)
    await at_queue(source, LocalLimiter("crm", LimitSettings(concurrency=10))).run(router)
    assert source.max_in_flight <= 10
    assert sum(sizes) == 40


async def test_a_queue_and_its_handler_with_the_same_limit_take_it_once() -> None:
    """Else a message would wait for the permit that it holds."""
    source, downstream = MemorySource("crm"), Downstream()
    source.send("one")
    limit = LocalLimiter("crm", LimitSettings(concurrency=1))
    await at_queue(source, limit).run(limited_router(downstream))
    assert len(downstream.calls) == 1


async def test_a_limited_fifo_queue_has_so_many_lanes() -> None:
    """A permit stands for a group that is being handled."""
    source, downstream = MemorySource("crm.fifo"), Downstream()
    for number in range(30):
        source.send(f"{number}", group_id=f"group-{number % 6}")
    await at_queue(source, LocalLimiter("crm", LimitSettings(concurrency=2))).run(downstream)
    assert downstream.most == 2
    assert len(downstream.calls) == 30


async def test_a_worker_that_waits_for_a_permit_drains_at_once() -> None:
    """Nothing is on the wire and nothing in hand: there is nothing to wait for."""
    source, limit = MemorySource("crm"), LocalLimiter("crm", LimitSettings(concurrency=1))
    taken = await limit.take(1)
    async with at_queue(source, limit).running(Downstream()):
        await asyncio.sleep(5)
        began = now()
    assert now() - began < 1
    assert source.calls["receive"] == 0
    taken[0].release()


async def test_a_batch_whose_permit_is_lost_is_cancelled_and_no_other() -> None:
    """The members of the call go back; those that wait for the next one wait on."""
    source, store, sizes, cancelled = MemorySource("crm"), MemoryPermits(), [], 0

    async def handler(messages: Sequence[Message[Any]]) -> None:
        nonlocal cancelled
        sizes.append(len(messages))
        try:
            await asyncio.sleep(45 if len(sizes) == 1 else 1)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    for number in range(10):
        source.send(f"{number}")
    router = Router()
    router.on("*", limit="crm", batch=Batch(size=5))(handler)
    limit = SharedLimiter("crm", fleet_wide(1), store, now=now)
    fleet = Fleet(source, concurrency=2)
    fleet.limits = {"crm": limit}
    async with running(limit), fleet.running(router):
        await asyncio.sleep(5)
        store.is_down = True
        await asyncio.sleep(35)
        assert cancelled == 1
        store.is_down = False
        await until(lambda: source.is_empty)
    assert sizes[:2] == [5, 5]
    assert sum(sizes[1:]) == 10


async def test_who_waits_for_a_handlers_limit_goes_back_at_the_drain() -> None:
    """It has not started, and another worker has more time for it."""
    source, downstream = MemorySource("crm"), Downstream(10)
    for number in range(5):
        source.send(f"{number}")
    fleet = Fleet(source, wait_time_seconds=0)  # no poll is on the wire that would be given them again
    fleet.limits = {"crm": LocalLimiter("crm", LimitSettings(concurrency=1))}
    async with fleet.running(limited_router(downstream)):
        await asyncio.sleep(5)
    assert len(downstream.calls) == 1
    assert source.visible == 4
