"""Events that no handler takes, and bodies that nobody should have sent."""

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.bench import sleeping

from worker.errors import PermanentError
from worker.message import Message
from worker.router import Router
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

MIB = 1_048_576


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def orders_only() -> tuple[Router, list[str]]:
    router, seen = Router(), []

    @router.on("order.created")
    async def handler(message: Message[str]) -> None:
        seen.append(message.body)

    return router, seen


@pytest.mark.parametrize(
    ("body", "reason"),
    [("{}", "message without an event type"), ('{"event": "order.deleted"}', "unknown event type 'order.deleted'")],
)
async def test_an_unknown_event_is_retried_and_dead_lettered_at_the_last_attempt(body: str, reason: str) -> None:
    """A rolling deploy may bring its handler meanwhile (E5)."""
    source = MemorySource()
    message_id = source.send(body)
    await Fleet(source, attempts=3).run(orders_only()[0])
    (dead,) = source.dead_letters
    assert reason in str(dead.attributes["longshore.dead_letter"].value)
    assert len(source.receives[message_id]) == 3
    assert dead.body == body


async def test_an_unknown_event_reaches_a_newer_release() -> None:
    """It waits in the queue until a process comes that knows it (E5)."""
    source = MemorySource()
    old, (new, seen) = Router(), orders_only()
    old.on("page.viewed")(sleeping)
    source.send("{}", attributes={"event_type": "order.created"})
    async with Fleet(source, attempts=9).running(old):
        await asyncio.sleep(2)
    await Fleet(source, attempts=9).run(new)
    assert seen == ["{}"]
    assert source.dead_letters == []


async def test_an_unknown_event_is_dead_lettered_at_once_by_setting() -> None:
    """`unknown_event: dead_letter` (E5)."""
    source = MemorySource()
    message_id = source.send("{}")
    await Fleet(source, unknown_event="dead_letter").run(orders_only()[0])
    assert len(source.receives[message_id]) == 1
    assert [dead.arrived_by for dead in source.dead_letters] == ["copy"]


async def test_an_unknown_event_is_dropped_by_setting() -> None:
    """`unknown_event: ack` (E5)."""
    source = MemorySource()
    message_id = source.send("{}")
    await Fleet(source, unknown_event="ack").run(orders_only()[0])
    assert len(source.receives[message_id]) == 1
    assert source.dead_letters == []


# Hostile bodies


class Order(BaseModel):
    order_id: str
    amount: int


HOSTILE = {
    "a blank": " ",
    "line breaks": "\r\n\t\n",
    "null": "null",
    "zero": "0",
    "an empty string": '""',
    "an empty list": "[]",
    "an empty object": "{}",
    "half an object": '{"order_id": "1", "amount": ',
    "a list of orders": '[{"order_id": "1", "amount": 1}]',
    "one mebibyte of text": "x" * MIB,
    "one mebibyte of four-byte characters": "\U0001f6a2" * (MIB // 4),
    "one mebibyte in one key": '{"%s": 1}' % ("k" * (MIB - 8)),
    "one mebibyte of keys": ("{" + ",".join(f'"{n}":0' for n in range(85_000)) + "}"),
    "one mebibyte of errors": json.dumps([{}] * 250_000),
    "a mebibyte of event type": '{"event": "%s"}' % ("e" * (MIB - 13)),
    "deep lists": "[" * (MIB // 2) + "]" * (MIB // 2),
    "deep objects": '{"a":' * 150_000 + "1" + "}" * 150_000,
    "open brackets": '{"a":[' * 170_000,
    "a number of a million digits": '{"order_id": "1", "amount": %s}' % ("9" * 1_000_000),
    "a number beyond all doubles": '{"order_id": "1", "amount": 1e999999}',
    "no number": '{"order_id": "1", "amount": NaN}',
    "infinity": '{"order_id": "1", "amount": -Infinity}',
    "lone surrogates": '{"order_id": "\\ud800", "amount": "\\udfff"}',
    "a lone surrogate as the event type": '{"event": "\\ud800"}',
    "escaped control characters": '{"order_id": "\\u0000\\u001b[31m", "amount": "\\u0007"}',
    "control characters as the event type": '{"event": "\\u001b[2J\\r\\n"}',
    "the last characters that SQS takes": "\ud7ff\ue000\ufffd\U00010000\U0010ffff\u202e",
    "a byte order mark": "\ufeff{}",
    "duplicate keys": '{"amount": 1, "amount": "x", "order_id": 1, "order_id": 2}',
    "prototype keys": '{"__class__": "Order", "__proto__": {}, "order_id": {}, "amount": []}',
    "a notification without a message": '{"Type": "Notification", "TopicArn": "t", "MessageId": "m"}',
    "a notification with a broken attribute": json.dumps(
        {"Type": "Notification", "TopicArn": "t", "MessageId": "m", "Message": "{}", "MessageAttributes": {"a": 1}}
    ),
    "a notification in a notification": json.dumps(
        {"Type": "Notification", "TopicArn": "t", "MessageId": "m", "Message": '{"TopicArn": 1}', "Timestamp": "never"}
    ),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_body_ends_in_the_dead_letter_queue_as_it_came(body: str) -> None:
    """Byte for byte, at its first receive, quickly, and its neighbours are handled (E2)."""
    router, seen = Router(), []

    @router.on("*")
    async def handler(message: Message[Order]) -> None:
        seen.append(message.event.order_id)

    source = MemorySource()
    message_id = source.send(body)
    source.send('{"order_id": "good", "amount": 1}')
    started = time.process_time()
    await Fleet(source, concurrency=1).run(router)
    assert time.process_time() - started < 5
    (dead,) = source.dead_letters
    assert dead.body.encode() == body.encode()
    assert dead.arrived_by == "copy"
    assert len(source.receives[message_id]) == 1
    assert seen == ["good"]


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_a_handler_that_takes_anything_may_refuse_a_hostile_body(body: str) -> None:
    """Text, parsed JSON and bytes reach it or not: the outcome is a dead letter, byte for byte (E1, E2)."""
    source = MemorySource()

    async def handler(message: Message) -> None:  # type: ignore[type-arg]
        raise PermanentError(f"refused {message.event!s:.100}")

    source.send(body)
    await Fleet(source).run(handler)
    (dead,) = source.dead_letters
    assert dead.body.encode() == body.encode()


async def test_what_says_that_it_is_a_notification_must_be_one() -> None:
    """With `envelope: sns` a bare body is dead-lettered at once (E2)."""
    source = MemorySource()
    source.send('{"order_id": "1", "amount": 1}')
    await Fleet(source, envelope="sns").run(orders_only()[0])
    (dead,) = source.dead_letters
    assert dead.body == '{"order_id": "1", "amount": 1}'


async def test_no_payload_is_quoted_in_the_reason_or_in_the_log(logs: list[EventDict]) -> None:
    """What did not fit is told by field and rule (M3)."""
    router = Router()

    @router.on("*")
    async def handler(message: Message[Order]) -> None:
        raise AssertionError(message.body)

    source = MemorySource()
    source.send('{"order_id": "secret-1", "amount": "secret-2", "secret-3": 1}')
    await Fleet(source).run(router)
    (dead,) = source.dead_letters
    assert "amount: int_parsing" in str(dead.attributes["longshore.dead_letter"].value)
    assert "secret" not in str(dead.attributes)
    assert "secret" not in str(logs)
