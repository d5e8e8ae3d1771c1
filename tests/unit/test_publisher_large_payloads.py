"""Events that are too large for a message go through S3."""

import asyncio
import json
from typing import Any

import pytest

from worker import LargePayloads, Publisher, PublishError, UsageError
from worker.aws.pointers import pointer_in
from worker.errors import Fault
from worker.message import Attribute
from worker.publisher.composer import Outgoing
from worker.publisher.topic import Publication
from worker.settings import OffloadSettings
from worker.testing import MemoryObjects, MemoryTopic

LARGE = {"order_id": "1", "note": "æ" * 200_000}


def publisher(topic: MemoryTopic, objects: MemoryObjects, above_bytes: int = 262_144, **more: Any) -> Publisher:
    return Publisher(topic, large_payloads=LargePayloads("payloads", above_bytes, objects), **more)


def stored(publication: Publication, objects: MemoryObjects) -> str:
    pointer = pointer_in(publication.body, publication.attributes)
    assert pointer is not None
    assert pointer.bucket == "payloads"
    return objects.payloads[pointer].decode()


async def test_a_large_event_is_stored_and_pointed_to() -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    async with publisher(topic, objects) as orders:
        await orders.publish("order.created", LARGE, attributes={"country": "DE"})
    (publication,) = topic.publications
    body = stored(publication, objects)
    assert json.loads(body) == LARGE
    assert publication.attributes["ExtendedPayloadSize"] == Attribute("Number", str(len(body.encode())))
    assert publication.attributes["event_type"].value == "order.created"
    assert publication.attributes["country"].value == "DE"
    assert len(publication.body) < 200


async def test_a_small_event_travels_as_ever() -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    async with publisher(topic, objects) as orders:
        await orders.publish("order.created", {"order_id": "1"})
    assert topic.published == [("order.created", {"order_id": "1"})]
    assert objects.payloads == {}
    assert "ExtendedPayloadSize" not in topic.publications[0].attributes


async def test_every_event_goes_through_s3_where_the_threshold_is_0() -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    async with publisher(topic, objects, 0) as orders:
        await orders.publish_many([("order.created", "one"), ("order.created", "two")])
    assert [stored(publication, objects) for publication in topic.publications] == ["one", "two"]
    assert len({publication.body for publication in topic.publications}) == 2


async def test_what_the_topic_does_not_take_goes_through_s3_below_the_threshold_too() -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    async with publisher(topic, objects, max_bytes=2048) as orders:
        await orders.publish("order.created", "x" * 2048)
    assert stored(topic.publications[0], objects) == "x" * 2048


async def test_s3_is_tried_again_while_it_may_pass() -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    objects.fail(Fault.THROTTLED, calls=3)
    async with publisher(topic, objects) as orders:
        await orders.publish("order.created", LARGE)
    assert len(topic.publications) == len(objects.payloads) == 1


@pytest.mark.parametrize(
    ("fault", "calls", "sentence"),
    [
        (Fault.DENIED, 1, "allow these credentials the action s3:PutObject"),
        (Fault.MISSING, 1, "the bucket does not exist"),
        (Fault.INVALID, 1, "S3 refuses it (MemoryInvalid)"),
        (Fault.UNAVAILABLE, 1000, "no answer but MemoryUnavailable in 5 s: publish it again later"),
        (Fault.EXPIRED, 1000, "renew them"),
    ],
)
async def test_what_s3_does_not_take_is_not_published(fault: Fault, calls: int, sentence: str) -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    objects.fail(fault, calls=calls)
    async with publisher(topic, objects, patience_seconds=5) as orders:
        with pytest.raises(PublishError) as raised:
            await orders.publish("order.created", LARGE)
    assert sentence in str(raised.value)
    assert "order.created was not published" in str(raised.value)
    assert "the bucket payloads" in str(raised.value)
    assert raised.value.fault is fault
    assert topic.publications == []


async def test_the_size_is_one_of_the_ten_attributes() -> None:
    topic, objects = MemoryTopic(), MemoryObjects()
    eight = {f"a{number}": "x" for number in range(8)}
    async with publisher(topic, objects) as orders:
        await orders.publish("order.created", "small", attributes=eight)
        with pytest.raises(PublishError, match="its attributes must be at most 9"):
            await orders.publish("order.created", LARGE, attributes=eight)
        with pytest.raises(PublishError, match="its attributes must be at most 9"):
            orders.check(Outgoing("order.created", LARGE, eight))
        with pytest.raises(PublishError, match=r"fit into 262,144 bytes"):
            await orders.publish("order.created", LARGE, attributes={"a": "x" * 262_144})


class SlowObjects(MemoryObjects):
    """Takes its time to store."""

    async def put(self, pointer: Any, body: bytes) -> None:
        await asyncio.sleep(1)
        await super().put(pointer, body)


async def test_on_a_fifo_topic_nothing_overtakes_a_large_event() -> None:
    topic, objects = MemoryTopic("orders.fifo"), SlowObjects()
    async with publisher(topic, objects) as orders:
        await asyncio.gather(
            *(
                orders.publish("order.updated", event, group_id="1", deduplication_id=f"{number}")
                for number, event in enumerate([LARGE, "second", LARGE, "fourth"])
            )
        )
    assert [publication.deduplication_id for publication in topic.publications] == ["0", "1", "2", "3"]


async def test_without_it_a_large_event_is_refused() -> None:
    for wish in (None, OffloadSettings()):
        async with Publisher(MemoryTopic(), large_payloads=wish) as orders:
            with pytest.raises(PublishError, match="let the publisher do it"):
                await orders.publish("order.created", LARGE)


def test_a_topic_that_is_not_on_sns_needs_a_place() -> None:
    with pytest.raises(UsageError, match=r"LargePayloads\(\.\.\., objects=\.\.\.\)"):
        Publisher(MemoryTopic(), large_payloads=LargePayloads("payloads"))
