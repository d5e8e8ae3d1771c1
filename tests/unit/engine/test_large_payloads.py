"""Messages that only point to their payload in S3."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from pydantic import BaseModel

from worker.aws.pointers import pointer_body
from worker.errors import Fault
from worker.message import Message
from worker.objects import S3Pointer
from worker.router import Batch, Router
from worker.testing import Fleet, MemorySource

POINTER = S3Pointer("payloads", "key-1")
PAYLOAD = '{"event": "order.created", "order_id": "1"}'
OURS = {"buckets": ["payloads"]}


class Order(BaseModel):
    order_id: str


def settled(fleet: Fleet) -> dict[str, int]:
    assert fleet.consumer is not None
    found = fleet.consumer.context.metrics.snapshot()["settled"]
    return {outcome: count for outcome, count in found.items() if count}


def send(
    source: MemorySource, pointer: S3Pointer = POINTER, *, event_type: str | None = "order.created", **more: Any
) -> None:
    attributes = {"ExtendedPayloadSize": "300000"} | ({"event_type": event_type} if event_type else {})
    source.send(pointer_body(pointer), attributes=attributes, **more)


def fleet_at(source: MemorySource, **settings: Any) -> Fleet:
    fleet = Fleet(source, **{"large_payloads": OURS, **settings})
    fleet.objects.payloads[POINTER] = PAYLOAD.encode()
    return fleet


def reason(source: MemorySource) -> str:
    (letter,) = source.dead_letters
    assert letter.body == pointer_body(POINTER) or "elsewhere" in letter.body
    assert letter.attributes["ExtendedPayloadSize"].value == "300000"
    return str(letter.attributes["longshore.dead_letter"].value)


@pytest.mark.parametrize("event_type", ["order.created", None])
async def test_a_handler_sees_the_payload(event_type: str | None) -> None:
    """As if it had come in the message; also where the event type stands in the payload."""
    source, seen = MemorySource(), []
    router = Router()

    @router.on("order.created")
    async def handle(message: Message[Order]) -> None:
        seen.append((message.event.order_id, message.body, message.event_type, dict(message.attributes)))

    send(source, event_type=event_type)
    await fleet_at(source).run(router)
    assert seen == [("1", PAYLOAD, "order.created", {"event_type": event_type} if event_type else {})]


async def test_a_handler_may_ask_for_the_pointer() -> None:
    """It reads the object by itself; nothing is fetched."""
    source, seen = MemorySource(), []
    router = Router()

    @router.on("order.created")
    async def handle(message: Message[S3Pointer]) -> None:
        seen.append(message.event)

    send(source)
    fleet = Fleet(source)
    await fleet.run(router)
    assert seen == [POINTER]
    assert fleet.objects.fetched == []


@pytest.mark.parametrize(("buckets", "is_handled"), [(["payloads"], True), (["others"], False)])
async def test_a_handler_of_pointers_is_sent_to_the_named_buckets_only(buckets: list[str], *, is_handled: bool) -> None:
    """Who may send to a queue does not choose what its workers read, whoever does the reading (E7)."""
    source, seen = MemorySource(), []

    async def handle(message: Message[S3Pointer]) -> None:
        seen.append(message.event)

    send(source)
    await fleet_at(source, large_payloads={"buckets": buckets}).run(handle)
    assert seen == [POINTER] * is_handled
    if not is_handled:
        assert "the bucket 'payloads', which is not in large_payloads.buckets" in reason(source)


@pytest.mark.parametrize("attribute", ["ExtendedPayloadSize", "SQSLargePayloadSize"])
@pytest.mark.parametrize(
    "body",
    [
        '["com.example.Pointer", {"s3BucketName": "payloads", "s3Key": "key-1"}]',
        '["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "payloads"}]',
        PAYLOAD,
    ],
    ids=["another class", "no key", "no pointer at all"],
)
async def test_a_broken_pointer_is_named_as_one(attribute: str, body: str) -> None:
    """Nothing is said of the handler's type, which the body never meant to fit (E7)."""
    source = MemorySource()
    source.send(body, attributes={attribute: "300000", "event_type": "order.created"})
    await fleet_at(source).run(handle_order)
    (letter,) = source.dead_letters
    told = str(letter.attributes["longshore.dead_letter"].value)
    assert f"it has the attribute {attribute} of a large payload, but its body is no pointer to S3" in told
    assert letter.body == body


