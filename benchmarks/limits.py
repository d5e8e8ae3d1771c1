"""What limits cost: permits and rates of one process, and permits that a fleet shares in Redis, taken in bulk."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.figures import Figures, goal
from benchmarks.servers import Redis, started
from benchmarks.tap import Tap
from worker import Message, Router
from worker.engine.delivery import Delivery
from worker.engine.room import Room
from worker.limits import Limiter, LocalLimiter, Permit, granted, open_limits
from worker.router import Route
from worker.settings import LimitSettings
from worker.source import MAX_BATCH
from worker.telemetry.metrics import LimitMetrics
from worker.testing import Fleet, MemorySource

__all__ = ["MICROSECONDS_GOAL", "ROUND_TRIPS_GOAL", "run"]

MICROSECONDS_GOAL = 3.0
"""Of CPU per message, for a limit that one process keeps by itself."""
ROUND_TRIPS_GOAL = 1.0
"""Per message, for one that the fleet keeps: taking and giving back one by one would be two."""
ROUNDS = 15
MESSAGES = 4_000
RECEIVE_LOOPS = 4
FLEET_MESSAGES = 4_000
HANDLER_SECONDS = 0.02
PLACES = 40
PROCESSES = (1, 3)
LIMIT = "api"

router = Router()


@router.on("limited", limit=LIMIT)
async def _limited(message: Message[bytes]) -> None:
    """Do nothing, within a limit."""


@router.on("free")
async def _free(message: Message[bytes]) -> None:
    """Do nothing."""


def run() -> bool:
    """Measure, print, and return whether the goals are met."""
    print(f"limits, in one process: {ROUNDS} rounds of {MESSAGES:,} messages")
    print(f"{'  CPU us per message':24}{'min':>9}{'median':>9}{'max':>9}")
    met = [
        asyncio.run(_local("queue's, ten a receive", LimitSettings(concurrency=PLACES), _receives)),
        asyncio.run(_local("handler's, one a call", LimitSettings(concurrency=PLACES), _calls)),
        asyncio.run(_local("rate that is not reached", LimitSettings(per_second=10_000), _starts)),
    ]
    print(f"limits, over the fleet: {PLACES} permits in Redis, handlers of {HANDLER_SECONDS * 1000:g} ms, {RECEIVE_LOOPS} receive loops a process")  # fmt: skip
    with started(Redis()) as redis:
        if redis is not None:
            met += [asyncio.run(_fleet(redis, processes)) for processes in PROCESSES]
    return all(met)


async def _local(name: str, settings: LimitSettings, work: Callable[[LocalLimiter, int], Awaitable[float]]) -> bool:
    limiter = LocalLimiter(LIMIT, settings)
    await work(limiter, MESSAGES)
    found = Figures([await work(limiter, MESSAGES) / MESSAGES * 1e6 for _ in range(ROUNDS)])
    print(f"  {name:24}{found.spread()[2:]}  {goal(found.median, MICROSECONDS_GOAL, ' us')}")
    return found.median <= MICROSECONDS_GOAL


async def _receives(limiter: LocalLimiter, messages: int) -> float:
    """Take as many as a receive asks for, and give them back one by one, as slots do; return the CPU seconds."""
    began = time.thread_time()
    for _ in range(messages // MAX_BATCH):
        for permit in await granted(limiter.take(MAX_BATCH)):
            permit.release()
    return time.thread_time() - began


async def _calls(limiter: LocalLimiter, messages: int) -> float:
    """Take the turn of a call where the engine does, less that of a call without a limit; return the CPU seconds."""
    fleet = Fleet(MemorySource("orders"))
    fleet.limits = {LIMIT: limiter}
    async with fleet.running(router) as consumer:
        room = Room(consumer.context, router)
        limited, free = [await _turns(room, route, messages) for route in router.routes]
    return limited - free


async def _turns(room: Room, route: Route, messages: int) -> float:
    nobody: list[Delivery] = []
    began = time.thread_time()
    for _ in range(messages):
        async with room.turn(route, lambda: nobody):
            pass
    return time.thread_time() - began


async def _starts(limiter: LocalLimiter, messages: int) -> float:
    """Ask for the moment to start when it is there; waiting for it, between the calls, is not measured."""
    spent, loop = 0.0, asyncio.get_running_loop()
    for _ in range(messages):
        ready_at = loop.time() + 1.2e-4
        while loop.time() < ready_at:
            pass
        began = time.thread_time()
        await limiter.start(60.0)
        spent += time.thread_time() - began
    return spent


async def _fleet(server: Redis, processes: int) -> bool:
    """Let the receive loops of so many processes share the permits; count what Redis is asked."""
    async with Tap(server.port) as tap, AsyncExitStack() as stack:
        store = tap.through(server.make_database())
        limits = {LIMIT: LimitSettings(concurrency=PLACES, scope="fleet", store=store)}
        limiters: list[Limiter] = []
        for _ in range(processes):
            opened = open_limits(limits, {LIMIT}, service="benchmark", metrics=LimitMetrics, now=time.monotonic)
            limiters.append((await stack.enter_async_context(opened))[LIMIT])
        await _handle(limiters, PLACES * processes)
        before, began = tap.round_trips, time.thread_time()
        await _handle(limiters, FLEET_MESSAGES)
        round_trips = (tap.round_trips - before) / FLEET_MESSAGES
        microseconds = (time.thread_time() - began) / FLEET_MESSAGES * 1e6
    who = "process" if processes == 1 else "processes"
    print(f"  {processes} {who}: {round_trips:.2f} round trips per message, {goal(round_trips, ROUND_TRIPS_GOAL, '')}; {microseconds:.0f} us of CPU, the counting of round trips included")  # fmt: skip
    return round_trips <= ROUND_TRIPS_GOAL


async def _handle(limiters: list[Limiter], messages: int) -> None:
    left = messages

    async def call(permit: Permit) -> None:
        await asyncio.sleep(HANDLER_SECONDS)
        permit.release()

    async def receive(limiter: Limiter, calls: asyncio.TaskGroup) -> None:
        nonlocal left
        while left > 0:
            permits = await granted(limiter.take(MAX_BATCH))
            left -= len(permits)
            for permit in permits:
                calls.create_task(call(permit))

    async with asyncio.TaskGroup() as calls:
        for limiter in limiters:
            for _ in range(RECEIVE_LOOPS):
                calls.create_task(receive(limiter, calls))
