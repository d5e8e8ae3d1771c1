"""FIFO lanes, batches and the breaker on real queues: what virtual time promises holds on the wire."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from worker import Batch, DeadLetter, Message, Outcome, Retry, Router, TransientError
from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.engine.clock import SystemClock, Ticker
from worker.engine.consumer import Consumer
from worker.engine.context import QueueContext
from worker.engine.vitals import Vitals
from worker.settings import QueueSettings
from worker.telemetry.metrics import Metrics

pytestmark = pytest.mark.integration
MakeQueue = Callable[..., Awaitable[str]]


class RealQueue:
    """A queue with its dead-letter queue, and a consumer on it."""

    def __init__(self, clients: AwsClients, name: str, dead_letter: str, max_receive_count: int) -> None:
        self._clients = clients
        self.name = name
        self._dead_letter = {"queue": dead_letter, "max_receive_count": max_receive_count}
        self.source = SqsSource(clients, name, dead_letter=dead_letter)

    async def send(self, bodies: Sequence[str], *, with_groups: bool = False) -> None:
        """Send the bodies in this order; the group of one is what stands before its dash."""
        url = (await self._clients.settle.call("get_queue_url", QueueName=self.name))["QueueUrl"]
        for start in range(0, len(bodies), 10):
            entries: list[dict[str, Any]] = [
                {"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies[start : start + 10])
            ]
            for entry in entries if with_groups else ():
                body = entry["MessageBody"]
                entry |= {"MessageGroupId": body.split("-")[0], "MessageDeduplicationId": body}
            answer = await self._clients.settle.call("send_message_batch", QueueUrl=url, Entries=entries)
            assert not answer.get("Failed")

    @asynccontextmanager
    async def consumed(self, router: Router, **settings: Any) -> AsyncIterator[Consumer]:
        known = {
            "name": self.name,
            "handlers": "tests:router",
            "wait_time_seconds": 1,
            "dead_letter": self._dead_letter,
        }
        queue = QueueSettings.model_validate({**known, **settings})
        clock = SystemClock()
        context = QueueContext(self.source, queue, Metrics().queue(self.name), clock, Ticker(clock), Vitals(clock))
        consumer = Consumer(context, router)
        task = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            consumer.quiet(clock.now() + 10)
            await asyncio.wait({task}, timeout=10)
            await consumer.cut_short()
            await task

    async def until_empty(self, *, seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while (depth := await self.source.depth()).visible + depth.in_flight + depth.delayed:  # noqa: ASYNC110 - SQS tells nobody
                await asyncio.sleep(0.2)


@pytest.fixture
def make(aws_clients: AwsClients, make_queue: MakeQueue) -> Callable[..., Awaitable[RealQueue]]:
    async def make(stem: str, *, max_receive_count: int = 10) -> RealQueue:
        bare, dot, suffix = stem.partition(".")
        dead_letter = await make_queue(f"{bare}-dlq{dot}{suffix}")
        url = (await aws_clients.settle.call("get_queue_url", QueueName=dead_letter))["QueueUrl"]
        said = await aws_clients.settle.call("get_queue_attributes", QueueUrl=url, AttributeNames=["QueueArn"])
        policy = {"deadLetterTargetArn": said["Attributes"]["QueueArn"], "maxReceiveCount": max_receive_count}
        name = await make_queue(stem, RedrivePolicy=json.dumps(policy))
        return RealQueue(aws_clients, name, dead_letter, max_receive_count)

    return make


async def test_groups_keep_their_order_while_some_heads_fail(make: Callable[..., Awaitable[RealQueue]]) -> None:
    """8 groups of 20: in order, no overlap, no innocent dead-lettered, and who does not fail is not delayed (F1, F2, S4)."""
    queue = await make("payments.fifo")
    done: dict[str, list[int]] = defaultdict(list)
    ended_at: dict[str, float] = {}
    runs: dict[str, int] = defaultdict(int)
    overlaps: list[str] = []
    running: set[str] = set()
    failing = {"g0-0": 2, "g1-7": 2, "g2-19": 2, "g3-5": 99}
    router = Router()

    @router.on("*")
    async def handle(message: Message[str]) -> None:
        group, number = message.event.split("-")
        if group in running:
            overlaps.append(message.event)
        running.add(group)
        runs[message.event] += 1
        await asyncio.sleep(0.02)
        running.discard(group)
        if runs[message.event] <= failing.get(message.event, 0):
            raise RuntimeError("not yet")
        done[group].append(int(number))
        ended_at[group] = time.monotonic()

    await queue.send([f"g{group}-{number}" for number in range(20) for group in range(8)], with_groups=True)
    async with queue.consumed(router, concurrency=8, attempts=3, retry={"base_seconds": 4, "max_seconds": 8}):
        await queue.until_empty()
    assert overlaps == []
    for group in range(8):
        expected = [number for number in range(20) if (group, number) != (3, 5)]
        assert done[f"g{group}"] == expected
    assert runs["g3-5"] == 3
    assert (await queue.source.depth()).dead_letters == 1
    assert max(ended_at[f"g{group}"] for group in range(4, 8)) < min(ended_at["g0"], ended_at["g1"], ended_at["g2"])


async def test_an_outage_of_the_downstream_dead_letters_nothing(make: Callable[..., Awaitable[RealQueue]]) -> None:
    """With three attempts and SQS's net one receive behind them, everything is handled after it (P1)."""
    queue = await make("mails", max_receive_count=4)
    up_at = time.monotonic() + 25
    handled: set[str] = set()
    router = Router()

    @router.on("*")
    async def handle(message: Message[str]) -> None:
        await asyncio.sleep(0.01)
        if time.monotonic() < up_at:
            raise TransientError("the mail server is down")
        handled.add(message.event)

    bodies = [f"mail {number}" for number in range(100)]
    await queue.send(bodies)
    settings = {"concurrency": 10, "attempts": 3, "retry": {"base_seconds": 2, "max_seconds": 4}}
    async with queue.consumed(router, **settings) as consumer:
        await asyncio.sleep(10)
        assert consumer.context.metrics.snapshot()["breaker_open"]
        await queue.until_empty()
        assert not consumer.context.metrics.snapshot()["breaker_open"]
    assert handled == set(bodies)
    assert (await queue.source.depth()).dead_letters == 0


