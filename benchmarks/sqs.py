"""What the stub answers: SQS's JSON, rendered in advance as far as it can be.

One queue at a time is supplied: it has what its backlog gives (`benchmarks/backlogs.py`), each message with an id and a
receipt handle of its own. All others are empty. What is deleted was received before, or it does not count.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import orjson

from benchmarks.backlogs import GROUPS, Backlog, backlog_of

__all__ = ["ACCOUNT", "MAX_BATCH", "Refusal", "StubSqs", "queue_of"]

ACCOUNT: Final = "000000000000"
MAX_BATCH: Final = 10
REGION: Final = "us-east-1"

_SENT_AT: Final = "1760000000000"
_PUBLISHED_AT: Final = "2025-10-09T08:53:20.000Z"
_EVENT: Final = {
    "event": "order.created",
    "order_id": "ord-7f3a2c91-5b1e-4f60-9d27-c4a8e0b91d55",
    "user_id": "usr-1f0c9b7e-22aa-4a54-8d4e-7d0b6a3f9c10",
    "amount": "129.90",
    "currency": "EUR",
    "items": [{"sku": f"sku-{number:05}", "quantity": number, "price": "43.30"} for number in (1, 2, 3)],
    "note": "Please ring twice; the bell is shy.",
}
_NOTIFICATION: Final = {
    "Type": "Notification",
    "MessageId": "5a1d7c0e-6b0f-5d0c-9b7e-24f4f1c0a8d1",
    "TopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:order-events",
    "Message": orjson.dumps(_EVENT).decode(),
    "Timestamp": _PUBLISHED_AT,
    "SignatureVersion": "1",
    "Signature": "EXAMPLEw6JRN" * 20,
    "SigningCertURL": f"https://sns.{REGION}.amazonaws.com/SimpleNotificationService-0000000000000000000000.pem",
    "UnsubscribeURL": f"https://sns.{REGION}.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:{REGION}",
    "MessageAttributes": {"event_type": {"Type": "String", "Value": "order.created"}},
}
_RECEIPT_PREFIX: Final = "AQEB" + "wJnKyrHigUMZj6rYigCgxlaS3SLy0a/" * 12 + "AAAAAAAAAAAAAAAAAAAAAAAA"
_MESSAGE: Final = {
    "MessageId": "{id}",
    "ReceiptHandle": _RECEIPT_PREFIX + "{receipt}",
    "MD5OfBody": "098f6bcd4621d373cade4e832627b4f6",
    "Body": orjson.dumps(_NOTIFICATION).decode(),
    "Attributes": {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": _SENT_AT,
        "AWSTraceHeader": "Root=1-68e778a0-3f6a1c2b7d8e9f0a1b2c3d4e;Parent=53995c3f42cd8ad8;Sampled=0",
    },
    "MD5OfMessageAttributes": "7d5ee2d1f6f6a0b3e1c9d1a3a1d0ea5f",
    "MessageAttributes": {
        "traceparent": {
            "DataType": "String",
            "StringValue": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        }
    },
}
_OF_FIFO: Final = {
    "SequenceNumber": "{sequence}",
    "MessageDeduplicationId": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "MessageGroupId": "customer-{group}",
}
_FIFO_MESSAGE: Final = {**_MESSAGE, "Attributes": {**cast("Mapping[str, str]", _MESSAGE["Attributes"]), **_OF_FIFO}}
_NUMBER: Final = "%012x"
"""A message's number stands at the end of its id and of its receipt handle; on a FIFO queue it is the sequence number, too."""


def _rendered(message: Mapping[str, object], count: int) -> bytes:
    """Return the answer to a receive of so many messages, with places in each for its number and its group."""
    text = orjson.dumps(message).decode().replace("%", "%%")
    text = text.replace("{id}", f"0f1e2d3c-4b5a-4978-8695-{_NUMBER}").replace("{receipt}", _NUMBER)
    text = text.replace("{sequence}", "%020d").replace("{group}", "%03d")
    return b'{"Messages":[' + ",".join([text] * count).encode() + b"]}"


_RECEIVED: Final = [_rendered(_MESSAGE, count) for count in range(MAX_BATCH + 1)]
_RECEIVED_OF_FIFO: Final = [_rendered(_FIFO_MESSAGE, count) for count in range(MAX_BATCH + 1)]

Request = Mapping[str, Any]


