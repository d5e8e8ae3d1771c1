"""The benchmarks' stub answers as SQS does, so that what is measured on it is what SQS would be given."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest

from benchmarks.handlers import router
from benchmarks.sqs import MAX_BATCH, Refusal, StubSqs
from benchmarks.stub import Polls, StubProtocol, serve
from worker.aws.envelope import decode
from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.aws.sqs import SqsSource
from worker.errors import Fault, SourceError
from worker.source import ReceiveRequest

ORDERS = "http://127.0.0.1/000000000000/orders"
TEN = ReceiveRequest(limit=10, wait_seconds=20, visibility_timeout_seconds=30)


class Wire(asyncio.Transport):
    """Keeps what the stub writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.written.append(bytes(data))


def connected(sqs: StubSqs) -> tuple[StubProtocol, Wire]:
    """Return one connection to the stub without a socket."""
    protocol, wire = StubProtocol(sqs, Polls(sqs)), Wire()
    protocol.connection_made(wire)
    return protocol, wire


def request(operation: str, **parameters: object) -> bytes:
    """Return a call as it comes over the wire."""
    body = orjson.dumps(parameters)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.{operation}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def received(sqs: StubSqs, limit: int = MAX_BATCH) -> list[dict[str, Any]]:
    """Receive from the stub without a connection."""
    answer = sqs.answer("ReceiveMessage", {"QueueUrl": ORDERS, "MaxNumberOfMessages": limit})
    messages: list[dict[str, Any]] = orjson.loads(answer)["Messages"]
    return messages


def delete(sqs: StubSqs, *receipts: str) -> Mapping[str, Any]:
    """Delete by receipt handles; the entries' ids are their positions."""
    entries = [{"Id": str(position), "ReceiptHandle": receipt} for position, receipt in enumerate(receipts)]
    answer: Mapping[str, Any] = orjson.loads(sqs.answer("DeleteMessageBatch", {"QueueUrl": ORDERS, "Entries": entries}))
    return answer


@pytest.fixture
def sqs() -> StubSqs:
    return StubSqs("orders")


@pytest.fixture
async def source(sqs: StubSqs) -> AsyncIterator[SqsSource]:
    """What the worker consumes from, on the stub."""
    async with await serve(sqs):
        access = AwsAccess("us-east-1", sqs.endpoint, credentials=Credentials("stub", "stub"))
        async with AwsClients(access) as clients:
            yield SqsSource(clients, "orders", dead_letter="orders-dlq")


@pytest.fixture
async def complaints() -> list[object]:
    """What the event loop says of callbacks that raise."""
    found: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


@pytest.mark.real_time
async def test_the_worker_receives_extends_and_deletes(sqs: StubSqs, source: SqsSource) -> None:
    """Longshore's own client understands every answer."""
    messages = await source.receive(TEN)
    assert len(messages) == 10
    assert await source.extend([(message.receipt, 30) for message in messages]) == [None] * 10
    assert await source.delete([message.receipt for message in messages]) == [None] * 10
    assert (sqs.received, sqs.deleted["orders"]) == (10, 10)
    assert (await source.describe()).dead_letter_found
    assert (await source.depth()).in_flight == 0
    await source.check_settlement()


@pytest.mark.real_time
async def test_the_handler_of_the_benchmark_takes_its_messages(source: SqsSource) -> None:
    """They travel in SNS's envelope and fit the type of the handler's annotation."""
    decoded = decode((await source.receive(TEN))[0], "auto")
    route = router.resolve(decoded.event_type)
    assert route is not None
    assert route.event_of(decoded).amount == Decimal("129.90")
    assert decoded.published_at is not None


def test_a_message_is_as_large_as_one_of_sqs(sqs: StubSqs) -> None:
    (message,) = received(sqs, 1)
    assert len(message["ReceiptHandle"]) == 412
    assert 1_150 <= len(message["Body"]) <= 1_250
    assert 2_200 <= len(orjson.dumps(message)) <= 2_400


def test_every_message_has_an_id_and_a_receipt_of_its_own(sqs: StubSqs) -> None:
    messages = [message for _ in range(20) for message in received(sqs)]
    assert len({message["MessageId"] for message in messages}) == 200
    assert len({message["ReceiptHandle"] for message in messages}) == 200


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_no_more_messages_come_than_were_asked_for(sqs: StubSqs, limit: int) -> None:
    assert len(received(sqs, limit)) == limit