async def test_three_bad_members_of_a_batch_are_settled_on_their_own(make: Callable[..., Awaitable[RealQueue]]) -> None:
    """197 of 200 are acked; the others are dead-lettered, one at once, two after their attempts (B1)."""
    queue = await make("views")
    sizes: list[int] = []
    handled: dict[str, int] = defaultdict(int)
    router = Router()

    @router.on("*", batch=Batch(200, window_seconds=2))
    async def handle(messages: Sequence[Message[str]]) -> Mapping[str, Outcome]:
        sizes.append(len(messages))
        for message in messages:
            handled[message.event] += 1
        verdicts: dict[str, Outcome] = {"3": Retry(reason="bad"), "77": DeadLetter("worse"), "199": Retry(after=1)}
        return {message.id: verdicts[message.event] for message in messages if message.event in verdicts}

    await queue.send([str(number) for number in range(200)])
    async with queue.consumed(
        router, concurrency=1, attempts=2, retry={"base_seconds": 1, "max_seconds": 1}
    ) as consumer:
        await queue.until_empty()
        snapshot = consumer.context.metrics.snapshot()
        assert (snapshot["settled"]["ack"], snapshot["settled"]["dead_letter"]) == (197, 3)
    assert max(sizes) > 10
    assert {body for body, times in handled.items() if times > 1} == {"3", "199"}
    assert (await queue.source.depth()).dead_letters == 3
