"""`SqsSource` against an AWS on this machine, and against servers that misbehave."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session
from support.localstack import LocalStack

from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.aws.sqs import SqsSource
from worker.errors import Fault, SourceError, UsageError
from worker.local import EmbeddedAws
from worker.message import Attribute, Received
from worker.source import Copy, Depth, QueueFacts, ReceiveRequest

pytestmark = pytest.mark.integration

MakeQueue = Callable[..., Awaitable[str]]
Blackhole = Callable[[], AbstractAsyncContextManager[str]]
NOW = ReceiveRequest(limit=10, wait_seconds=0, visibility_timeout_seconds=30)
SOON = ReceiveRequest(limit=10, wait_seconds=5, visibility_timeout_seconds=30)


async def url_of(clients: AwsClients, name: str) -> str:
    answer = await clients.settle.call("get_queue_url", QueueName=name)
    return str(answer["QueueUrl"])


async def arn_of(clients: AwsClients, name: str) -> str:
    answer = await clients.settle.call(
        "get_queue_attributes", QueueUrl=await url_of(clients, name), AttributeNames=["QueueArn"]
    )
    return str(answer["Attributes"]["QueueArn"])


async def send(clients: AwsClients, name: str, *bodies: str, **parameters: Any) -> None:
    url = await url_of(clients, name)
    for body in bodies:
        await clients.settle.call("send_message", QueueUrl=url, MessageBody=body, **parameters)


async def receive_one(source: SqsSource, request: ReceiveRequest = SOON) -> Received:
    (message,) = await source.receive(request)
    return message


def fault_of(raised: pytest.ExceptionInfo[SourceError]) -> Fault:
    return raised.value.fault


async def test_a_message_is_received_with_everything_sqs_knows(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    queue = await make_queue()
    source = SqsSource(aws_clients, queue)
    before = time.time()
    await send(
        aws_clients,
        queue,
        '{"id": 1}',
        MessageAttributes={
            "event_type": {"DataType": "String", "StringValue": "order.created"},
            "amount": {"DataType": "Number", "StringValue": "12"},
            "picture": {"DataType": "Binary.png", "BinaryValue": b"\x89\x00"},
        },
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-2-3"}},
    )
    message = await receive_one(source)
    assert source.queue == queue
    assert (message.body, message.receive_count, message.group_id) == ('{"id": 1}', 1, None)
    assert message.id
    assert message.receipt
    assert message.trace_header == "Root=1-2-3"
    assert before - 1 <= message.sent_at <= time.time() + 1
    assert message.attributes == {
        "event_type": Attribute("String", "order.created"),
        "amount": Attribute("Number", "12"),
        "picture": Attribute("Binary.png", b"\x89\x00"),
    }


async def test_a_fifo_message_has_its_group_and_its_place(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    queue = await make_queue("orders.fifo")
    await send(aws_clients, queue, "first", MessageGroupId="g", MessageDeduplicationId="d")
    request = ReceiveRequest(limit=1, wait_seconds=5, visibility_timeout_seconds=30, attempt_id="attempt-1")
    message = await receive_one(SqsSource(aws_clients, queue), request)
    assert (message.group_id, message.deduplication_id) == ("g", "d")
    assert message.sequence_number


async def test_receive_takes_no_more_than_its_limit_and_hides_what_it_takes(
    aws_clients: AwsClients, make_queue: MakeQueue
) -> None:
    """The visibility timeout of the request counts, not the queue's (R1, R8)."""
    queue = await make_queue(VisibilityTimeout="0")
    source = SqsSource(aws_clients, queue)
    await send(aws_clients, queue, *"abcde")
    assert len(await source.receive(ReceiveRequest(limit=3, wait_seconds=5, visibility_timeout_seconds=30))) == 3
    assert await source.depth() == Depth(visible=2, in_flight=3, delayed=0)


