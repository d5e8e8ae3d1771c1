"""What is sent for an event, and the sentences for what SNS or a subscribed queue would refuse."""

import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from worker.aws.envelope import decode
from worker.errors import Fault
from worker.message import Attribute, Received
from worker.publisher import Publisher, PublishError
from worker.publisher.advice import says_what_happened
from worker.publisher.composer import Composed, Composer, Outgoing
from worker.source import Copy
from worker.testing import MemoryTopic
from worker.testing.refusals import message_bytes


class Order(BaseModel):
    order_id: str = Field(alias="orderId")
    amount: Decimal


@dataclass
class Cancelled:
    order_id: str
    at: datetime


class Updated(TypedDict):
    order_id: UUID


def compose(event: Any, topic: str = "orders", *, event_type: Any = "order.created", **more: Any) -> Composed:
    return Composer(topic).compose(Outgoing(event_type, event, **more))


def complaint(event: Any, topic: str = "orders", **more: Any) -> str:
    with pytest.raises(PublishError) as raised:
        compose(event, topic, **more)
    assert raised.value.fault is Fault.INVALID
    return str(raised.value)


@pytest.mark.parametrize(
    ("event", "body"),
    [
        (Order(orderId="o-1", amount=Decimal("9.90")), '{"orderId":"o-1","amount":"9.90"}'),
        (Cancelled("o-1", datetime(2026, 1, 2, tzinfo=UTC)), '{"order_id":"o-1","at":"2026-01-02T00:00:00Z"}'),
        (Updated(order_id=UUID(int=7)), '{"order_id":"00000000-0000-0000-0000-000000000007"}'),
        ({"name": "Ærø", "note": "NaN"}, '{"name":"Ærø","note":"NaN"}'),
        ([1, None, True], "[1,null,true]"),
        ("plain text, as it is", "plain text, as it is"),
    ],
)
def test_events_travel_as_json_and_text_as_it_is(event: Any, body: str) -> None:
    """A handler's annotation reads what its publisher's type wrote, aliases included."""
    assert compose(event).publication.body == body


def test_event_type_and_time_go_along() -> None:
    """Filters need the one, the lag of a raw subscription the other: ISO 8601 in UTC, with its offset (M1)."""
    attributes = compose({}).publication.attributes
    assert attributes["event_type"] == Attribute("String", "order.created")
    text = str(attributes["published_at"].value)
    assert text.endswith("+00:00")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(seconds=5)
    decoded = decode(Received("1", "r", "{}", attributes), "raw")
    assert decoded.event_type == "order.created"
    assert decoded.published_at == datetime.fromisoformat(text)


def test_attributes_have_the_types_that_filters_know() -> None:
    given = {"country": "DE", "items": 3, "total": Decimal("1.5E+2"), "digest": b"\x00\xff"}
    attributes = compose({}, attributes=given).publication.attributes
    assert {name: attributes[name] for name in given} == {
        "country": Attribute("String", "DE"),
        "items": Attribute("Number", "3"),
        "total": Attribute("Number", "150"),
        "digest": Attribute("Binary", b"\x00\xff"),
    }


def test_group_and_deduplication_go_along() -> None:
    publication = compose({}, "orders.fifo", group_id="g", deduplication_id="d").publication
    assert (publication.group_id, publication.deduplication_id) == ("g", "d")
    assert compose({}, group_id="tenant-1").publication.group_id == "tenant-1"


@pytest.mark.parametrize("given", [{}, {"n": 1}, {"b": b"123"}])
def test_the_size_is_what_sns_counts(given: Mapping[str, Any]) -> None:
    """Bytes of the body and of each attribute's name, type and value."""
    publication, size_bytes, _ = compose({"name": "Ærø"}, attributes={**given, "city": "Köln"})
    assert size_bytes == message_bytes(Copy(publication.body, publication.attributes))


