"""What stands in a body, however it came (E2)."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.aws.envelope import Envelope, decode
from worker.errors import InvalidPayloadError
from worker.message import Attribute, Received

TIMESTAMP = "2026-03-04T05:06:07.890Z"


def received(body: str, **attributes: Attribute) -> Received:
    return Received(id="1", receipt="r", body=body, attributes=attributes)


def notification(message: object = "{}", **changes: object) -> str:
    envelope: dict[str, object] = {
        "Type": "Notification",
        "MessageId": "2",
        "TopicArn": "arn:aws:sns:eu-west-1:000000000000:orders",
        "Message": message,
        "Timestamp": TIMESTAMP,
    }
    return json.dumps({key: value for key, value in (envelope | changes).items() if value is not None})


def test_an_enveloped_message_looks_like_a_raw_one() -> None:
    """Body, attributes and event type are the same by both ways; only SNS's timestamp tells them apart."""
    body = '{"order_id": "1"}'
    attributes = {
        "event_type": {"Type": "String", "Value": "order.created"},
        "amount": {"Type": "Number", "Value": "12.50"},
        "trace": {"Type": "Binary", "Value": base64.b64encode(b"\x00\xff").decode()},
        "tags": {"Type": "String.Array", "Value": '["a"]'},
    }
    enveloped = decode(received(notification(body, MessageAttributes=attributes)), "auto")
    raw = decode(
        received(
            body,
            event_type=Attribute("String", "order.created"),
            amount=Attribute("Number.int", "12.50"),
            trace=Attribute("Binary", b"\x00\xff"),
            tags=Attribute("String.Array", '["a"]'),
        ),
        "auto",
    )
    assert (enveloped.body, enveloped.payload) == (body, body)
    assert enveloped.attributes == raw.attributes
    assert enveloped.attributes["trace"] == b"\x00\xff"
    assert (enveloped.event_type, enveloped.body, enveloped.payload) == (raw.event_type, raw.body, raw.payload)
    assert enveloped.published_at == datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
    assert raw.published_at is None


@pytest.mark.parametrize("lacking", ["Type", "TopicArn", "MessageId", "Message"])
def test_a_body_without_the_whole_shape_is_raw(lacking: str) -> None:
    """`auto` asks for all four keys, so somebody's own JSON with a `Type` is not unwrapped."""
    body = notification('{"type": "inner"}', **{lacking: None})
    assert decode(received(body), "auto").body == body
    with pytest.raises(InvalidPayloadError, match=lacking):
        decode(received(body), "sns")


@pytest.mark.parametrize(
    "body",
    [
        '{"Type": "Order", "event": "order.created"}',
        '{"Type": "Notification", "TopicArn": "arn", "event": "order.created"}',
        '{"note": "mentions \\"TopicArn\\"", "event": "order.created"}',
        notification(7, event="order.created"),
    ],
)
def test_a_plain_json_that_resembles_an_envelope_is_raw(body: str) -> None:
    decoded = decode(received(body), "auto")
    assert (decoded.body, decoded.event_type) == (body, "order.created")


def test_raw_never_unwraps() -> None:
    body = notification("text")
    assert decode(received(body), "raw").body == body


@pytest.mark.parametrize("body", ["", "hello", "[1]", "{", "null", '"text"', '{"Type": "SubscriptionConfirmation"}'])
def test_sns_refuses_what_is_no_notification(body: str) -> None:
    with pytest.raises(InvalidPayloadError, match="envelope is `sns`"):
        decode(received(body), "sns")


@pytest.mark.parametrize(
    "attributes",
    [
        "secret",
        ["secret"],
        {"secret": "secret"},
        {"secret": {"Type": "String"}},
        {"secret": {"Type": "String", "Value": 7}},
        {"secret": {"Type": "Binary", "Value": "not base64 secret!"}},
        {"secret": {"Type": "Binary", "Value": "\u00e9secret"}},
        {"secret": {"Type": "Binary", "Value": "YWJj!"}},
    ],
)
@pytest.mark.parametrize("envelope", ["auto", "sns"])
def test_broken_attributes_are_told_without_quoting_them(attributes: object, envelope: Envelope) -> None:
    """Neither the error's text nor what hangs on it holds any of the body."""
    with pytest.raises(InvalidPayloadError) as caught:
        decode(received(notification("secret", MessageAttributes=attributes)), envelope)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_attributes_of_the_sqs_message_stand_beside_those_of_the_envelope() -> None:
    """A dead-letter copy of an enveloped message keeps its reason readable; on the same name the publisher's wins."""
    body = notification(MessageAttributes={"a": {"Type": "String", "Value": "published"}})
    decoded = decode(received(body, a=Attribute("String", "added"), b=Attribute("String", "added")), "auto")
    assert decoded.attributes == {"a": "published", "b": "added"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"event": "a", "type": "b", "detail-type": "c"}', "a"),
        ('{"type": "b", "detail-type": "c"}', "b"),
        ('  {"detail-type": "c"}', "c"),
        ('{"event": {"id": 1}, "type": "b"}', "b"),
        ('{"event": "", "type": "b"}', "b"),
        ('{"event": 7}', None),
        ('[{"event": "a"}]', None),
        ("event: a", None),
        ("", None),
    ],
)
def test_without_an_attribute_the_body_names_the_event_type(body: str, expected: str | None) -> None:
    assert decode(received(body), "auto").event_type == expected
    assert decode(received(notification(body)), "auto").event_type == expected