@pytest.mark.parametrize("limit", [0, 11])
def test_a_receive_of_none_or_of_more_than_ten_is_refused(sqs: StubSqs, limit: int) -> None:
    with pytest.raises(Refusal, match="InvalidParameterValue"):
        received(sqs, limit)


def test_a_delete_is_answered_per_entry(sqs: StubSqs) -> None:
    """A receipt that is none of the queue's is refused, its neighbours are deleted."""
    receipts = [message["ReceiptHandle"] for message in received(sqs, 2)]
    answer = delete(sqs, receipts[0], "no-receipt", receipts[1])
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "2"]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [("1", "ReceiptHandleIsInvalid")]


def test_a_message_counts_as_deleted_once(sqs: StubSqs) -> None:
    (message,) = received(sqs, 1)
    for _ in range(2):
        assert "Failed" not in delete(sqs, message["ReceiptHandle"])
    assert sqs.deleted == {"orders": 1}


@pytest.mark.parametrize(("count", "code"), [(0, "EmptyBatchRequest"), (11, "TooManyEntriesInBatchRequest")])
def test_a_batch_has_one_to_ten_entries(sqs: StubSqs, count: int, code: str) -> None:
    with pytest.raises(Refusal, match=code):
        delete(sqs, *["receipt"] * count)


@pytest.mark.real_time
async def test_a_refusal_reaches_the_caller_with_its_code(source: SqsSource) -> None:
    with pytest.raises(SourceError) as refused:
        await source.receive(ReceiveRequest(limit=11, wait_seconds=0, visibility_timeout_seconds=30))
    assert refused.value.fault is Fault.INVALID


def test_an_unknown_operation_is_refused(sqs: StubSqs) -> None:
    protocol, wire = connected(sqs)
    protocol.data_received(request("PurgeQueue"))
    assert wire.written[0].startswith(b"HTTP/1.1 400 ")
    assert b"UnknownOperationException" in wire.written[0]


POLL = request("ReceiveMessage", QueueUrl=ORDERS, MaxNumberOfMessages=10, WaitTimeSeconds=20)


async def test_an_empty_queue_keeps_the_caller_waiting() -> None:
    """A long poll lasts as long as it asks for."""
    protocol, wire = connected(StubSqs())
    protocol.data_received(POLL)
    await asyncio.sleep(19.9)
    assert wire.written == []
    await asyncio.sleep(0.2)
    assert wire.written[0].endswith(b"\r\n\r\n{}")


async def test_a_poll_ends_once_its_queue_has_messages(complaints: list[object]) -> None:
    """So one consumer may rest in its polls while another one is measured."""
    protocol, wire = connected(StubSqs())
    protocol.data_received(POLL)
    await asyncio.sleep(5)
    protocol.data_received(b"GET /others HTTP/1.1\r\n\r\n")
    assert len(wire.written) == 1  # the answer to this, not to the poll
    protocol.data_received(b"GET /orders HTTP/1.1\r\n\r\n")
    assert wire.written[1].count(b"ReceiptHandle") == 10
    await asyncio.sleep(21)
    assert len(wire.written) == 3
    assert complaints == []


async def test_a_poll_ends_with_its_connection(complaints: list[object]) -> None:
    protocol, wire = connected(StubSqs())
    protocol.data_received(POLL)
    protocol.connection_lost(None)
    await asyncio.sleep(21)
    assert wire.written == []
    assert complaints == []


def test_a_request_may_come_in_pieces_and_two_in_one(sqs: StubSqs) -> None:
    protocol, wire = connected(sqs)
    call = request("GetQueueUrl", QueueName="orders")
    for position in range(len(call)):
        protocol.data_received(call[position : position + 1])
    protocol.data_received(call + call)
    assert len(wire.written) == 3
    assert sqs.calls == {"GetQueueUrl": 3}


def test_it_tells_what_it_has_counted(sqs: StubSqs) -> None:
    received(sqs, 3)
    protocol, wire = connected(sqs)
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    counted = orjson.loads(wire.written[0].partition(b"\r\n\r\n")[2])
    assert counted == {"received": 3, "deleted": {}, "calls": {"ReceiveMessage": 1}}