def test_a_message_over_the_limit_is_refused_before_the_call() -> None:
    spare = 262_144 - compose("x").size_bytes
    assert compose("x" * (spare + 1)).size_bytes == 262_144
    assert complaint("x" * (spare + 2)) == (
        "order.created was not published: it is 262,145 bytes with its attributes, but orders takes at most 262,144: "
        "publish a reference instead, such as the key of an object in S3, or let the publisher do it (large_payloads)"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"event": ""}, "its payload is empty, and SNS takes no message without a body"),
        ({"event": "bell \x07"}, "its payload has characters that SQS does not take, such as control characters"),
        ({"event": "\ud800"}, "its payload has characters that SQS does not take, such as control characters"),
        ({"event": b"bytes"}, "its payload is bytes, but must be text or something that JSON can say: decode it first"),
        (
            {"event": object()},
            "its payload, of type object, cannot be written as JSON (Unable to serialize unknown type: <class 'object'>): use a pydantic model, a dataclass, or a dict of plain values",
        ),
        (
            {"event": {"a": float("nan")}},
            "its payload, of type dict, cannot be written as JSON (ValueError): use a pydantic model, a dataclass, or a dict of plain values",
        ),
        (
            {"event": {"a": "\ud800"}},
            "its payload, of type dict, cannot be written as JSON (PydanticSerializationError): use a pydantic model, a dataclass, or a dict of plain values",
        ),
        ({"topic": "orders.fifo"}, "the topic orders.fifo is FIFO: give a group_id, within which events stay in order"),
        ({"deduplication_id": "d"}, "deduplication_id works on FIFO topics only, and orders is none: leave it out"),
        ({"group_id": ""}, "group_id is empty, but must be 1 to 128 ASCII letters, digits and punctuation marks"),
        (
            {"group_id": "a b"},
            "group_id is text of 3 characters, but must be 1 to 128 ASCII letters, digits and punctuation marks",
        ),
        ({"group_id": 7}, "group_id is of type int, but must be 1 to 128 ASCII letters, digits and punctuation marks"),
        (
            {"attributes": {f"a{n}": "x" for n in range(9)}},
            "it has 9 attributes of its own, but at most 8 may go with event_type and published_at: put the others into the payload",
        ),
        ({"attributes": {"event_type": "x"}}, "the attribute event_type is written by the publisher: leave it out"),
        ({"attributes": {"a": 1.5}}, "the attribute a is of type float, but must be str, int, Decimal or bytes"),
        ({"attributes": {"a": True}}, "the attribute a is of type bool, but must be str, int, Decimal or bytes"),
        ({"attributes": {"a": None}}, "the attribute a is of type NoneType, but must be str, int, Decimal or bytes"),
        ({"attributes": {"a": ""}}, "the attribute a is empty or has control characters: SQS does not take it"),
        ({"attributes": {"a": b""}}, "the attribute a is empty or has control characters: SQS does not take it"),
        (
            {"attributes": {"a": Decimal("Infinity")}},
            "the attribute a is too large, too small or no number: write it as text",
        ),
        ({"attributes": {"a": 10**5000}}, "the attribute a is too large, too small or no number: write it as text"),
        (
            {"attributes": {"AWS.a": "x"}},
            "the name of an attribute must be 1 to 256 letters, digits, - _ and single dots, and not start with AWS. or Amazon.",
        ),
        (
            {"attributes": {1: "x"}},
            "the name of an attribute must be 1 to 256 letters, digits, - _ and single dots, and not start with AWS. or Amazon.",
        ),
    ],
)
def test_what_would_be_refused_or_lost_is_refused_by_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    assert complaint(**{"event": {}, **arguments}) == f"order.created was not published: {sentence}"


@pytest.mark.parametrize(
    ("event_type", "found"),
    [("", "empty"), (" ", "empty"), (None, "of type NoneType"), ({"secret": 1}, "of type dict")],
)
def test_an_event_needs_a_type(event_type: Any, found: str) -> None:
    assert complaint({}, event_type=event_type) == (
        f"the event was not published: its event type is {found}, but must be a name in text, such as order.created"
    )


def test_an_event_type_that_cannot_be_printed_is_not_printed() -> None:
    assert complaint({}, event_type="a\x1b[2J") == (
        "the event was not published: its event type has characters that cannot be printed, but must be like order.created"
    )


@pytest.mark.parametrize("event", [{"secret": object()}, {"a": float("inf"), "b": "secret"}, "secret \x07", b"secret"])
def test_the_payload_is_in_no_error_and_no_traceback(event: Any) -> None:
    """Also not in what pydantic says below it (M3)."""
    with pytest.raises(PublishError) as raised:
        compose(event)
    assert "secret" not in "".join(traceback.TracebackException.from_exception(raised.value).format_exception_only())
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))  # fmt: skip
def test_whatever_json_can_say_arrives_as_it_was(event: Any) -> None:
    """Or it is refused; it never arrives as something else."""
    try:
        composed = compose([event])
    except PublishError:
        assert "\\ud" in json.dumps(event)
    else:
        assert json.loads(composed.publication.body) == [event]
        assert composed.size_bytes == message_bytes(Copy(composed.publication.body, composed.publication.attributes))