class Refusal(Exception):  # noqa: N818  # SQS says no; nothing went wrong here
    """A call that SQS would answer with an error: its code, as in SQS's JSON protocol."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.body = orjson.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": code})


class StubSqs:
    """Answers SQS's calls; any queue exists, and `NAME-dlq` is the dead-letter queue of `NAME`, `NAME-dlq.fifo` of `NAME.fifo`."""

    def __init__(self, supplied: str = "") -> None:
        self.supplied = supplied
        """Name of the queue that has messages; empty when none has."""
        self.endpoint = ""
        """Stands before the account in a queue's URL."""
        self.calls: Counter[str] = Counter()
        """How often each operation was called."""
        self.deleted: Counter[str] = Counter()
        """Messages that were received and then deleted, each once, by queue."""
        self.received = 0
        self._backlogs: dict[str, Backlog] = {}
        self._operations: dict[str, Callable[[Request], bytes]] = {
            "ReceiveMessage": self._receive,
            "DeleteMessageBatch": self._delete,
            "ChangeMessageVisibilityBatch": self._change,
            "SendMessage": self._send,
            "GetQueueUrl": self._url,
            "GetQueueAttributes": self._attributes,
        }

    def answer(self, operation: str, request: Request) -> bytes:
        """Return the body of the answer; raises `Refusal`."""
        answer = self._operations.get(operation)
        if answer is None:
            raise Refusal("UnknownOperationException")
        self.calls[operation] += 1
        return answer(request)

    def has_messages(self, request: Request) -> bool:
        """Whether the queue of a call has messages that may be received."""
        queue = queue_of(request)
        return queue == self.supplied and self._backlog(queue).has_messages

    def _backlog(self, queue: str) -> Backlog:
        if queue not in self._backlogs:
            self._backlogs[queue] = backlog_of(queue)
        return self._backlogs[queue]

    def _receive(self, request: Request) -> bytes:
        limit = request.get("MaxNumberOfMessages", 1)
        if not 1 <= limit <= MAX_BATCH:
            raise Refusal("InvalidParameterValue")
        if not self.has_messages(request):
            return b"{}"
        queue = queue_of(request)
        numbers = self._backlog(queue).take(limit)
        self.received += len(numbers)
        if queue.endswith(".fifo"):
            places = (place for n in numbers for place in (n, n, n, n % GROUPS))
            return _RECEIVED_OF_FIFO[len(numbers)] % tuple(places)
        return _RECEIVED[len(numbers)] % tuple(number for number in numbers for _ in range(2))

    def _delete(self, request: Request) -> bytes:
        done, refused = _sorted(_entries(request))
        queue = queue_of(request)
        found = self._backlog(queue).delete(map(_number, done))
        self.deleted[queue] += found  # SQS takes the delete of what is gone for a success, too
        return _answers(done, refused)

    def _change(self, request: Request) -> bytes:
        done, refused = _sorted(_entries(request))
        self._backlog(queue_of(request)).give_back(_number(entry) for entry in done if not entry["VisibilityTimeout"])
        return _answers(done, refused)

    def _send(self, request: Request) -> bytes:
        del request
        return orjson.dumps({"MessageId": "9e8d7c6b-5a49-4837-a615-0f1e2d3c4b5a", "MD5OfMessageBody": "0" * 32})

    def _url(self, request: Request) -> bytes:
        return orjson.dumps({"QueueUrl": f"{self.endpoint}/{ACCOUNT}/{request['QueueName']}"})

    def _attributes(self, request: Request) -> bytes:
        name = queue_of(request)
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        attributes = {
            "QueueArn": arn,
            "VisibilityTimeout": "30",
            "MessageRetentionPeriod": "1209600",
            "ApproximateNumberOfMessages": "0",
            "ApproximateNumberOfMessagesNotVisible": str(self._backlog(name).in_flight),
            "ApproximateNumberOfMessagesDelayed": "0",
        }
        base, fifo, _ = name.partition(".fifo")
        if not base.endswith("-dlq"):
            target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{base}-dlq{fifo}"
            redrive = {"deadLetterTargetArn": target, "maxReceiveCount": 10}
            attributes["RedrivePolicy"] = orjson.dumps(redrive).decode()
        asked = request.get("AttributeNames", ())
        return orjson.dumps(
            {"Attributes": {key: attributes[key] for key in attributes if key in asked or "All" in asked}}
        )


def queue_of(request: Request) -> str:
    """Return the name of the queue that a call is about."""
    url: str = request["QueueUrl"]
    return url.rpartition("/")[2]


Entry = Mapping[str, Any]


def _entries(request: Request) -> Sequence[Entry]:
    entries: Sequence[Entry] = request["Entries"]
    if not entries:
        raise Refusal("EmptyBatchRequest")
    if len(entries) > MAX_BATCH:
        raise Refusal("TooManyEntriesInBatchRequest")
    return entries


def _sorted(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the entries whose receipt handles are ours, and the others."""
    done = [entry for entry in entries if entry["ReceiptHandle"].startswith(_RECEIPT_PREFIX)]
    return done, [entry for entry in entries if entry not in done] if len(done) < len(entries) else []


def _number(entry: Entry) -> int:
    """Return the number of the message whose receipt handle the entry has."""
    return int(entry["ReceiptHandle"][len(_RECEIPT_PREFIX) :], 16)


def _answers(done: Sequence[Entry], refused: Sequence[Entry]) -> bytes:
    answer: dict[str, Any] = {"Successful": [{"Id": entry["Id"]} for entry in done]}
    if refused:
        answer["Failed"] = [
            {"Id": entry["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid"} for entry in refused
        ]
    return orjson.dumps(answer)