async def test_an_empty_queue_keeps_a_receive_for_its_wait(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    source = SqsSource(aws_clients, await make_queue())
    started = time.monotonic()
    assert await source.receive(ReceiveRequest(limit=1, wait_seconds=1, visibility_timeout_seconds=30)) == []
    assert 0.9 <= time.monotonic() - started <= 3


async def test_deletes_answer_by_position(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    """One bad receipt fails alone (S1)."""
    queue = await make_queue()
    source = SqsSource(aws_clients, queue)
    await send(aws_clients, queue, "a", "b")
    first, second = await source.receive(SOON)
    good, bad, also_good = await source.delete([first.receipt, "no receipt", second.receipt])
    assert good is None
    assert also_good is None
    assert bad is not None
    assert bad.fault is Fault.LOST
    assert await source.depth() == Depth(visible=0, in_flight=0, delayed=0)


async def test_extending_by_nothing_makes_a_message_visible_at_once(
    aws_clients: AwsClients, make_queue: MakeQueue
) -> None:
    queue = await make_queue()
    source = SqsSource(aws_clients, queue)
    await send(aws_clients, queue, "a", "b")
    first, second = await source.receive(SOON)
    assert await source.extend([(first.receipt, 0), (second.receipt, 60)]) == [None, None]
    again = await receive_one(source)
    assert (again.id, again.receive_count) == (first.id, 2)


async def test_batches_of_none_and_of_more_than_ten_never_reach_sqs(
    aws_clients: AwsClients, make_queue: MakeQueue
) -> None:
    calls: list[str] = []
    source = SqsSource(aws_clients, await make_queue(), observer=lambda operation, *_: calls.append(operation))
    assert await source.delete([]) == []
    assert await source.extend([]) == []
    with pytest.raises(ValueError, match="11 entries"):
        await source.delete(["receipt"] * 11)
    assert calls == []


async def test_a_dead_letter_arrives_whole(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    """Body, attributes and trace header arrive as they were (S5)."""
    queue, dead = await make_queue(), await make_queue("orders-dlq")
    source = SqsSource(aws_clients, queue, dead_letter=dead)
    attributes = {"a": Attribute("String", "x"), "b": Attribute("Binary", b"\x00\xff"), "c": Attribute("Number", "1")}
    await source.dead_letter(Copy("body", attributes, group_id="g", deduplication_id="d", trace_header="Root=1"))
    message = await receive_one(SqsSource(aws_clients, dead))
    assert (message.body, message.attributes, message.trace_header) == ("body", attributes, "Root=1")
    assert (await source.depth()).dead_letters == 0


async def test_a_fifo_dead_letter_keeps_group_and_deduplication_id(
    aws_clients: AwsClients, make_queue: MakeQueue
) -> None:
    queue, dead = await make_queue("orders.fifo"), await make_queue("orders-dlq.fifo")
    source = SqsSource(aws_clients, queue, dead_letter=dead)
    for _ in range(2):  # the second is the same copy sent again: SQS drops it
        await source.dead_letter(Copy("body", group_id="g", deduplication_id="original-id"))
    message = await receive_one(SqsSource(aws_clients, dead))
    assert (message.group_id, message.deduplication_id) == ("g", "original-id")


async def test_without_a_dead_letter_queue_none_is_sent(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    source = SqsSource(aws_clients, await make_queue())
    with pytest.raises(SourceError) as raised:
        await source.dead_letter(Copy("body"))
    assert fault_of(raised) is Fault.MISSING
    missing = SqsSource(aws_clients, source.queue, dead_letter="no-such-dlq")
    with pytest.raises(SourceError) as raised:
        await missing.dead_letter(Copy("body"))
    assert fault_of(raised) is Fault.MISSING
    assert (await missing.depth()).dead_letters is None


async def test_the_queue_is_described_as_sqs_has_it(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    dead = await make_queue("orders-dlq")
    redrive = {"deadLetterTargetArn": await arn_of(aws_clients, dead), "maxReceiveCount": 7}
    queue = await make_queue(VisibilityTimeout="45", MessageRetentionPeriod="3600", RedrivePolicy=json.dumps(redrive))
    assert await SqsSource(aws_clients, queue, dead_letter=dead).describe() == QueueFacts(
        is_fifo=False,
        visibility_timeout_seconds=45,
        retention_seconds=3600,
        max_receive_count=7,
        redrive_target=dead,
        dead_letter_found=True,
    )
    plain = await SqsSource(aws_clients, dead, dead_letter="no-such-dlq").describe()
    assert (plain.max_receive_count, plain.redrive_target, plain.dead_letter_found) == (None, None, False)


async def test_settlement_is_checked_without_touching_a_message(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    """SQS complains about the receipt only after it has allowed the call (S6)."""
    queue = await make_queue()
    source = SqsSource(aws_clients, queue)
    await send(aws_clients, queue, "a")
    await source.check_settlement()
    assert await source.depth() == Depth(visible=1, in_flight=0, delayed=0)


@pytest.mark.parametrize("form", ["name", "arn", "url", "url of another host"])
async def test_a_queue_is_found_by_name_arn_or_url(aws_clients: AwsClients, make_queue: MakeQueue, form: str) -> None:
    """With an endpoint of its own, requests go there whatever host stands in a queue's URL (N4)."""
    queue = await make_queue()
    await send(aws_clients, queue, "a")
    url, arn = await url_of(aws_clients, queue), await arn_of(aws_clients, queue)
    elsewhere = f"http://sqs.invalid:1/{url.split('/', 3)[3]}"
    source = SqsSource(aws_clients, {"name": queue, "arn": arn, "url": url, "url of another host": elsewhere}[form])
    assert source.queue == queue
    assert (await receive_one(source)).body == "a"


def test_a_queue_of_another_region_is_refused_at_once() -> None:
    clients = AwsClients(AwsAccess(region="us-east-1"))
    clients.region = "us-east-1"
    with pytest.raises(UsageError, match="lies in the region eu-west-1"):
        SqsSource(clients, "arn:aws:sqs:eu-west-1:123456789012:orders")


@pytest.mark.usefixtures("embedded_aws")  # AWS, and LocalStack, give a deleted queue's name free only after a minute
async def test_a_missing_queue_is_found_once_it_exists(
    aws_clients: AwsClients, unique_name: Callable[[str], str]
) -> None:
    """What heals outside heals here without a restart, also for a queue that is made anew (R6)."""
    queue = unique_name("late")
    source = SqsSource(aws_clients, queue)
    for _ in range(2):
        with pytest.raises(SourceError) as raised:
            await source.receive(NOW)
        assert fault_of(raised) is Fault.MISSING
        answer = await aws_clients.settle.call("create_queue", QueueName=queue)
        assert await source.receive(NOW) == []
        await aws_clients.settle.call("delete_queue", QueueUrl=answer["QueueUrl"])


async def test_the_observer_hears_of_every_call(aws_clients: AwsClients, make_queue: MakeQueue) -> None:
    heard: list[tuple[str, Fault | None]] = []

    def observe(operation: str, seconds: float, fault: Fault | None) -> None:
        assert seconds > 0
        heard.append((operation, fault))

    source = SqsSource(aws_clients, await make_queue(), dead_letter="no-such-dlq", observer=observe)
    await source.receive(NOW)
    with pytest.raises(SourceError):
        await source.dead_letter(Copy("x"))
    assert heard == [("get_queue_url", None), ("receive_message", None), ("send_message", Fault.MISSING)]


async def test_an_unreachable_endpoint_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        access = AwsAccess("us-east-1", f"http://127.0.0.1:{port}", credentials=Credentials("a", "b"))
        async with AwsClients(access) as clients:
            with pytest.raises(SourceError) as raised:
                await SqsSource(clients, "orders").receive(NOW)
    assert (fault_of(raised), raised.value.code) == (Fault.UNAVAILABLE, "EndpointConnectionError")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", Fault.UNAVAILABLE),
        (b"HTTP/1.1 503 Oops\r\nContent-Length: 6\r\n\r\n<html>", Fault.UNAVAILABLE),
        (b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n", Fault.UNAVAILABLE),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"Messages":', Fault.UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", Fault.UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", Fault.UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Fault.UNAVAILABLE),
        (b"not HTTP at all\r\n\r\n", Fault.UNAVAILABLE),
        (b"", Fault.UNAVAILABLE),
        (
            b'HTTP/1.1 403 Forbidden\r\nContent-Length: 30\r\n\r\n{"__type":"RequestThrottled"}\r\n',
            Fault.THROTTLED,
        ),
        (
            b'HTTP/1.1 400 Bad\r\nContent-Length: 31\r\n\r\n{"__type":"ExpiredToken"}      ',
            Fault.EXPIRED,
        ),
    ],
)
async def test_a_bad_answer_is_a_fault_and_the_next_call_is_made(answer: bytes, fault: Fault) -> None:
    """Whatever comes back, nothing but `SourceError` gets out (R6)."""
    taken = 0

    async def answer_badly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_badly, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    access = AwsAccess("us-east-1", f"http://{host}:{port}", credentials=Credentials("a", "b"))
    async with server, AwsClients(access) as clients:
        source = SqsSource(clients, "orders", call_deadline_seconds=5)
        for _ in range(2):
            with pytest.raises(SourceError) as raised:
                await source.receive(NOW)
            assert fault_of(raised) is fault
    assert taken >= 2


@asynccontextmanager
async def source_that_is_told(body: bytes) -> AsyncIterator[SqsSource]:
    """A source whose queue is found, and to which a server answers everything else with 200 and `body`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        said = b'{"QueueUrl": "http://x/1/orders"}' if b"GetQueueUrl" in head else body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    access = AwsAccess("us-east-1", f"http://{host}:{port}", credentials=Credentials("a", "b"))
    async with server, AwsClients(access) as clients:
        yield SqsSource(clients, "orders", dead_letter="dlq")


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'{"MessageId":'])
async def test_a_dead_letter_that_was_not_confirmed_was_not_sent(body: bytes) -> None:
    """A 200 proves nothing without the new message's id; else the original would be deleted and lost (S5)."""
    async with source_that_is_told(body) as source:
        with pytest.raises(SourceError) as raised:
            await source.dead_letter(Copy("body"))
    assert fault_of(raised) is Fault.UNAVAILABLE


@pytest.mark.parametrize("body", [b"<html>", b'{"Messages":', b'{"Messages":[{"Body":"x"}]}'])
async def test_an_answer_that_is_cut_short_is_not_an_empty_queue(body: bytes) -> None:
    """A proxy's page or half an answer is an error; else the loop would poll it without a pause (R6)."""
    async with source_that_is_told(body) as source:
        with pytest.raises(SourceError) as raised:
            await source.receive(NOW)
    assert fault_of(raised) is Fault.UNAVAILABLE


async def test_a_batch_answer_that_says_nothing_has_failed() -> None:
    """Only what SQS confirms is deleted (S1)."""
    async with source_that_is_told(b"{}") as source:
        answers = await source.delete(["a", "b"])
        with pytest.raises(SourceError):
            await source.describe()
        with pytest.raises(SourceError):
            await source.depth()
    assert [answer and answer.fault for answer in answers] == [Fault.UNAVAILABLE] * 2


async def test_a_silent_server_meets_the_deadline(blackhole: Blackhole) -> None:
    """A call that hangs ends at its deadline and leaves no task behind (R5)."""
    async with (
        blackhole() as endpoint,
        AwsClients(AwsAccess("us-east-1", endpoint, credentials=Credentials("a", "b"))) as clients,
    ):
        source = SqsSource(clients, "orders", call_deadline_seconds=0.3)
        tasks = asyncio.all_tasks()
        started = time.monotonic()
        with pytest.raises(SourceError) as raised:
            await source.receive(NOW)
        assert fault_of(raised) is Fault.TIMEOUT
        assert time.monotonic() - started < 1
        assert asyncio.all_tasks() == tasks
        assert clients.settle.deadline_hits == 1


async def test_waiting_for_a_connection_counts_against_the_deadline(
    aws: EmbeddedAws | LocalStack, make_queue: MakeQueue
) -> None:
    """When every connection is taken the call does not wait for ever; afterwards it works again (R5)."""
    queue = await make_queue()
    async with AwsClients(aws.access, receive_connections=1) as clients:
        source = SqsSource(clients, queue, call_deadline_seconds=0.5)
        await source.describe()
        poll = asyncio.create_task(
            source.receive(ReceiveRequest(limit=1, wait_seconds=2, visibility_timeout_seconds=30))
        )
        await asyncio.sleep(0.1)
        with pytest.raises(SourceError) as raised:
            await source.receive(NOW)
        assert fault_of(raised) is Fault.TIMEOUT
        assert await poll == []
        assert await source.receive(NOW) == []


async def test_long_polls_do_not_starve_settlement(aws: EmbeddedAws | LocalStack, make_queue: MakeQueue) -> None:
    """Receives have connections of their own (R7)."""
    queue = await make_queue()
    async with AwsClients(aws.access, receive_connections=2, settle_connections=1) as clients:
        source = SqsSource(clients, queue)
        request = ReceiveRequest(limit=1, wait_seconds=1, visibility_timeout_seconds=30)
        polls = [asyncio.create_task(source.receive(request)) for _ in range(4)]
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await source.delete(["no receipt"])
        assert time.monotonic() - started < 0.7
        assert await asyncio.gather(*polls) == [[]] * 4


async def test_a_stuck_client_is_replaced(blackhole: Blackhole) -> None:
    """After three deadlines in a row the next call uses a new client (R5)."""
    async with (
        blackhole() as endpoint,
        AwsClients(AwsAccess("us-east-1", endpoint, credentials=Credentials("a", "b"))) as clients,
    ):
        source = SqsSource(clients, "orders", call_deadline_seconds=0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("worker.aws.channel._REBUILD_INTERVAL_SECONDS", 0)
            for _ in range(4):
                with pytest.raises(SourceError):
                    await source.depth()
        assert clients.settle.rebuilds == 1


LEAST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:DeleteMessageBatch",  # the embedded AWS asks for batch calls by name, AWS does not
                "sqs:ChangeMessageVisibility",
                "sqs:ChangeMessageVisibilityBatch",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
            ],
            "Resource": "SOURCE",
        },
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "DEAD"},
    ],
}


async def access_with(aws: EmbeddedAws, name: str, policy: str) -> AwsAccess:
    """Make a user who may do what the policy says, and nothing else."""
    credentials = {
        "aws_access_key_id": aws.environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": aws.environment["AWS_SECRET_ACCESS_KEY"],
    }
    async with get_session().create_client(
        "iam", region_name="us-east-1", endpoint_url=aws.endpoint_url, **credentials
    ) as iam:
        await iam.create_user(UserName=name)
        await iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
        key = (await iam.create_access_key(UserName=name))["AccessKey"]
    return AwsAccess(
        aws.access.region, aws.endpoint_url, credentials=Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    )


async def test_running_needs_no_more_than_the_least_permissions(
    embedded_aws: EmbeddedAws, aws_clients: AwsClients, make_queue: MakeQueue
) -> None:
    """Of the dead-letter queue `SendMessage` is enough; without more its depth is unknown, not an error."""
    dead = await make_queue("orders-dlq")
    redrive = {"deadLetterTargetArn": await arn_of(aws_clients, dead), "maxReceiveCount": 10}
    queue = await make_queue(RedrivePolicy=json.dumps(redrive))
    await send(aws_clients, queue, "a")
    policy = (
        json.dumps(LEAST)
        .replace("SOURCE", await arn_of(aws_clients, queue))
        .replace("DEAD", await arn_of(aws_clients, dead))
    )
    async with AwsClients(await access_with(embedded_aws, queue, policy)) as clients:
        source = SqsSource(clients, queue, dead_letter=dead)
        await source.check_settlement()
        facts = await source.describe()
        assert facts.dead_letter_found
        assert (await source.depth()).dead_letters is None
        message = await receive_one(source)
        assert await source.extend([(message.receipt, 60)]) == [None]
        await source.dead_letter(Copy(message.body))
        assert await source.delete([message.receipt]) == [None]
    assert (await receive_one(SqsSource(aws_clients, dead))).body == "a"


async def test_denied_settlement_is_noticed_before_the_first_message(
    embedded_aws: EmbeddedAws, make_queue: MakeQueue
) -> None:
    """Else every message would run, and be dead-lettered though its work was done (S6)."""
    queue = await make_queue()
    allowed = {"Effect": "Allow", "Action": ["sqs:GetQueueUrl", "sqs:ReceiveMessage"], "Resource": "*"}
    access = await access_with(embedded_aws, queue, json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    async with AwsClients(access) as clients:
        source = SqsSource(clients, queue)
        assert await source.receive(NOW) == []
        with pytest.raises(SourceError) as raised:
            await source.check_settlement()
        assert fault_of(raised) is Fault.DENIED
        with pytest.raises(SourceError) as raised:
            await source.describe()
        assert fault_of(raised) is Fault.DENIED


async def test_credentials_that_were_rotated_are_read_anew(
    embedded_aws: EmbeddedAws, make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that was rotated away in the shared file heals without a restart, on both pools (R6)."""
    source_of_truth = tmp_path / "credentials"

    def write(key: str) -> None:
        source_of_truth.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {key}\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(source_of_truth))
    monkeypatch.setattr("worker.aws.channel._REBUILD_INTERVAL_SECONDS", 0)
    queue = await make_queue()
    write(embedded_aws.environment["AWS_ACCESS_KEY_ID"])
    async with AwsClients(AwsAccess("us-east-1", embedded_aws.endpoint_url)) as clients:
        source = SqsSource(clients, queue)
        await source.receive(NOW)
        write("AKIAROTATEDAWAY")
        for channel in (clients.receive, clients.settle):
            channel._has_expired = True  # as if AWS had said ExpiredToken: the file is read, and holds a key it refuses
        for call in (source.depth, lambda: source.receive(NOW)):
            with pytest.raises(SourceError) as raised:
                await call()
            assert fault_of(raised) is Fault.EXPIRED
        write(embedded_aws.environment["AWS_ACCESS_KEY_ID"])
        assert await source.receive(NOW) == []
        assert (await source.depth()).visible == 0
