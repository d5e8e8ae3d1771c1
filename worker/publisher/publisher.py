"""`Publisher`: events in, message ids out; ten at a time, tried again, in bounds."""

import asyncio
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from worker.aws.session import AwsAccess
from worker.errors import UsageError
from worker.publisher.batches import Answer, Batches, Limits
from worker.publisher.composer import MAX_BYTES, AttributeValue, Composer, Moment, Outgoing
from worker.publisher.errors import PublishError, PublishManyError, refused, unpublished
from worker.publisher.large_payloads import UPLOADS, LargePayloads, Storage
from worker.publisher.topic import SnsTopic, Topic
from worker.settings import AwsSettings, OffloadSettings

__all__ = ["Publisher", "Receipt"]

SMALLEST_MAX_BYTES: Final = 1_024
LARGEST_MAX_BYTES: Final = 1_048_576
"""What a topic's `MaximumMessageSize` may be."""
BATCHES_IN_FLIGHT: Final = 8
"""Eight calls of 50 ms carry 1,600 events a second; every one more costs a connection."""


class Receipt:
    """The answer to come for one event: await it for SNS's message id; it raises `PublishError`."""

    __slots__ = ("_answer", "_event_type", "_patience_seconds", "_topic")

    def __init__(self, answer: Answer, event_type: str, topic: str, patience_seconds: float) -> None:
        self._answer = answer
        self._event_type = event_type
        self._topic = topic
        self._patience_seconds = patience_seconds

    def __await__(self) -> Generator[Any, None, str]:
        result = yield from self._answer.__await__()
        if isinstance(result, str):
            return result
        raise unpublished(self._event_type, self._topic, result, self._patience_seconds)


