"""Large payloads in a real S3, on the way from publisher to handler."""

from collections.abc import AsyncIterator, Callable

import pytest

from worker.aws.s3 import S3Objects
from worker.aws.session import AwsAccess, AwsClients
from worker.errors import Fault, SourceError
from worker.objects import S3Pointer

pytestmark = pytest.mark.integration

Name = Callable[[str], str]


@pytest.fixture
async def objects(aws_clients: AwsClients) -> AsyncIterator[S3Objects]:
    objects = S3Objects(aws_clients, connections=10)
    yield objects
    await objects.close()


@pytest.fixture
async def bucket(objects: S3Objects, unique_name: Name) -> str:
    """The name of a bucket of the test's own."""
    name = unique_name("payloads")
    await objects._channel.call("create_bucket", Bucket=name)
    return name


async def test_what_was_put_is_fetched(objects: S3Objects, bucket: str) -> None:
    pointer, text = S3Pointer(bucket, "a key/with æ & more"), "Ærø 100% " * 100_000
    await objects.put(pointer, text.encode())
    assert await objects.fetch(pointer, 2_000_000) == text
    await objects.delete(pointer)
    await objects.delete(pointer)
    with pytest.raises(SourceError) as raised:
        await objects.fetch(pointer, 2_000_000)
    assert (raised.value.fault, raised.value.code) == (Fault.MISSING, "NoSuchKey")


async def test_what_is_too_large_is_not_read_and_harms_nobody(objects: S3Objects, bucket: str) -> None:
    large, small = S3Pointer(bucket, "large"), S3Pointer(bucket, "small")
    await objects.put(large, b"x" * 1_000_001)
    await objects.put(small, b"small")
    for _ in range(20):  # more than there are connections
        with pytest.raises(SourceError, match=r"TooLarge.*1,000,000 bytes"):
            await objects.fetch(large, 1_000_000)
    assert await objects.fetch(small, 5) == "small"


async def test_what_is_no_text_is_said_so(objects: S3Objects, bucket: str) -> None:
    await objects.put(S3Pointer(bucket, "binary"), b"\xff\xfe")
    with pytest.raises(SourceError, match="NotText") as raised:
        await objects.fetch(S3Pointer(bucket, "binary"), 1000)
    assert raised.value.fault is Fault.INVALID
    assert raised.value.__context__ is None


async def test_a_bucket_that_is_not_there_is_told_from_an_object(objects: S3Objects, unique_name: Name) -> None:
    with pytest.raises(SourceError) as raised:
        await objects.fetch(S3Pointer(unique_name("nowhere"), "key"), 1000)
    assert (raised.value.fault, raised.value.code) == (Fault.MISSING, "NoSuchBucket")


async def test_an_s3_that_cannot_be_reached_may_pass(aws_clients: AwsClients) -> None:
    access = AwsAccess(
        region="us-east-1", endpoint_url="http://127.0.0.1:9", credentials=aws_clients._access.credentials
    )
    async with AwsClients(access) as nowhere:
        objects = S3Objects(nowhere, connections=1)
        with pytest.raises(SourceError) as raised:
            await objects.fetch(S3Pointer("payloads", "key"), 1000)
        assert raised.value.fault.may_pass
        await objects.close()
