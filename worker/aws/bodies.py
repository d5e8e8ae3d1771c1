"""Bodies that wrap their payload: CloudEvents, EventBridge, and S3's notifications. Told by their shape alone."""

import base64
import binascii
from typing import Any, Final, NamedTuple

import orjson

from worker.errors import InvalidPayloadError

__all__ = ["Wrapped", "may_wrap", "unwrapped"]

_SIGNS: Final = ('"specversion"', '"detail-type"', '"aws:s3"', '"s3:TestEvent"')
"""What such a body holds, unescaped: one that has none of them is spared the parser."""


class Wrapped(NamedTuple):
    """What stands inside."""

    event_type: str
    payload: str
    """JSON, or the text of a payload that says it is none."""
    published_at: Any
    """The time that the body names, as it stands there."""


def may_wrap(text: str) -> bool:
    """Whether it is worth parsing a body to find out."""
    return any(sign in text for sign in _SIGNS)


def unwrapped(parsed: dict[str, Any], text: str) -> Wrapped | None:
    """Return what stands inside a body, which is `text` before it was parsed; `None` when the body is the payload.

    Raises `InvalidPayloadError`, which never quotes the body, for binary data that is no text.

    1. CloudEvents, structured mode: `type`, and `data` or `data_base64`
       (github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
    2. EventBridge: `detail-type` and `detail`
       (docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html).
    3. S3: `s3:` and the first record's `eventName`, with the whole notification as payload, for it may hold several
       records (docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
    """
    match parsed:
        case {"specversion": str(), "id": str(), "source": str(), "type": str(kind)} if kind:
            return Wrapped(kind, _cloud_data(parsed), parsed.get("time"))
        case {"detail-type": str(kind), "source": str(), "detail": detail} if kind:
            return Wrapped(kind, _json(detail), parsed.get("time"))
        case {"Records": [{"eventSource": "aws:s3", "eventName": str(name), **first}, *_]}:
            return Wrapped(f"s3:{name.removeprefix('s3:')}", text, first.get("eventTime"))
        case {"Service": "Amazon S3", "Event": "s3:TestEvent"}:
            return Wrapped("s3:TestEvent", text, parsed.get("Time"))
        case _:
            return None


def _cloud_data(parsed: dict[str, Any]) -> str:
    match parsed:
        case {"data_base64": str(encoded)}:
            try:
                return base64.b64decode(encoded, validate=True).decode()
            except (binascii.Error, ValueError):
                raise InvalidPayloadError("`data_base64` of the CloudEvent is not text in base64") from None
        case {"data": str(text)} if not _is_json(parsed.get("datacontenttype")):
            return text
        case _:
            return _json(parsed.get("data"))


def _is_json(content_type: Any) -> bool:
    """Whether data of this media type is JSON; without one it is."""
    if not isinstance(content_type, str):
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
