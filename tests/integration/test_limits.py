"""Limits over a fleet, in a real Redis: six workers on one queue, a worker that is killed, a Redis that goes and comes back."""

import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis import asyncio as redis_client
from structlog.testing import capture_logs
from support.redis import Redis

from worker import Message, Router
from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.engine.clock import SystemClock, Ticker
from worker.engine.consumer import Consumer
from worker.engine.context import QueueContext
from worker.engine.vitals import Vitals
from worker.limits import SharedLimiter, open_limits
from worker.limits.redis import RedisPermits
from worker.settings import LimitSettings, QueueSettings
from worker.telemetry.metrics import LimitMetrics, Metrics

pytestmark = [pytest.mark.redis, pytest.mark.integration]

MESSAGES = 100
REPLICAS = 6
CLOCK = SystemClock()

HOLDER = """
import asyncio, sys
from worker.engine.clock import SystemClock
from worker.limits import SharedLimiter
from worker.limits.redis import RedisPermits
from worker.settings import LimitSettings

async def main():
    settings = LimitSettings(concurrency=2, scope="fleet", store=sys.argv[1])
    store = RedisPermits(sys.argv[1], "tests", sys.argv[2])
    limit = SharedLimiter("crm", settings, store, now=SystemClock().now, lease_seconds=3)
    running = asyncio.create_task(limit.run())
    permits = await limit.take(2)
    print(len(permits), flush=True)
    await running

asyncio.run(main())
"""


def fleet_wide(server: Redis, **settings: Any) -> LimitSettings:
    return LimitSettings(scope="fleet", store=server.url, **settings)


@asynccontextmanager
async def consumed(
    source: SqsSource, settings: QueueSettings, router: Router, limit: LimitSettings, service: str
) -> Any:
    """One worker as the fleet would run it."""
    async with open_limits({"crm": limit}, {"crm"}, service=service, metrics=LimitMetrics, now=CLOCK.now) as limits:
        context = QueueContext(source, settings, Metrics().queue(settings.name), CLOCK, Ticker(CLOCK), Vitals(CLOCK))
        context.limits = limits
        consumer = Consumer(context, router)
        task = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            consumer.quiet(CLOCK.now() + 10)
            await asyncio.wait({task}, timeout=10)
            await consumer.cut_short()
            await task


