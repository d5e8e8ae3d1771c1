"""Bodies that wrap their payload: the handler sees what is inside, whoever wrapped it (E2)."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from worker import Message, Router
from worker.aws.envelope import Decoded, decode
from worker.errors import InvalidPayloadError
from worker.message import Attribute, Received
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/shop/orders",
    "type": "com.example.order.created",
    "time": "2026-11-05T17:31:00Z",
    "datacontenttype": "application/json",
    "data": {"order_id": "o-1", "quantity": 2},
}
EVENT_BRIDGE = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "order.created",
    "source": "shop.orders",
    "account": "111122223333",
    "time": "2026-11-05T17:31:00Z",
    "region": "us-east-1",
    "resources": [],
    "detail": {"order_id": "o-1", "quantity": 2},
}
S3 = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-east-1",
            "eventTime": "2026-11-05T17:31:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "orders"}, "object": {"key": "one.json", "size": 1024}},
        }
    ]
}
WHEN = datetime(2026, 11, 5, 17, 31, tzinfo=UTC)


def decoded(body: Any, **attributes: Attribute) -> Decoded:
    """Decode a body, JSON unless it is text already."""
    text = body if isinstance(body, str) else json.dumps(body)
    return decode(Received("id", "receipt", text, attributes), "auto")


def enveloped(body: Any) -> Decoded:
    """Decode a body that came by SNS, with a timestamp of its own."""
    return decoded({"Type": "Notification", "MessageId": "m", "TopicArn": "arn", "Message": json.dumps(body)})


@pytest.mark.parametrize(
    ("body", "event_type"),
    [(CLOUD_EVENT, "com.example.order.created"), (EVENT_BRIDGE, "order.created"), (S3, "s3:ObjectCreated:Put")],
)
def test_type_payload_and_time_come_from_where_the_format_has_them(body: dict[str, Any], event_type: str) -> None:
    for found in (decoded(body), enveloped(body)):
        assert (found.event_type, found.published_at) == (event_type, WHEN)
        assert json.loads(found.body) == body
        assert json.loads(found.payload) == body.get("data", body.get("detail", body))


def test_an_attribute_names_the_type_but_the_payload_is_still_inside() -> None:
    found = decoded(CLOUD_EVENT, event_type=Attribute("String", "order.created"))
    assert (found.event_type, json.loads(found.payload)) == ("order.created", CLOUD_EVENT["data"])


@pytest.mark.parametrize(
    ("changes", "payload"),
    [
        ({"data": "plain", "datacontenttype": "text/plain"}, "plain"),
        ({"data": "a string", "datacontenttype": "application/vnd.shop+json; charset=utf-8"}, '"a string"'),
        ({"data": "a string", "datacontenttype": None}, '"a string"'),
        ({"data": None}, "null"),
        ({"data_base64": base64.b64encode(b'{"a": 1}').decode()}, '{"a": 1}'),
    ],
)
def test_data_is_read_as_the_cloud_event_says(changes: dict[str, Any], payload: str) -> None:
    assert decoded(CLOUD_EVENT | changes).payload == payload


@pytest.mark.parametrize("data", ["not base64", base64.b64encode(b"\xff\xfe").decode()])
def test_binary_data_that_is_no_text_is_refused(data: str) -> None:
    with pytest.raises(InvalidPayloadError, match="data_base64"):
        decoded(CLOUD_EVENT | {"data_base64": data})


@pytest.mark.parametrize("lacking", ["specversion", "id", "source", "type"])
def test_what_lacks_a_required_key_is_no_cloud_event(lacking: str) -> None:
    """It is a payload like any other."""
    body = {key: value for key, value in CLOUD_EVENT.items() if key != lacking}
    assert json.loads(decoded(body).payload) == body


def test_a_payload_that_speaks_of_details_is_not_eventbridge() -> None:
    body = {"detail-type": "c", "text": "nothing inside"}
    found = decoded(body)
    assert (found.event_type, json.loads(found.payload)) == ("c", body)


def test_several_records_are_one_notification() -> None:
    """One message has one outcome, so its records go to one handler."""
    body = {"Records": [*S3["Records"], {**S3["Records"][0], "eventName": "ObjectRemoved:Delete"}]}
    found = decoded(body)
    assert (found.event_type, len(json.loads(found.payload)["Records"])) == ("s3:ObjectCreated:Put", 2)


def test_s3_announces_itself() -> None:
    """What a bucket sends when notifications are set up is an event of its own, not poison."""
    assert decoded({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "orders"}).event_type == "s3:TestEvent"


async def test_a_typed_handler_gets_what_is_inside() -> None:
    """By pattern and annotation, as for any other event."""

    class Order(BaseModel):
        order_id: str
        quantity: int

    router, seen = Router(), []

    @router.on("com.example.order.*")
    @router.on("order.created")
    async def handle(message: Message[Order]) -> None:
        seen.append(message.event)

    source = MemorySource()
    for body in (CLOUD_EVENT, EVENT_BRIDGE):
        source.send(json.dumps(body))
    await Fleet(source).run(router)
    assert seen == [Order(order_id="o-1", quantity=2)] * 2