@pytest.mark.parametrize(
    "name",
    [
        "order.created",
        "order.payment_failed",
        "user.signed-up",
        "mail.sent",
        "order.item.added",
        "order.created.v2",
        "invoice.paid",
        "s3.object.created",
        "stock.sold_out",
    ],
)
def test_these_names_say_what_happened(name: str) -> None:
    assert says_what_happened(name)


@pytest.mark.parametrize(
    "name",
    [
        "create.order",
        "OrderCreated",
        "order.Created",
        "order",
        "order.create",
        "created",
        "order created",
        "order..created",
        "order.created.",
    ],
)
def test_these_names_do_not(name: str) -> None:
    assert not says_what_happened(name)


async def test_advice_about_a_name_is_given_once_and_the_event_is_published() -> None:
    topic = MemoryTopic()
    async with Publisher(topic) as publisher:
        with capture_logs() as lines:
            for name in ("create.order", "create.order", "OrderCreated", "order.created"):
                await publisher.publish(name, {})
    assert [line["event_type"] for line in lines] == ["create.order", "OrderCreated"]
    assert {line["log_level"] for line in lines} == {"warning"}
    assert len(topic.published) == 4


async def test_advice_about_size_is_given_once_per_name() -> None:
    topic = MemoryTopic()
    async with Publisher(topic) as publisher:
        with capture_logs() as lines:
            for name, size in (("order.created", 65_000), ("order.created", 70_000), ("order.updated", 70_000)) * 2:
                await publisher.publish(name, "x" * size)
    assert [line["event_type"] for line in lines] == ["order.created", "order.updated"]
    assert "publish a reference instead" in lines[0]["event"]
    assert lines[0]["size_bytes"] > 70_000


def test_names_made_of_ids_do_not_fill_the_memory() -> None:
    composer = Composer("orders")
    with capture_logs() as lines:
        for number in range(3_000):
            composer.compose(Outgoing(f"order-{number}", {}))
    assert len(lines) == len(composer._event_types) == 1_000


async def test_the_memory_topic_keeps_what_was_published() -> None:
    topic = MemoryTopic("orders.fifo")
    async with Publisher(topic) as publisher:
        topic.fail(Fault.THROTTLED, calls=2)
        assert await publisher.publish("order.created", {"order_id": "o-1"}, group_id="g") == "message-1"
        await publisher.publish("order.noted", "text", group_id="g")
        topic.fail(Fault.DENIED)
        with pytest.raises(PublishError, match=r"AWS denies it \(MemoryDenied\)"):
            await publisher.publish("order.created", {}, group_id="g")
    assert topic.published == [("order.created", {"order_id": "o-1"}), ("order.noted", "text")]
    assert topic.calls == [1, 1, 1, 1, 1]
    assert topic.publications[0].group_id == "g"


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2027, 1, 1, tzinfo=UTC),
        datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        1798761600,
        1798761600.0,
    ],
)
def test_an_event_may_say_until_when_it_is_worth_handling(moment: Any) -> None:
    attributes = compose({}, expires_at=moment).publication.attributes
    assert attributes["expires_at"] == Attribute("String", "2027-01-01T00:00:00.000+00:00")


@pytest.mark.parametrize(
    ("moment", "sentence"),
    [
        (datetime(2027, 1, 1), "expires_at has no time zone: write"),  # noqa: DTZ001 - the mistake
        ("2027-01-01", "expires_at is of type str, but must be a datetime or Unix seconds"),
        (True, "expires_at is of type bool"),
        (float("nan"), "expires_at is no time"),
        (1e300, "expires_at is no time"),
    ],
)
def test_a_time_that_is_none_is_refused(moment: Any, sentence: str) -> None:
    assert sentence in complaint({}, expires_at=moment)


def test_an_expiry_is_one_of_the_ten_attributes() -> None:
    seven = {f"a{number}": "x" for number in range(7)}
    assert len(compose({}, attributes=seven, expires_at=1).publication.attributes) == 10
    assert "at most 7 may go with event_type and published_at and expires_at" in complaint(
        {}, attributes=seven | {"more": "x"}, expires_at=1
    )
    assert "the attribute expires_at is written by the publisher" in complaint(
        {}, attributes={"expires_at": "x"}, expires_at=1
    )
