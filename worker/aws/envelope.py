"""What stands in a body: the payload without SNS's envelope, its attributes, its event type and when it was published."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from worker.aws.bodies import Wrapped, may_wrap, unwrapped
from worker.errors import InvalidPayloadError
from worker.message import Received

__all__ = ["Decoded", "Envelope", "decode", "with_payload"]

Envelope = Literal["auto", "sns", "raw"]
"""`sns`: every body is an SNS notification; `raw`: none is; `auto`: told by shape."""

_EVENT_TYPE_KEYS: Final = ("event", "type", "detail-type")
_MAX_TIME_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Decoded:
    """A body that was looked into, before its payload is validated against a handler's annotation."""

    body: str
    """What the publisher sent, as text, without the SNS envelope."""
    attributes: Mapping[str, str | bytes]
    """The same whether they came enveloped or raw: `bytes` for binary ones, text for all others."""
    event_type: str | None
    """The attribute `event_type`, else what a CloudEvent, EventBridge or S3 says, else the body's `event` or `type`."""
    payload: str
    """The JSON text (or plain text) that the handler's annotation describes: a CloudEvent's `data`, EventBridge's `detail`."""
    published_at: datetime | None
    """SNS's timestamp, else the attribute `published_at`, else the time that the body names; UTC."""


def decode(received: Received, envelope: Envelope) -> Decoded:
    """Look into a received body, parsing it at most once; a payload whose type an attribute names is not parsed at all.

    A body that is not JSON is plain text. Raises `InvalidPayloadError`, which never quotes the body, when `sns` is
    demanded and the body is no SNS notification, or when a notification's attributes are broken.
    """
    attributes = {name: attribute.value for name, attribute in received.attributes.items()}
    body = received.body
    parsed: dict[str, Any] | None = None
    if envelope != "raw":
        # SNS writes its keys unescaped, so a body without this one is spared the parser.
        parsed = _json_object(body) if envelope == "sns" or '"TopicArn"' in body else None
        if parsed is not None and _is_notification(parsed):
            attributes |= _sns_attributes(parsed.get("MessageAttributes"))
            return _decoded(parsed["Message"], attributes, published_at=_utc(parsed.get("Timestamp")))
        if envelope == "sns":
            raise InvalidPayloadError(_why_no_notification(parsed))
    return _decoded(body, attributes, parsed=parsed)


def with_payload(decoded: Decoded, text: str) -> Decoded:
    """Return the message as it would be had `text` stood in it, instead of a pointer to it."""
    return _decoded(text, decoded.attributes, published_at=decoded.published_at)


def _decoded(
    payload: str,
    attributes: Mapping[str, str | bytes],
    *,
    parsed: dict[str, Any] | None = None,
    published_at: datetime | None = None,
) -> Decoded:
    event_type: Any = attributes.get("event_type")
    is_named = isinstance(event_type, str) and bool(event_type)
    wrapped: Wrapped | None = None
    if not is_named or may_wrap(payload):
        parsed = parsed if parsed is not None else _json_object(payload)
        wrapped = None if parsed is None else unwrapped(parsed, payload)
    if not is_named:
        event_type = wrapped.event_type if wrapped else _event_type_in(parsed)
    return Decoded(
        body=payload,
        attributes=attributes,
        event_type=event_type,
        payload=wrapped.payload if wrapped else payload,
        published_at=published_at
        or _utc(attributes.get("published_at"))
        or (_utc(wrapped.published_at) if wrapped else None),
    )


def _json_object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        parsed = orjson.loads(text)
    except ValueError:  # also too deep, lone surrogates, NaN, numbers beyond a double
        return None
    return parsed if isinstance(parsed, dict) else None


def _event_type_in(parsed: dict[str, Any] | None) -> str | None:
    if parsed is not None:
        for key in _EVENT_TYPE_KEYS:
            value = parsed.get(key)
            if isinstance(value, str) and value:
                return value
    return None


def _is_notification(parsed: dict[str, Any]) -> bool:
    return (
        parsed.get("Type") == "Notification"
        and isinstance(parsed.get("TopicArn"), str)
        and isinstance(parsed.get("MessageId"), str)
        and isinstance(parsed.get("Message"), str)
    )


def _why_no_notification(parsed: dict[str, Any] | None) -> str:
    if parsed is None:
        return "the body is not a JSON object, but the queue's envelope is `sns`"
    if parsed.get("Type") != "Notification":
        return "the body has no `Type` of `Notification`, but the queue's envelope is `sns`"
    lacking = [key for key in ("TopicArn", "MessageId", "Message") if not isinstance(parsed.get(key), str)]
    return f"the SNS notification has no text under {', '.join(f'`{key}`' for key in lacking)}"


def _sns_attributes(found: Any) -> dict[str, str | bytes]:
    """Read `{name: {"Type": ..., "Value": ...}}`, which is how SNS writes attributes into its envelope."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidPayloadError("`MessageAttributes` of the SNS notification is not an object")
    return {name: _sns_value(attribute) for name, attribute in found.items()}


def _sns_value(attribute: Any) -> str | bytes:
    kind = attribute.get("Type") if isinstance(attribute, dict) else None
    value = attribute.get("Value") if isinstance(attribute, dict) else None
    if not isinstance(kind, str) or not isinstance(value, str):
        raise InvalidPayloadError("an attribute of the SNS notification lacks its `Type` or `Value` as text")
    if kind.partition(".")[0] != "Binary":
        return value
    content = _base64(value)
    if content is None:
        raise InvalidPayloadError("a Binary attribute of the SNS notification is not valid base64")
    return content


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _utc(text: Any) -> datetime | None:
    """Read an ISO 8601 time; without an offset it is UTC, and nonsense counts as absent."""
    if not isinstance(text, str) or len(text) > _MAX_TIME_CHARACTERS:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