async def test_six_workers_have_three_messages_in_flight_at_most(
    aws_clients: AwsClients, make_queue: Callable[..., Awaitable[str]], redis_server: Redis
) -> None:
    """Zanda's and Jeff's case: nothing is received that may not start, so one receive is enough for each message (P3)."""
    dead_letter = await make_queue("crm-dlq")
    url = (await aws_clients.settle.call("get_queue_url", QueueName=dead_letter))["QueueUrl"]
    said = await aws_clients.settle.call("get_queue_attributes", QueueUrl=url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": said["Attributes"]["QueueArn"], "maxReceiveCount": 1}
    name = await make_queue("crm", RedrivePolicy=json.dumps(policy))
    url = (await aws_clients.settle.call("get_queue_url", QueueName=name))["QueueUrl"]
    for start in range(0, MESSAGES, 10):
        entries = [{"Id": str(number), "MessageBody": f"{number}"} for number in range(start, start + 10)]
        await aws_clients.settle.call("send_message_batch", QueueUrl=url, Entries=entries)
    router, service = Router(), uuid.uuid4().hex
    counts: list[int] = []
    running = most = most_in_flight = 0

    @router.on("*")
    async def call(message: Message[Any]) -> None:
        nonlocal running, most
        counts.append(message.receive_count)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    settings = QueueSettings.model_validate(
        {
            "name": name,
            "handlers": "tests:router",
            "limit": "crm",
            "attempts": 1,
            "wait_time_seconds": 2,
            "dead_letter": {"queue": dead_letter, "max_receive_count": 1},
        }
    )
    async with AsyncExitStack() as stack:
        sources = [SqsSource(aws_clients, name, dead_letter=dead_letter) for _ in range(REPLICAS)]
        for source in sources:
            limit = fleet_wide(redis_server, concurrency=3)
            await stack.enter_async_context(consumed(source, settings, router, limit, service))
        async with asyncio.timeout(120):
            while (depth := await sources[0].depth()).visible + depth.in_flight:
                most_in_flight = max(most_in_flight, depth.in_flight)
                await asyncio.sleep(0.05)
        assert depth.dead_letters == 0
    assert counts == [1] * MESSAGES
    assert 0 < most <= 3
    assert most_in_flight <= 3


async def test_a_killed_workers_permits_come_back(redis_server: Redis) -> None:
    """Kill -9: what it held ends with its lease, and no sooner."""
    name = uuid.uuid4().hex
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, redis_server.url, name, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert int(await process.stdout.readline()) == 2
    store = RedisPermits(redis_server.url, "tests", name)
    limit = SharedLimiter("crm", fleet_wide(redis_server, concurrency=2), store, now=CLOCK.now, lease_seconds=3)
    running = asyncio.create_task(limit.run())
    wish = limit.take(1)
    await asyncio.sleep(4)
    assert not wish.done()  # it lives, and renews
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with asyncio.timeout(60):
        assert len(await wish) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def test_a_redis_that_goes_and_comes_back() -> None:
    """Closed: what is held is lost when it ends, and nothing is given until Redis answers again."""
    lost: list[float] = []
    with Redis() as server:
        store = RedisPermits(server.url, "tests", "crm")
        limit = SharedLimiter("crm", fleet_wide(server, concurrency=2), store, now=CLOCK.now, lease_seconds=4)
        running = asyncio.create_task(limit.run())
        (permit,) = await limit.take(1)
        permit.on_lost = lambda: lost.append(time.monotonic())
        server.stop()
        async with asyncio.timeout(60):
            while not lost:  # noqa: ASYNC110 - waits for a callback
                await asyncio.sleep(0.05)
        assert "does not answer" in str(limit.trouble)
        wish = limit.take(1)
        await asyncio.sleep(1)
        assert not wish.done()
        server.start()
        async with asyncio.timeout(60):
            (again,) = await wish
        assert limit.trouble is None
        again.release()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def test_a_rate_over_a_fleet_is_one_rate(redis_server: Redis) -> None:
    """Two workers start twenty calls a second between them."""
    starts: list[float] = []
    name = uuid.uuid4().hex
    stores = [RedisPermits(redis_server.url, "tests", name) for _ in range(2)]
    limits = [SharedLimiter("crm", fleet_wide(redis_server, per_second=20), each, now=CLOCK.now) for each in stores]

    async def start(limit: SharedLimiter) -> None:
        for _ in range(20):
            assert await limit.start(60)
            starts.append(time.monotonic())

    began = time.monotonic()
    await asyncio.gather(*(start(limit) for limit in limits))
    assert len(starts) == 40
    assert time.monotonic() - began >= 39 / 20  # never sooner, however slow the machine is
    for store in stores:
        await store.close()


async def test_a_redis_that_evicts_is_said_at_the_start() -> None:
    """Once for each limit; permits are given all the same (P3)."""
    with Redis() as server:
        client: Any = redis_client.Redis.from_url(server.url)
        await client.config_set("maxmemory-policy", "volatile-lru")
        await client.aclose()
        limits = {"crm": fleet_wide(server, concurrency=1)}
        with capture_logs() as lines:
            async with open_limits(limits, {"crm"}, service="tests", metrics=LimitMetrics, now=CLOCK.now) as opened:
                async with asyncio.timeout(10):
                    assert len(await opened["crm"].take(1)) == 1
                    while not lines:  # noqa: ASYNC110  # a real server
                        await asyncio.sleep(0.05)
    (line,) = lines
    assert (line["event"], line["limit"]) == ("the store of a limit may lose permits", "crm")
    assert line["warning"].startswith("it has the maxmemory-policy volatile-lru")
