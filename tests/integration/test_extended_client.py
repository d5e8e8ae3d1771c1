"""AWS's own extended client for Python and we read what the other has written.

It is no dependency: `pip install --no-deps amazon-sqs-extended-client==1.0.1`, then `pytest -m extended_client`. What it
sends is recorded in `tests/unit/test_aws_pointers.py`.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker.aws.envelope import decode
from worker.aws.pointers import pointer_body, pointer_in, size_attribute
from worker.aws.s3 import S3Objects
from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.local import EmbeddedAws
from worker.objects import S3Pointer
from worker.source import ReceiveRequest

pytestmark = [pytest.mark.integration, pytest.mark.extended_client]

TEXT = '{"event": "order.created", "note": "' + "æ" * 200_000 + '"}'


@pytest.fixture
def theirs(embedded_aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Their client of SQS."""
    access = embedded_aws.access
    assert access.credentials is not None
    for name, value in {
        "AWS_ENDPOINT_URL": access.endpoint_url,
        "AWS_DEFAULT_REGION": access.region,
        "AWS_ACCESS_KEY_ID": access.credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": access.credentials.secret_access_key,
    }.items():
        monkeypatch.setenv(name, str(value))
    return importlib.import_module("sqs_extended_client").SQSExtendedClientSession().client("sqs")


@pytest.mark.parametrize("is_legacy", [False, True])
async def test_we_read_each_other(
    theirs: Any,
    aws_clients: AwsClients,
    make_queue: Callable[..., Awaitable[str]],
    unique_name: Callable[[str], str],
    *,
    is_legacy: bool,
) -> None:
    queue, bucket, objects = await make_queue(), unique_name("payloads"), S3Objects(aws_clients, connections=2)
    await objects._channel.call("create_bucket", Bucket=bucket)
    url = (await aws_clients.settle.call("get_queue_url", QueueName=queue))["QueueUrl"]
    theirs.large_payload_support = bucket
    theirs.use_legacy_attribute = is_legacy

    await asyncio.to_thread(theirs.send_message, QueueUrl=url, MessageBody=TEXT, MessageAttributes={})
    source = SqsSource(aws_clients, queue)
    (received,) = await source.receive(ReceiveRequest(limit=1, wait_seconds=5, visibility_timeout_seconds=30))
    decoded = decode(received, "auto")
    pointer = pointer_in(decoded.body, decoded.attributes)
    assert pointer is not None
    assert await objects.fetch(pointer, 1_000_000) == TEXT
    await source.delete([received.receipt])

    if not is_legacy:
        ours = S3Pointer(bucket, "ours")
        assert received.body == pointer_body(pointer)
        assert dict(received.attributes) == size_attribute(len(TEXT.encode()))
        await objects.put(ours, TEXT.encode())
        sent = {"ExtendedPayloadSize": {"DataType": "Number", "StringValue": str(len(TEXT.encode()))}}
        await aws_clients.settle.call(
            "send_message", QueueUrl=url, MessageBody=pointer_body(ours), MessageAttributes=sent
        )
        answer = await asyncio.to_thread(theirs.receive_message, QueueUrl=url, WaitTimeSeconds=5)
        assert [message["Body"] for message in answer["Messages"]] == [TEXT]
    await objects.close()