async def test_a_handler_of_pointers_takes_nothing_else() -> None:
    source = MemorySource()
    router = Router()

    @router.on("*")
    async def handle(message: Message[S3Pointer]) -> None:
        raise AssertionError(message)

    source.send("small")
    await Fleet(source).run(router)
    (letter,) = source.dead_letters
    assert "does not point to S3" in str(letter.attributes["longshore.dead_letter"].value)


async def handle_order(message: Message[Order]) -> None:
    assert message.event.order_id == "1"


async def test_another_bucket_is_not_asked() -> None:
    source = MemorySource()
    send(source, S3Pointer("elsewhere", "key"))
    fleet = fleet_at(source)
    await fleet.run(handle_order)
    assert "the bucket 'elsewhere', which is not in large_payloads.buckets" in reason(source)
    assert fleet.objects.fetched == []


async def test_an_object_that_is_not_there_can_never_be_handled() -> None:
    source = MemorySource()
    send(source)
    fleet = fleet_at(source)
    fleet.objects.payloads.clear()
    await fleet.run(handle_order)
    assert "its payload is not in S3 (s3://payloads/key-1)" in reason(source)
    assert fleet.objects.fetched == [POINTER]


async def test_an_object_that_is_too_large_is_not_read() -> None:
    source = MemorySource()
    send(source)
    fleet = fleet_at(source, large_payloads={**OURS, "max_bytes": 1024})
    fleet.objects.payloads[POINTER] = b"x" * 1025
    await fleet.run(handle_order)
    assert "its payload in S3 cannot be read" in reason(source)
    assert "larger than 1,024 bytes" in reason(source)


async def test_a_payload_that_does_not_fit_is_dead_lettered_as_a_pointer() -> None:
    source = MemorySource()
    send(source)
    fleet = fleet_at(source)
    fleet.objects.payloads[POINTER] = b"{}"
    await fleet.run(handle_order)
    assert "the payload does not fit Order" in reason(source)
    assert POINTER in fleet.objects.payloads


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.THROTTLED, Fault.DENIED, Fault.EXPIRED])
@pytest.mark.parametrize("event_type", ["order.created", None])
async def test_an_outage_of_s3_costs_no_message(fault: Fault, event_type: str | None) -> None:
    """It is an outage of what the handlers depend on: nothing is dead-lettered (P1)."""
    source = MemorySource()
    for _ in range(5):
        send(source, event_type=event_type)
    fleet = fleet_at(source, breaker={"calls": 4}, attempts=2)
    fleet.objects.fail(fault, calls=20)
    await fleet.run(handle_order)
    assert source.dead_letters == []
    assert settled(fleet)["ack"] == 5


async def test_what_is_denied_is_named(lines: list[MutableMapping[str, Any]]) -> None:
    source = MemorySource()
    send(source)
    fleet = fleet_at(source)
    fleet.objects.fail(Fault.DENIED)
    await fleet.run(handle_order)
    assert any("allow s3:GetObject" in str(line.get("reason")) for line in lines if line["event"] == "retry")


async def test_a_lease_is_kept_while_a_payload_is_fetched() -> None:
    """However slow S3 is, nobody else gets the message (L2)."""
    source = MemorySource(visibility_timeout_seconds=5)
    send(source)
    fleet = fleet_at(source)
    fleet.objects.seconds = 25
    await fleet.run(handle_order)
    assert fleet.objects.fetched == [POINTER]
    assert settled(fleet) == {"ack": 1}


async def test_a_drain_does_not_wait_for_s3() -> None:
    """What had not begun goes back."""
    source = MemorySource()
    send(source)
    fleet = fleet_at(source)
    fleet.objects.seconds = 1000
    async with fleet.running(handle_order, drain_seconds=5):
        await asyncio.sleep(2)
    assert settled(fleet) == {"release": 1}


async def test_in_a_fifo_group_order_is_kept() -> None:
    source, seen = MemorySource("orders.fifo"), []

    async def handle(message: Message[Any]) -> None:
        seen.append(message.event)

    source.send('"first"', attributes={"event_type": "order.created"}, group_id="group")
    send(source, group_id="group")
    source.send('"third"', attributes={"event_type": "order.created"}, group_id="group")
    fleet = fleet_at(source)
    fleet.objects.seconds = 3
    await fleet.run(handle)
    assert seen == ["first", {"event": "order.created", "order_id": "1"}, "third"]


async def test_a_batch_has_all_payloads() -> None:
    source, seen = MemorySource(), []
    router = Router()

    @router.on("*", batch=Batch(size=10))
    async def handle(messages: list[Message[Order]]) -> None:
        seen.append(len(messages))

    for _ in range(3):
        send(source)
    await fleet_at(source).run(router)
    assert seen == [3]


