"""Large payloads in a real S3, on the way from publisher to handler."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from support.command import longshore
from support.limited_user import LimitedUser

from worker import LargePayloads, Message, Publisher, Router, migrate, outbox
from worker.aws.pointers import pointer_body
from worker.aws.s3 import S3Objects
from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.aws.sqs import SqsSource
from worker.errors import Fault, SourceError
from worker.fleet.process import Process
from worker.fleet.relays import open_relays
from worker.local import EmbeddedAws
from worker.objects import S3Pointer
from worker.publisher.topic import SnsTopic
from worker.settings import FleetSettings
from worker.telemetry.metrics import Metrics
from worker.topology import Queue, Subscription, Topic, Topology, apply

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


async def test_what_is_denied_is_told_from_what_is_not_there(
    embedded_aws: EmbeddedAws, objects: S3Objects, bucket: str, unique_name: Name
) -> None:
    """With what an exported policy allows."""
    user = LimitedUser(unique_name("reader"), embedded_aws)
    access = AwsAccess(
        region="us-east-1",
        endpoint_url=embedded_aws.endpoint_url,
        credentials=Credentials(user.environment["AWS_ACCESS_KEY_ID"], user.environment["AWS_SECRET_ACCESS_KEY"]),
    )
    pointer = S3Pointer(bucket, "key")
    await objects.put(pointer, b"text")
    async with AwsClients(access) as clients:
        theirs = S3Objects(clients, connections=1)
        with pytest.raises(SourceError) as raised:
            await theirs.fetch(pointer, 1000)
        assert (raised.value.fault, raised.value.code) == (Fault.DENIED, "AccessDenied")
        user.may("s3:GetObject", "s3:ListBucket")
        assert await theirs.fetch(pointer, 1000) == "text"
        with pytest.raises(SourceError, match="NoSuchKey"):
            await theirs.fetch(S3Pointer(bucket, "another key"), 1000)
        await theirs.close()


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


class Order(BaseModel):
    order_id: str
    note: str


async def consumed(clients: AwsClients, router: Router, queue: str, **settings: Any) -> None:
    """Run a process for a queue until it is empty."""
    described = {"handlers": "tests:router", "wait_time_seconds": 1, **settings}
    fleet = FleetSettings.model_validate(
        {"queues": {queue: described}, "drain_seconds": 10, "server": {"port": 0}, "log": {"level": "error"}}
    )
    process = Process(fleet, {queue: router}, clients._access)
    running = asyncio.create_task(process.run())
    source = SqsSource(clients, queue)
    async with asyncio.timeout(60):
        while (depth := await source.depth()).visible + depth.in_flight:  # noqa: ASYNC110 - SQS tells nobody
            await asyncio.sleep(0.2)
    process.supervisor.drain()
    assert await running == 0


@pytest.mark.parametrize("raw", [True, False])
async def test_a_large_event_arrives_as_it_was_published(
    aws_clients: AwsClients, objects: S3Objects, bucket: str, unique_name: Name, *, raw: bool
) -> None:
    """Through SNS, enveloped and raw; the handler sees no difference to a small one."""
    topic, queue, seen = unique_name("events"), unique_name("orders"), []
    wanted = Topology([Topic(topic)], [Queue(queue, dead_letter=f"{queue}-dlq")], [Subscription(topic, queue, raw=raw)])
    await apply(wanted, aws_clients)
    router = Router()

    @router.on("order.created")
    async def handle(message: Message[Order]) -> None:
        seen.append((message.event, dict(message.attributes)))

    async with Publisher(topic, aws=aws_clients._access, large_payloads=LargePayloads(bucket)) as publisher:
        await publisher.publish("order.created", Order(order_id="large", note="æ" * 300_000))
        await publisher.publish("order.created", Order(order_id="small", note="æ"))
    await consumed(aws_clients, router, queue, large_payloads={"buckets": [bucket], "delete": True})
    assert {event.order_id: len(event.note) for event, _ in seen} == {"large": 300_000, "small": 1}
    assert {tuple(sorted(attributes)) for _, attributes in seen} == {("event_type", "published_at")}
    left = await objects._channel.call("list_objects_v2", Bucket=bucket)
    assert left.get("KeyCount", 0) == 0


@pytest.mark.parametrize("way", ["by itself", "inside run"])
async def test_a_relay_finds_the_bucket_in_the_fleet_file(
    embedded_aws: EmbeddedAws,
    make_outlet: Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]],
    objects: S3Objects,
    bucket: str,
    tmp_path: Path,
    way: str,
) -> None:
    """And puts in what its author said may be large; what is small travels as ever."""
    url = f"sqlite:///{tmp_path}/orders.sqlite"
    topic, arrived = await make_outlet("events")
    fleet: dict[str, Any] = {
        "topics": {topic: {"large_payloads": {"bucket": bucket}}},
        "queues": {"orders": {"handlers": "a:router"}},
        "outbox": {"database": url, "topics": [topic]},
    }
    (tmp_path / "fleet.yaml").write_text(json.dumps(fleet))
    await migrate(url)
    with closing(sqlite3.connect(tmp_path / "orders.sqlite")) as connection, connection:
        for note in ("x" * 300_000, "x"):
            outbox.publish_sync(connection, "order.created", {"note": note}, topic=topic, max_bytes=1_000_000)
    if way == "by itself":
        arguments = ("outbox", "--database", url, "--topic", topic, "--once")
        ended = await asyncio.to_thread(longshore, *arguments, folder=tmp_path, environment=embedded_aws.environment)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == "sent 2 events\n"
    else:
        settings, access, metrics = FleetSettings.model_validate(fleet), embedded_aws.access, Metrics()
        async with open_relays(settings, lambda address: SnsTopic(address, access, connections=1), metrics):
            async with asyncio.timeout(30):
                while metrics.outboxes()[topic]["sent"] != 2:  # noqa: ASYNC110 - it is nobody's event
                    await asyncio.sleep(0.05)
    (stored,) = (await objects._channel.call("list_objects_v2", Bucket=bucket))["Contents"]
    assert stored["Size"] == 300_000 + len('{"note":""}')
    assert sorted(await arrived()) == sorted([pointer_body(S3Pointer(bucket, stored["Key"])), '{"note":"x"}'])


async def test_the_command_finds_the_bucket_in_the_fleet_file(
    aws_clients: AwsClients,
    embedded_aws: EmbeddedAws,
    objects: S3Objects,
    bucket: str,
    unique_name: Name,
    tmp_path: Path,
) -> None:
    topic = unique_name("events")
    await apply(Topology([Topic(topic)]), aws_clients)
    (tmp_path / "fleet.yaml").write_text(
        f"topics: {{{topic}: {{large_payloads: {{bucket: {bucket}}}}}}}\nqueues: {{orders: {{handlers: a:router}}}}\n"
    )
    line = '{"event": "order.created", "note": "' + "x" * 300_000 + '"}'
    (tmp_path / "events.jsonl").write_text(f'{line}\n{{"event": "order.created"}}\n')
    ended = await asyncio.to_thread(
        longshore, "publish", "--file", "events.jsonl", folder=tmp_path, environment=embedded_aws.environment
    )
    assert ended.returncode == 0, ended.stderr
    (stored,) = (await objects._channel.call("list_objects_v2", Bucket=bucket))["Contents"]
    assert await objects.fetch(S3Pointer(bucket, stored["Key"]), 1_000_000) == line