def test_the_attribute_names_the_event_type_before_the_body_does() -> None:
    body = '{"event": "from.body"}'
    assert (
        decode(received(body, event_type=Attribute("String", "from.attribute")), "auto").event_type == "from.attribute"
    )
    assert decode(received(body, event_type=Attribute("Binary", b"bytes")), "auto").event_type == "from.body"


def test_a_payload_is_not_parsed_when_an_attribute_names_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw message costs no parse here, an enveloped one exactly one; without the attribute each costs one more."""
    parsed: list[str] = []

    def loads(text: str) -> Any:
        parsed.append(text)
        return json.loads(text)

    monkeypatch.setattr("worker.aws.envelope.orjson.loads", loads)
    named = {"event_type": {"Type": "String", "Value": "a"}}
    for body, attributes, count in (
        ("{}", {"event_type": Attribute("String", "a")}, 0),
        (notification(MessageAttributes=named), {}, 1),
        ("{}", {}, 1),
        (notification(), {}, 2),
        (notification(7), {}, 1),
    ):
        parsed.clear()
        decode(received(body, **attributes), "auto")
        assert len(parsed) == count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-04T05:06:07Z", datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2026-03-04T05:06:07", datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2026-03-04T05:06:07+02:00", datetime(2026, 3, 4, 3, 6, 7, tzinfo=UTC)),
        ("0001-01-01T00:00:00+02:00", None),
        ("yesterday", None),
        ("", None),
        ("2" * 1_000_000, None),
    ],
)
def test_the_time_of_publishing_is_utc_and_nonsense_is_absent(text: str, expected: datetime | None) -> None:
    published_at = decode(received("{}", published_at=Attribute("String", text)), "auto").published_at
    assert published_at == expected
    assert published_at is None or published_at.tzinfo is UTC


def test_a_time_without_an_offset_is_utc_wherever_the_worker_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC+5")
    time.tzset()
    try:
        decoded = decode(received("{}", published_at=Attribute("String", "2026-03-04T05:06:07")), "auto")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert decoded.published_at == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_the_time_of_sns_goes_before_the_attribute() -> None:
    attributes = {"published_at": {"Type": "String", "Value": "2020-01-01T00:00:00Z"}}
    assert decode(received(notification(MessageAttributes=attributes)), "auto").published_at == datetime.fromisoformat(
        TIMESTAMP
    )
    broken = decode(received(notification(MessageAttributes=attributes, Timestamp="nonsense")), "auto")
    assert broken.published_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert decode(received("{}", published_at=Attribute("Binary", b"2020-01-01")), "auto").published_at is None


HOSTILE = {
    "empty": "",
    "one mebibyte of text": "x" * 2**20,
    "one mebibyte of blanks": " " * 2**20,
    "deep arrays": '{"event":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"event":' * 100_000 + "1" + "}" * 100_000,
    "unclosed": '{"TopicArn":' * 80_000,
    "huge integer": '{"event": ' + "9" * 1_000_000 + "}",
    "huge exponent": '{"event": 1e999999999}',
    "escaped lone surrogate": '{"event": "\\ud800"}',
    "lone surrogate": '{"event": "\ud800"}',
    "lone surrogate in plain text": "\ud800",
    "not a number": '{"event": NaN, "a": Infinity}',
    "duplicate keys": '{"event": 1, "event": 2}',
    "byte order mark": '\ufeff{"event": "a"}',
    "nul": '{"event": "\x00"}',
    "many keys": "{" + ",".join(f'"{n}":0' for n in range(80_000)) + "}",
    "deep envelope": notification("{" * 100_000),
    "envelope in an envelope": notification(notification(notification("x"))),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("envelope", ["auto", "sns", "raw"])
def test_a_hostile_body_is_decided_quickly(name: str, envelope: Envelope) -> None:
    """Whatever a body holds, it is decoded or refused as invalid, within a quarter of a second of CPU."""
    started = time.process_time()
    try:
        decoded = decode(received(HOSTILE[name]), envelope)
    except InvalidPayloadError as error:
        assert envelope == "sns"
        assert len(str(error)) < 200  # noqa: PT017 - some of these bodies decode
    else:
        assert decoded.event_type is None
    assert time.process_time() - started < 0.25


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
sns_like = st.fixed_dictionaries(
    {},
    optional={
        "Type": st.just("Notification") | json_values,
        "TopicArn": st.text() | json_values,
        "MessageId": st.text() | json_values,
        "Message": st.text() | json_values,
        "Timestamp": st.text() | json_values,
        "MessageAttributes": json_values
        | st.dictionaries(
            st.text(max_size=4),
            st.fixed_dictionaries({"Type": st.sampled_from(["String", "Binary"]), "Value": st.text() | json_values}),
            max_size=3,
        ),
    },
)


@given(
    body=st.text() | json_values.map(json.dumps) | sns_like.map(json.dumps),
    envelope=st.sampled_from(["auto", "sns", "raw"]),
)
def test_any_body_is_decoded_or_refused(body: str, envelope: Envelope) -> None:
    """Nothing but `InvalidPayloadError` ever leaves `decode`."""
    try:
        decoded = decode(received(body), envelope)
    except InvalidPayloadError:
        assert envelope != "raw"
    else:
        assert envelope != "raw" or decoded.body == body