class Publisher:
    """Publishes events to one SNS topic; an async context manager.

    1. `topic` is a name (in the account of the credentials), an ARN, or a `Topic` such as `MemoryTopic`; `aws` says
       where AWS is, else the AWS SDK's environment does.
    2. Concurrent publishes share calls of ten, within `max_bytes`: the topic's `MaximumMessageSize`.
    3. Throttles, outages and lost answers are tried again for `patience_seconds`; after a lost answer an event may
       arrive twice, unless a FIFO topic knows its `deduplication_id`.
    4. At most twice `batches_in_flight` batches are in hand; then publishes wait. A FIFO topic gets one call at a time,
       so that a group keeps its order.
    5. With `large_payloads`, the payload of an event that is too large is put into S3, and a pointer to it is sent,
       as AWS's extended clients do it; else such an event is refused.

    Raises `UsageError` for what cannot work: a name that is none, and, when entered, no region or no credentials.
    """

    def __init__(
        self,
        topic: str | Topic,
        *,
        aws: AwsAccess | AwsSettings | None = None,
        max_bytes: int = MAX_BYTES,
        batches_in_flight: int = BATCHES_IN_FLIGHT,
        patience_seconds: float = 30.0,
        large_payloads: LargePayloads | OffloadSettings | None = None,
    ) -> None:
        _check("max_bytes", max_bytes, SMALLEST_MAX_BYTES, LARGEST_MAX_BYTES)
        _check("batches_in_flight", batches_in_flight, 1, 1_000)
        _check("patience_seconds", patience_seconds, 0, 86_400)
        self._topic: Topic = (
            SnsTopic(topic, _access(aws), connections=batches_in_flight) if isinstance(topic, str) else topic
        )
        in_flight = 1 if self._topic.name.endswith(".fifo") else batches_in_flight
        self._limits = Limits(max_bytes, in_flight, patience_seconds)
        above = large_payloads.above_bytes if large_payloads and large_payloads.bucket else None
        self._composer = Composer(self._topic.name, max_bytes=max_bytes, large_above_bytes=above)
        self._storage = _storage(large_payloads, self._topic, patience_seconds)
        self._one_at_a_time = asyncio.Lock() if self._storage is not None and in_flight == 1 else None
        """On a FIFO topic, a small event must not overtake a large one on its way to S3."""
        self._batches: Batches | None = None

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic.name

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Get ready, where `async with` does not fit."""
        if self._batches is None:
            await self._topic.open()
            self._batches = Batches(self._topic.publish, self._limits, self.topic)

    async def close(self) -> None:
        """Publish what was accepted, then close the connections; later publishes are refused."""
        batches, self._batches = self._batches, None
        if batches is not None:
            try:
                await batches.close()
            finally:
                if self._storage is not None:
                    await self._storage.close()
                await self._topic.close()

    async def publish(
        self,
        event_type: str,
        event: Any,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        group_id: str | None = None,
        deduplication_id: str | None = None,
        expires_at: Moment | None = None,
    ) -> str:
        """Publish one event and return SNS's message id; raise `PublishError` when it was not or perhaps not published.

        `event` is a pydantic model, a dataclass, a dict or anything else that JSON can say; text is sent as it is.
        `attributes` are at most eight, beside `event_type` and `published_at`. `group_id` is for FIFO topics, or for
        fair queues behind standard ones; `deduplication_id` for FIFO topics without content-based deduplication.
        `expires_at`, a datetime with its time zone or Unix seconds, is sent as one more attribute: consumers skip the
        event when they come to it later than that.
        """
        outgoing = Outgoing(event_type, event, attributes, group_id, deduplication_id, expires_at)
        return await (await self.submit(outgoing))

    async def publish_many(self, events: Iterable[Outgoing | tuple[str, Any]]) -> list[str]:
        """Publish all events and return their message ids, in order; the iterable is read as there is room.

        Raises `PublishManyError` with the result of each when some were not published; the others were.
        """
        accepted: list[Receipt | PublishError] = []
        for event in events:
            try:
                accepted.append(await self.submit(Outgoing(*event)))
            except PublishError as error:
                accepted.append(error)
        results = [one if isinstance(one, PublishError) else await _result(one) for one in accepted]
        ids = [result for result in results if isinstance(result, str)]
        if len(ids) < len(results):
            raise PublishManyError(results, self.topic)
        return ids

    async def submit(self, outgoing: Outgoing) -> Receipt:
        """Accept an event as soon as there is room, and return its receipt, which need not be awaited.

        Raises `PublishError` for an event that SNS would refuse, and when S3 does not take a large payload.
        """
        if self._one_at_a_time is None:
            return await self._submit(outgoing)
        async with self._one_at_a_time:
            return await self._submit(outgoing)

    async def _submit(self, outgoing: Outgoing) -> Receipt:
        composed = self._composer.compose(outgoing)
        if self._batches is None:
            raise refused(
                outgoing.event_type,
                f"the publisher of {self.topic} is not open: publish inside `async with Publisher(...)`",
            )
        batches = self._batches
        if composed.is_large and self._storage is not None:
            pointer = await self._storage.put(outgoing.event_type, composed.publication.body)
            composed = self._composer.pointing(composed, pointer)
        answer = await batches.enqueue(composed)
        return Receipt(answer, outgoing.event_type, self.topic, self._limits.patience_seconds)

    def check(self, outgoing: Outgoing) -> None:
        """Raise `PublishError` for an event that `submit` would refuse."""
        self._composer.compose(outgoing)


async def _result(receipt: Receipt) -> str | PublishError:
    try:
        return await receipt
    except PublishError as error:
        return error


def _storage(wish: LargePayloads | OffloadSettings | None, topic: Topic, patience_seconds: float) -> Storage | None:
    if wish is None or wish.bucket is None:
        return None
    objects = wish.objects if isinstance(wish, LargePayloads) else None
    if objects is None:
        if not isinstance(topic, SnsTopic):
            raise UsageError(
                "large_payloads needs a topic on SNS, or says where they go: LargePayloads(..., objects=...)"
            )
        objects = topic.objects(UPLOADS)
    return Storage(wish.bucket, objects, patience_seconds)


def _access(aws: AwsAccess | AwsSettings | None) -> AwsAccess:
    if isinstance(aws, AwsSettings):
        return AwsAccess(aws.region, aws.endpoint_url, aws.service_endpoint_urls)
    return aws or AwsAccess()


def _check(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"{name} of a Publisher is {value!r}, but must be a number from {least:,} to {most:,}")
