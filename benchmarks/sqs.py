"""What the stub answers: SQS's JSON, rendered in advance as far as it can be.

One queue at a time is supplied: it always has as many messages as a receive asks for, each with an id and a receipt
handle of its own. All others are empty. What is deleted was received before, or it does not count.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

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
_NUMBER: Final = "%012x"
"""A message's number stands at the end of its id and of its receipt handle."""


def _rendered(count: int) -> bytes:
    """Return the answer to a receive of so many messages, with two places in each for its number."""
    message = orjson.dumps(_MESSAGE).decode()
    message = message.replace("%", "%%").replace("{id}", f"0f1e2d3c-4b5a-4978-8695-{_NUMBER}")
    message = message.replace("{receipt}", _NUMBER)
    return b'{"Messages":[' + ",".join([message] * count).encode() + b"]}"


_RECEIVED: Final = [_rendered(count) for count in range(MAX_BATCH + 1)]

Request = Mapping[str, Any]


class Refusal(Exception):  # noqa: N818  # SQS says no; nothing went wrong here
    """A call that SQS would answer with an error: its code, as in SQS's JSON protocol."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.body = orjson.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": code})


class StubSqs:
    """Answers SQS's calls; any queue exists, and `NAME-dlq` is the dead-letter queue of `NAME`."""

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
        self._in_flight: set[int] = set()
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
        """Whether the queue of a call has messages."""
        return queue_of(request) == self.supplied

    def _receive(self, request: Request) -> bytes:
        limit = request.get("MaxNumberOfMessages", 1)
        if not 1 <= limit <= MAX_BATCH:
            raise Refusal("InvalidParameterValue")
        if not self.has_messages(request):
            return b"{}"
        numbers = range(self.received, self.received + limit)
        self.received += limit
        self._in_flight.update(numbers)
        return _RECEIVED[limit] % tuple(number for number in numbers for _ in range(2))

    def _delete(self, request: Request) -> bytes:
        done, refused = _sorted(_entries(request))
        found = {int(entry["ReceiptHandle"][len(_RECEIPT_PREFIX) :], 16) for entry in done} & self._in_flight
        self._in_flight -= found  # SQS takes the delete of what is gone for a success, too
        self.deleted[queue_of(request)] += len(found)
        return _answers(done, refused)

    def _change(self, request: Request) -> bytes:
        return _answers(*_sorted(_entries(request)))

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
            "ApproximateNumberOfMessagesNotVisible": str(len(self._in_flight)),
            "ApproximateNumberOfMessagesDelayed": "0",
        }
        if not name.endswith("-dlq"):
            redrive = {"deadLetterTargetArn": f"{arn}-dlq", "maxReceiveCount": 10}
            attributes["RedrivePolicy"] = orjson.dumps(redrive).decode()
        asked = request.get("AttributeNames", ())
        return orjson.dumps(
            {"Attributes": {key: attributes[key] for key in attributes if key in asked or "All" in asked}}
        )


def queue_of(request: Request) -> str:
    """Return the name of the queue that a call is about."""
    url: str = request["QueueUrl"]
    return url.rpartition("/")[2]


Entry = Mapping[str, str]


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


def _answers(done: Sequence[Entry], refused: Sequence[Entry]) -> bytes:
    answer: dict[str, Any] = {"Successful": [{"Id": entry["Id"]} for entry in done]}
    if refused:
        answer["Failed"] = [
            {"Id": entry["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid"} for entry in refused
        ]
    return orjson.dumps(answer)
