"""What the suites are run on: sources in memory (in virtual time), SQS on the embedded AWS and on LocalStack; stores in memory and Redis."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypedDict, Unpack

import pytest
from support.differs import AWS, LOCALSTACK, MINISTACK, Differs
from support.localstack import LocalStack
from support.redis import Redis

from worker.aws.entries import sent_attributes
from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.limits import PermitStore
from worker.limits.redis import RedisPermits
from worker.local import EmbeddedAws
from worker.message import Attribute, Received
from worker.source import ReceiveRequest, Source
from worker.testing import MemoryPermits, MemorySource, virtual_time


class Sending(TypedDict, total=False):
    """How a message is sent, besides its body."""

    attributes: Mapping[str, Attribute]
    delay_seconds: int
    group_id: str
    deduplication_id: str
    trace_header: str


class Kit(Protocol):
    """What the suite needs besides the source itself."""

    differs: Differs

    async def make(self, stem: str = "orders", *, max_receive_count: int = 10, has_dead_letters: bool = True) -> Source:
        """Make a queue, FIFO by its stem, with a dead-letter queue, and return a source at it."""

    async def missing(self) -> Source:
        """Return a source at a queue that does not exist."""

    async def send(self, source: Source, body: str, **sending: Unpack[Sending]) -> str:
        """Send a message to the source's queue and return its id."""

    async def dead_letters(self, source: Source) -> list[Received]:
        """Receive what lies in the source's dead-letter queue."""


class MemoryKit:
    """Queues in memory."""

    differs = AWS

    async def make(self, stem: str = "orders", *, max_receive_count: int = 10, has_dead_letters: bool = True) -> Source:
        return MemorySource(stem, max_receive_count=max_receive_count, dead_letter=has_dead_letters)

    async def missing(self) -> Source:
        source = MemorySource("nowhere")
        source.exists = False
        return source

    async def send(self, source: Source, body: str, **sending: Unpack[Sending]) -> str:
        assert isinstance(source, MemorySource)
        return source.send(body, **sending)

    async def dead_letters(self, source: Source) -> list[Received]:
        assert isinstance(source, MemorySource)
        return await source.dead_letter_queue.receive(ReceiveRequest(10, 0, 30))


class SqsKit:
    """Queues on an AWS that differs."""

    def __init__(self, clients: AwsClients, make_queue: Callable[..., Awaitable[str]], differs: Differs) -> None:
        self.differs = differs
        self._clients = clients
        self._make_queue = make_queue
        self._dead_letter_queues: dict[Source, str] = {}

    async def make(self, stem: str = "orders", *, max_receive_count: int = 10, has_dead_letters: bool = True) -> Source:
        if not has_dead_letters:
            return SqsSource(self._clients, await self._make_queue(stem))
        bare, dot, suffix = stem.partition(".")
        dead_letter = await self._make_queue(f"{bare}-dlq{dot}{suffix}")
        url = await self._url(dead_letter)
        said = await self._clients.settle.call("get_queue_attributes", QueueUrl=url, AttributeNames=["QueueArn"])
        arn = said["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count})
        source = SqsSource(self._clients, await self._make_queue(stem, RedrivePolicy=policy), dead_letter=dead_letter)
        self._dead_letter_queues[source] = dead_letter
        return source

    async def missing(self) -> Source:
        return SqsSource(self._clients, "nowhere", dead_letter="nowhere-dlq")

    async def send(self, source: Source, body: str, **sending: Unpack[Sending]) -> str:
        parameters: dict[str, Any] = {
            "MessageBody": body,
            "MessageAttributes": sent_attributes(sending.get("attributes", {})),
        }
        if "delay_seconds" in sending:
            parameters["DelaySeconds"] = sending["delay_seconds"]
        if "group_id" in sending:
            parameters["MessageGroupId"] = sending["group_id"]
            parameters["MessageDeduplicationId"] = sending.get("deduplication_id", body)
        if "trace_header" in sending:
            trace = {"DataType": "String", "StringValue": sending["trace_header"]}
            parameters["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
        url = await self._url(source.queue)
        answer = await self._clients.settle.call("send_message", QueueUrl=url, **parameters)
        return str(answer["MessageId"])

    async def dead_letters(self, source: Source) -> list[Received]:
        queue = SqsSource(self._clients, self._dead_letter_queues[source])
        return await queue.receive(ReceiveRequest(10, 0, 30))

    async def _url(self, name: str) -> str:
        return str((await self._clients.settle.call("get_queue_url", QueueName=name))["QueueUrl"])


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what asks for a `kit` once in virtual time and once per AWS on the real clock."""
    if "kit" in getattr(item, "fixturenames", ()):
        return {
            "memory": virtual_time.new_event_loop,
            "sqs": asyncio.new_event_loop,
            "localstack": asyncio.new_event_loop,
        }
    if "permits" in getattr(item, "fixturenames", ()):
        return {"memory": virtual_time.new_event_loop, "redis": asyncio.new_event_loop}
    return {"real": asyncio.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_on(item, "sqs"):
            item.add_marker(pytest.mark.integration)
        if _is_on(item, "localstack"):
            item.add_marker(pytest.mark.strict)
        if _is_on(item, "redis"):
            item.add_marker(pytest.mark.redis)


def _is_on(item: pytest.Item, kit: str) -> bool:
    callspec = getattr(item, "callspec", None)
    return (
        callspec is not None
        and kit in callspec.id.split("-")
        and bool({"kit", "permits"} & set(getattr(item, "fixturenames", ())))
    )


@pytest.fixture
def aws(request: pytest.FixtureRequest) -> EmbeddedAws | LocalStack:
    """The AWS that this run of the test is about; `kit` asks for none where the test runs in memory."""
    aws: EmbeddedAws | LocalStack = request.getfixturevalue(
        "strict_aws" if _is_on(request.node, "localstack") else "embedded_aws"
    )
    return aws


@pytest.fixture
async def permits(request: pytest.FixtureRequest) -> AsyncIterator[PermitStore]:
    """The store of permits that this run of the test is about."""
    opened: PermitStore = MemoryPermits()
    if _is_on(request.node, "redis"):
        server: Redis = request.getfixturevalue("redis_server")
        opened = RedisPermits(server.url, "tests", uuid.uuid4().hex)
    yield opened
    await opened.close()


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Kit:
    """The kit of the source that this run of the test is about."""
    for name, differs in {"sqs": MINISTACK, "localstack": LOCALSTACK}.items():
        if _is_on(request.node, name):
            return SqsKit(request.getfixturevalue("aws_clients"), request.getfixturevalue("make_queue"), differs)
    return MemoryKit()
