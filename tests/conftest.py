"""What tests of all kinds share: one embedded AWS per run, and queues of their own for each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from worker.aws.session import AwsClients
from worker.local import EmbeddedAws


@pytest.fixture(scope="session")
def embedded_aws() -> Iterator[EmbeddedAws]:
    """An AWS in a process of its own that checks signatures and policies; started once, on first use."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        aws = runner.run(EmbeddedAws().__aenter__())
        try:
            yield aws
        finally:
            runner.run(aws.__aexit__(None, None, None))


@pytest.fixture
async def aws_clients(embedded_aws: EmbeddedAws) -> AsyncIterator[AwsClients]:
    """Clients that may do everything on the embedded AWS."""
    async with AwsClients(embedded_aws.access) as clients:
        yield clients


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that makes names no other test uses: `unique_name("orders") == "orders-3f2a9c1d"`."""
    digits = uuid.uuid5(uuid.NAMESPACE_OID, request.node.nodeid + uuid.uuid4().hex).hex[:8]

    def name(stem: str) -> str:
        bare, dot, suffix = stem.partition(".")
        return f"{bare}-{digits}{dot}{suffix}"

    return name


@pytest.fixture
async def make_queue(
    aws_clients: AwsClients, unique_name: Callable[[str], str]
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Return a function that makes a queue and returns its name; the queues are deleted at the end of the test.

    `await make_queue("orders.fifo", VisibilityTimeout="5")`: a stem and SQS's queue attributes.
    """
    urls: list[str] = []

    async def make(stem: str = "orders", **attributes: str) -> str:
        name = unique_name(stem)
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        answer = await aws_clients.settle.call("create_queue", QueueName=name, Attributes=attributes)
        urls.append(answer["QueueUrl"])
        return name

    yield make
    for url in urls:
        await aws_clients.settle.call("delete_queue", QueueUrl=url)