async def test_an_object_stays_unless_the_setting_says_otherwise() -> None:
    """Other queues may get the same event."""
    source = MemorySource()
    send(source)
    fleet = fleet_at(source)
    await fleet.run(handle_order)
    assert POINTER in fleet.objects.payloads


async def test_an_object_is_deleted_after_its_message() -> None:
    source = MemorySource()
    send(source)
    fleet = fleet_at(source, large_payloads={**OURS, "delete": True})
    await fleet.run(handle_order)
    assert fleet.objects.payloads == {}
    assert settled(fleet) == {"ack": 1}


async def test_while_a_message_may_come_again_its_object_stays() -> None:
    """Its delete has failed, and it is only deleted when it comes again; then the object goes, too (S2)."""
    source = MemorySource(visibility_timeout_seconds=5)
    send(source)
    fleet = fleet_at(source, large_payloads={**OURS, "delete": True})
    source.faults.fail("delete", times=None)
    async with fleet.running(handle_order):
        await asyncio.sleep(12)
        assert POINTER in fleet.objects.payloads
        source.faults.clear()
        await asyncio.sleep(60)
    assert source.is_empty
    assert fleet.objects.payloads == {}
    assert source.dead_letters == []


async def test_an_object_that_cannot_be_deleted_costs_nothing(lines: list[MutableMapping[str, Any]]) -> None:
    source = MemorySource()
    send(source)
    fleet = fleet_at(source, large_payloads={**OURS, "delete": True})

    async def handle(message: Message[Order]) -> None:  # noqa: ARG001 - a handler
        fleet.objects.fail(Fault.DENIED)

    await fleet.run(handle)
    assert settled(fleet) == {"ack": 1}
    assert any("was not deleted" in line["event"] for line in lines)


async def test_what_is_too_late_is_not_fetched_and_its_object_goes_all_the_same() -> None:
    source = MemorySource()
    late = f"{source.store.clock.unix_time() - 1}"
    attributes = {"ExtendedPayloadSize": "1", "event_type": "order.created", "expires_at": late}
    source.send(pointer_body(POINTER), attributes=attributes)
    fleet = fleet_at(source, large_payloads={**OURS, "delete": True})
    await fleet.run(handle_order)
    assert settled(fleet) == {"expired": 1}
    assert fleet.objects.fetched == []
    assert fleet.objects.payloads == {}


async def test_a_payload_may_say_until_when_it_is_worth_handling() -> None:
    """It is known once the payload is."""
    source = MemorySource()
    send(source)
    fleet = fleet_at(source, expires_at_key="valid_until")
    fleet.objects.payloads[POINTER] = b'{"order_id": "1", "valid_until": 1}'
    await fleet.run(handle_order)
    assert settled(fleet) == {"expired": 1}
    assert fleet.objects.fetched == [POINTER]


async def test_a_foreign_object_is_never_deleted() -> None:
    """Not even when its message is done because nobody handles its event."""
    source, foreign = MemorySource(), S3Pointer("elsewhere", "key")
    router = Router()

    @router.on("order.cancelled")
    async def handle(message: Message[Any]) -> None:
        raise AssertionError(message)

    send(source, foreign)
    fleet = fleet_at(source, large_payloads={**OURS, "delete": True}, unknown_event="ack")
    fleet.objects.payloads[foreign] = b"theirs"
    await fleet.run(router)
    assert settled(fleet) == {"ack": 1}
    assert foreign in fleet.objects.payloads


async def test_calls_of_s3_are_counted_and_timed_as_those_of_sqs_are() -> None:
    source, router = MemorySource(), Router()

    @router.on("*")
    async def handle(_: Message[Any]) -> None: ...

    send(source)
    fleet = fleet_at(source, large_payloads={**OURS, "delete": True}, retry={"base_seconds": 1, "max_seconds": 1})
    fleet.objects.seconds = 2.5
    fleet.objects.fail(Fault.THROTTLED)
    await fleet.run(router)
    assert fleet.consumer is not None
    metrics = fleet.consumer.context.metrics
    calls = {key: cell.value for key, cell in metrics._api_calls.items() if cell.value and "object" in key[0]}
    assert calls == {("get_object", "throttled"): 1, ("get_object", "ok"): 1, ("delete_object", "ok"): 1}
    fetches = metrics._api_call_seconds["get_object"]
    assert fetches.count == 2
    assert fetches.sum == pytest.approx(5.0)
