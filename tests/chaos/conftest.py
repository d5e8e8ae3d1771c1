"""A shop for each test: real worker processes against an AWS on this machine."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from support.localstack import LocalStack
from support.shop import Shop

from worker.aws.session import AwsClients
from worker.local import EmbeddedAws


@pytest.fixture
async def shop(
    tmp_path: Path, aws_clients: AwsClients, make_queue: Callable[..., Awaitable[str]], aws: EmbeddedAws | LocalStack
) -> AsyncIterator[Shop]:
    """A shop whose queue moves messages to its dead-letter queue after ten receives."""
    queue = await make_queue("shop")
    urls = {}
    for name in (f"{queue}-dlq", queue):
        urls[name] = (await aws_clients.settle.call("create_queue", QueueName=name))["QueueUrl"]
    facts = await aws_clients.settle.call(
        "get_queue_attributes", QueueUrl=urls[f"{queue}-dlq"], AttributeNames=["QueueArn"]
    )
    policy = {"deadLetterTargetArn": facts["Attributes"]["QueueArn"], "maxReceiveCount": 10}
    await aws_clients.settle.call(
        "set_queue_attributes", QueueUrl=urls[queue], Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    shop = Shop(tmp_path, queue, aws_clients, aws)
    try:
        yield shop
    finally:
        await shop.close()
        await aws_clients.settle.call("delete_queue", QueueUrl=urls[f"{queue}-dlq"])
