"""`SqsSource`: a queue of Amazon SQS and its dead-letter queue, as the engine knows them."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from worker.aws.address import queue_address
from worker.aws.channel import CALL_DEADLINE_SECONDS, Channel
from worker.aws.entries import answers, sent_attributes
from worker.aws.faults import reading_an_answer, source_error
from worker.aws.session import AwsClients
from worker.errors import EntryError, Fault, SourceError
from worker.message import Attribute, Received
from worker.source import MAX_BATCH, Copy, Depth, QueueFacts, ReceiveRequest

__all__ = ["Observer", "SqsSource"]

T = TypeVar("T")
Answers = list[EntryError | None]

Observer = Callable[[str, float, Fault | None], None]
"""Told of every call: the operation, its seconds, and the fault if it failed as a whole."""

_SYSTEM_ATTRIBUTES = (
    "ApproximateReceiveCount",
    "SentTimestamp",
    "MessageGroupId",
    "MessageDeduplicationId",
    "SequenceNumber",
    "AWSTraceHeader",
)
_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")
_VISIBLE, _IN_FLIGHT, _DELAYED = _COUNTS
_NO_RECEIPT = "longshore-permission-check"
_GOOD_NEWS = frozenset({Fault.LOST, Fault.INVALID})


class SqsSource:
    """A `worker.source.Source` on SQS.

    Addresses are names, ARNs or URLs; a name is resolved at the first call, and again after the queue was missing.
    Of the dead-letter queue only `sqs:SendMessage` is needed: it lies beside its source, so its URL is not asked for.
    With `sqs:GetQueueAttributes` on it, its depth is known too. Calls end within 10 s, receives within their wait
    plus 10 s; resolving the name is a call of its own.
    """

    def __init__(
        self,
        clients: AwsClients,
        address: str,
        *,
        dead_letter: str | None = None,
        observer: Observer | None = None,
        call_deadline_seconds: float = CALL_DEADLINE_SECONDS,
    ) -> None:
        self._receive: Channel = clients.receive
        self._settle: Channel = clients.settle
        self._blocking = clients.blocking_sqs
        self._address = queue_address(address, clients.region)
        self._dead_letter = None if dead_letter is None else queue_address(dead_letter, clients.region)
        self._observer = observer
        self._deadline = call_deadline_seconds
        self._url: str | None = None

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._address.name

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        """Return at most `limit` messages; the call ends within its wait plus 10 s."""
        parameters: dict[str, Any] = {
            "MaxNumberOfMessages": request.limit,
            "WaitTimeSeconds": request.wait_seconds,
            "VisibilityTimeout": request.visibility_timeout_seconds,
            "MessageSystemAttributeNames": _SYSTEM_ATTRIBUTES,
            "MessageAttributeNames": ("All",),
        }
        if request.attempt_id is not None:
            parameters["ReceiveRequestAttemptId"] = request.attempt_id
        answer = await self._call(self._receive, "receive_message", await self._own_url(), **parameters)
        with reading_an_answer():
            return [_received(message) for message in answer.get("Messages", ())]

    async def extend(self, changes: Sequence[tuple[str, int]]) -> Answers:
        """Hide each receipt's message for its number of seconds from now; at most ten at once."""
        return await self._batch("change_message_visibility_batch", _visibilities(changes))

    def extend_blocking(self, changes: Sequence[tuple[str, int]]) -> Answers:
        """Do the same without the event loop, from another thread; at most ten at once, within a few seconds."""
        if self._url is None:
            raise SourceError(Fault.MISSING, "NoUrl", f"the queue {self.queue} was never reached")
        started = time.monotonic()
        fault: Fault | None = None
        try:
            answer = self._blocking().change_message_visibility_batch(
                QueueUrl=self._url, Entries=_visibilities(changes)
            )
        except Exception as error:
            failure = source_error(error)
            fault = failure.fault
            raise failure from error
        finally:
            if self._observer is not None:
                self._observer("change_message_visibility_batch", time.monotonic() - started, fault)
        return answers(answer, len(changes))

    async def delete(self, receipts: Sequence[str]) -> Answers:
        """Delete the messages of the receipts; at most ten at once."""
        entries = [{"Id": str(position), "ReceiptHandle": receipt} for position, receipt in enumerate(receipts)]
        return await self._batch("delete_message_batch", entries)

    async def dead_letter(self, copy: Copy) -> None:
        """Send the copy to the dead-letter queue; return once SQS has confirmed it."""
        if self._dead_letter is None:
            raise SourceError(Fault.MISSING, "NoDeadLetterQueue", f"{self.queue} has none by its settings")
        parameters: dict[str, Any] = {"MessageBody": copy.body}
        if copy.attributes:
            parameters["MessageAttributes"] = sent_attributes(copy.attributes)
        if copy.trace_header is not None:
            trace = {"DataType": "String", "StringValue": copy.trace_header}
            parameters["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
        if copy.group_id is not None:
            parameters["MessageGroupId"] = copy.group_id
        if copy.deduplication_id is not None and self._dead_letter.is_fifo:  # a standard queue refuses it
            parameters["MessageDeduplicationId"] = copy.deduplication_id
        answer = await self._call(self._settle, "send_message", await self._dead_letter_url(), **parameters)
        with reading_an_answer():
            _ = answer["MessageId"]  # without it nothing was confirmed, whatever the status says

    async def describe(self) -> QueueFacts:
        """Read what SQS says of the queue."""
        url = await self._own_url()
        said = await self._attributes(url, ("VisibilityTimeout", "MessageRetentionPeriod", "RedrivePolicy"))
        with reading_an_answer():
            redrive = json.loads(said.get("RedrivePolicy") or "{}")
            arn = redrive.get("deadLetterTargetArn")
            target = None if arn is None else str(arn).rsplit(":", 1)[-1]
            return QueueFacts(
                is_fifo=self._address.is_fifo,
                visibility_timeout_seconds=int(said["VisibilityTimeout"]),
                retention_seconds=int(said["MessageRetentionPeriod"]),
                max_receive_count=int(redrive["maxReceiveCount"]) if "maxReceiveCount" in redrive else None,
                redrive_target=target,
                dead_letter_found=await self._finds_dead_letter(target),
            )

    async def depth(self) -> Depth:
        """Return the approximate counts; `dead_letters` is `None` where there is none or it may not be read."""
        said = await self._attributes(await self._own_url(), _COUNTS)
        dead_letters = await self._dead_letter_count()
        with reading_an_answer():
            return Depth(int(said[_VISIBLE]), int(said[_IN_FLIGHT]), int(said[_DELAYED]), dead_letters)

    async def check_settlement(self) -> None:
        """Raise `SourceError` when deletes or visibility changes are denied or unreachable; touch no message.

        SQS checks permissions before it looks at the receipt handle, so its complaint about a false one is good news.
        """
        await self._see_that_it_is_allowed(self.delete, _NO_RECEIPT)
        await self._see_that_it_is_allowed(self.extend, (_NO_RECEIPT, 0))

    async def close(self) -> None:
        """Do nothing: the connections belong to `AwsClients`."""

    async def _see_that_it_is_allowed(self, settle: Callable[[list[T]], Awaitable[Answers]], entry: T) -> None:
        try:
            (refusal,) = await settle([entry])
        except SourceError as error:
            refusal = EntryError(error.fault, error.code, error.detail)
        if refusal is not None and refusal.fault not in _GOOD_NEWS:
            raise SourceError(refusal.fault, refusal.code, refusal.detail)

    async def _own_url(self) -> str:
        if self._url is None:
            parameters = {"QueueName": self._address.name}
            if self._address.account is not None:
                parameters["QueueOwnerAWSAccountId"] = self._address.account
            answer = await self._call(self._settle, "get_queue_url", None, **parameters)
            with reading_an_answer():
                self._url = str(answer["QueueUrl"])
        return self._url

    async def _dead_letter_url(self) -> str:
        """Derive it from the source's: SQS wants both in one account and region."""
        if self._dead_letter is None:
            raise SourceError(Fault.MISSING, "NoDeadLetterQueue", f"{self.queue} has none by its settings")
        base, account, _ = (await self._own_url()).rsplit("/", 2)
        return f"{base}/{self._dead_letter.account or account}/{self._dead_letter.name}"

    async def _finds_dead_letter(self, redrive_target: str | None) -> bool:
        if self._dead_letter is None:
            return False
        try:
            await self._attributes(await self._dead_letter_url(), ("QueueArn",))
        except SourceError as error:
            if error.fault is Fault.MISSING:
                return False
            if error.fault is Fault.DENIED:  # SQS takes a RedrivePolicy only to a queue that exists
                return redrive_target == self._dead_letter.name
            raise
        return True

    async def _dead_letter_count(self) -> int | None:
        if self._dead_letter is None:
            return None
        try:
            said = await self._attributes(await self._dead_letter_url(), (_VISIBLE,))
        except SourceError as error:
            if error.fault in {Fault.DENIED, Fault.MISSING}:
                return None
            raise
        with reading_an_answer():
            return int(said[_VISIBLE])

    async def _attributes(self, url: str, names: Sequence[str]) -> Mapping[str, str]:
        answer = await self._call(self._settle, "get_queue_attributes", url, AttributeNames=names)
        attributes: Mapping[str, str] = answer.get("Attributes", {})
        return attributes

    async def _batch(self, operation: str, entries: list[dict[str, Any]]) -> Answers:
        """Make one batch call; entry ids are positions, since SQS refuses a batch that names a message twice."""
        if len(entries) > MAX_BATCH:
            raise ValueError(f"{operation}: {len(entries)} entries, SQS takes at most {MAX_BATCH}")
        if not entries:
            return []
        answer = await self._call(self._settle, operation, await self._own_url(), Entries=entries)
        return answers(answer, len(entries))

    async def _call(self, channel: Channel, operation: str, url: str | None, **parameters: Any) -> Any:
        """Call, tell the observer, and forget the queue's URL when there is no such queue."""
        if url is not None:
            parameters["QueueUrl"] = url
        deadline = self._deadline + parameters.get("WaitTimeSeconds", 0)
        started = time.monotonic()
        fault: Fault | None = None
        try:
            return await channel.call(operation, deadline=deadline, **parameters)
        except SourceError as error:
            fault = error.fault
            if fault is Fault.MISSING:
                self._url = None
            raise
        finally:
            if self._observer is not None:
                self._observer(operation, time.monotonic() - started, fault)


def _visibilities(changes: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [
        {"Id": str(position), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
        for position, (receipt, seconds) in enumerate(changes)
    ]


def _received(message: Mapping[str, Any]) -> Received:
    system = message.get("Attributes", {})
    attributes = message.get("MessageAttributes")
    return Received(
        id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=message.get("Body", ""),
        attributes={name: _attribute(value) for name, value in attributes.items()} if attributes else {},
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at=int(system.get("SentTimestamp", 0)) / 1000,
        group_id=system.get("MessageGroupId"),
        deduplication_id=system.get("MessageDeduplicationId"),
        sequence_number=system.get("SequenceNumber"),
        trace_header=system.get("AWSTraceHeader"),
    )


def _attribute(value: Mapping[str, Any]) -> Attribute:
    data_type = value["DataType"]
    return Attribute(data_type, value["BinaryValue"] if data_type.startswith("Binary") else value["StringValue"])
