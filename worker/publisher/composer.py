"""From an event to what is sent: JSON, attributes, and the sentences for what SNS or a subscribed queue would refuse."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

import pydantic_core

from worker.aws.pointers import pointer_body, size_attribute
from worker.message import Attribute
from worker.objects import S3Pointer
from worker.publisher.advice import Advice
from worker.publisher.errors import PublishError, refused
from worker.publisher.topic import Publication

__all__ = ["MAX_ATTRIBUTES", "MAX_BYTES", "AttributeValue", "Composed", "Composer", "Moment", "Outgoing"]

AttributeValue: TypeAlias = str | int | Decimal | bytes
"""What an attribute may be: text, a number, or bytes."""
Moment: TypeAlias = datetime | int | float
"""A time with its time zone, or Unix seconds."""

MAX_BYTES: Final = 262_144
"""What a topic takes in one call, bodies and attributes of all its messages together, unless its attribute
`MaximumMessageSize` says otherwise (docs.aws.amazon.com/sns/latest/dg/large-message-payloads.html)."""
MAX_ATTRIBUTES: Final = 10
"""With more, SNS cannot deliver a message raw to SQS, and drops it
(docs.aws.amazon.com/sns/latest/dg/sns-message-attributes.html)."""

_KINDS: Final = "str, int, Decimal or bytes"
_ATTRIBUTE_NAME: Final = re.compile(r"(?!(?:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.IGNORECASE)
_MAX_NAME_CHARACTERS: Final = 256
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_UNSENDABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAX_EXPONENT: Final = 126  # of SQS's numbers
_UNKNOWN_TYPE: Final = "Unable to serialize unknown type"
_CACHED_NAMES: Final = 1_000


class Outgoing(NamedTuple):
    """One event for `publish_many`; a plain `("order.created", event)` will do."""

    event_type: str
    event: Any
    attributes: Mapping[str, AttributeValue] | None = None
    group_id: str | None = None
    deduplication_id: str | None = None
    expires_at: Moment | None = None
    """From when on handling it is too late: consumers then skip it."""


class Composed(NamedTuple):
    """An event as it is sent."""

    publication: Publication
    size_bytes: int
    """What counts towards the topic's limit: the body and each attribute's name, type and value."""
    is_large: bool = False
    """Its payload is to be put into S3, and a pointer to be sent."""


class Composer:
    """Composes the messages of one topic; raises `PublishError`, whose text never quotes the payload."""

    def __init__(self, topic: str, *, max_bytes: int = MAX_BYTES, large_above_bytes: int | None = None) -> None:
        """Take from which size on payloads are for S3; `None` refuses what is larger than `max_bytes`."""
        self._topic = topic
        self._is_fifo = topic.endswith(".fifo")
        self._max_bytes = max_bytes
        self._small_bytes = max_bytes if large_above_bytes is None else min(max_bytes, large_above_bytes)
        self._takes_large = large_above_bytes is not None
        self._advice = Advice()
        self._event_types: dict[str, Attribute] = {}

    def compose(self, outgoing: Outgoing) -> Composed:
        """Return what is sent for the event; the moment is now."""
        event_type = outgoing.event_type
        try:
            said = self._known(event_type) or self._new_event_type(event_type)
            self._check_order(outgoing.group_id, outgoing.deduplication_id)
            body, size_bytes = _body(outgoing.event)
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            attributes = {"event_type": said, "published_at": Attribute("String", now)}
            if outgoing.expires_at is not None:
                attributes["expires_at"] = _expiry(outgoing.expires_at)
            if outgoing.attributes:
                attributes.update(_attributes(outgoing.attributes, tuple(attributes)))
        except _ComplaintError as complaint:
            error = refused(event_type, str(complaint))
        else:
            size_bytes += sum(map(_attribute_bytes, attributes, attributes.values()))
            publication = Publication(body, attributes, outgoing.group_id, outgoing.deduplication_id)
            if size_bytes <= self._small_bytes:
                self._advice.about_size(event_type, size_bytes)
                return Composed(publication, size_bytes)
            if self._takes_large and len(attributes) < MAX_ATTRIBUTES:
                return Composed(publication, size_bytes, is_large=True)
            error = self._too_large(event_type, size_bytes)
        raise error  # out here, because what was caught may hold the payload and would come along as the context

    def pointing(self, composed: Composed, pointer: S3Pointer) -> Composed:
        """Return what is sent for a large event whose payload was put into S3."""
        large = composed.publication
        attributes = {**large.attributes, **size_attribute(len(large.body.encode()))}
        body = pointer_body(pointer)
        size_bytes = len(body) + sum(map(_attribute_bytes, attributes, attributes.values()))
        if size_bytes > self._max_bytes:
            raise self._too_large(str(attributes["event_type"].value), size_bytes)
        return Composed(replace(large, body=body, attributes=attributes), size_bytes)

    def _known(self, event_type: Any) -> Attribute | None:
        return self._event_types.get(event_type) if isinstance(event_type, str) else None

    def _new_event_type(self, event_type: Any) -> Attribute:
        if not isinstance(event_type, str) or not event_type.strip():
            raise _ComplaintError(
                f"its event type is {_found(event_type)}, but must be a name in text, such as order.created"
            )
        if not event_type.isprintable():
            raise _ComplaintError(
                "its event type has characters that cannot be printed, but must be like order.created"
            )
        self._advice.about_name(event_type)
        attribute = Attribute("String", event_type)
        if len(self._event_types) < _CACHED_NAMES:
            self._event_types[event_type] = attribute
        return attribute

    def _check_order(self, group_id: Any, deduplication_id: Any) -> None:
        if group_id is None and self._is_fifo:
            raise _ComplaintError(
                f"the topic {self._topic} is FIFO: give a group_id, within which events stay in order"
            )
        if deduplication_id is not None and not self._is_fifo:
            raise _ComplaintError(
                f"deduplication_id works on FIFO topics only, and {self._topic} is none: leave it out"
            )
        for name, value in (("group_id", group_id), ("deduplication_id", deduplication_id)):
            if value is not None and not (isinstance(value, str) and _ID.fullmatch(value)):
                raise _ComplaintError(
                    f"{name} is {_found(value)}, but must be 1 to 128 ASCII letters, digits and punctuation marks"
                )

    def _too_large(self, event_type: str, size_bytes: int) -> PublishError:
        if self._takes_large:
            return refused(
                event_type,
                f"it goes through S3 with its {size_bytes:,} bytes, where its attributes must be at most {MAX_ATTRIBUTES - 1} "
                f"and fit into {self._max_bytes:,} bytes: put some of them into the payload",
            )
        return refused(
            event_type,
            f"it is {size_bytes:,} bytes with its attributes, but {self._topic} takes at most {self._max_bytes:,}: "
            f"publish a reference instead, such as the key of an object in S3, "
            f"or let the publisher do it (large_payloads)",
        )


class _ComplaintError(Exception):
    """The rest of a sentence that starts with the event type."""


def _found(value: object) -> str:
    """Describe a value that is no event type or id; it could be a payload, so it is not quoted."""
    if not isinstance(value, str):
        return f"of type {type(value).__name__}"
    return f"text of {len(value)} characters" if value.strip() else "empty"


def _body(event: Any) -> tuple[str, int]:
    """Return the event as text, and its size in UTF-8: text as it is, everything else as JSON."""
    if isinstance(event, str):
        return _text(event)
    if isinstance(event, bytes | bytearray | memoryview):
        raise _ComplaintError("its payload is bytes, but must be text or something that JSON can say: decode it first")
    try:
        data = pydantic_core.to_json(event, by_alias=True)
        if b"NaN" in data or b"Infinity" in data:  # perhaps inside a text
            pydantic_core.from_json(data, allow_inf_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        why = str(error) if str(error).startswith(_UNKNOWN_TYPE) else type(error).__name__
    else:
        return data.decode(), len(data)
    raise _ComplaintError(
        f"its payload, of type {type(event).__name__}, cannot be written as JSON ({why}): use a pydantic model, a dataclass, "
        f"or a dict of plain values"
    )


def _text(event: str) -> tuple[str, int]:
    if not event:
        raise _ComplaintError("its payload is empty, and SNS takes no message without a body")
    if _UNSENDABLE.search(event):
        raise _ComplaintError("its payload has characters that SQS does not take, such as control characters")
    return event, len(event.encode())


def _expiry(moment: Any) -> Attribute:
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        try:
            moment = datetime.fromtimestamp(moment, UTC)
        except (ValueError, OverflowError, OSError):
            raise _ComplaintError("expires_at is no time: give a datetime or Unix seconds") from None
    if not isinstance(moment, datetime):
        raise _ComplaintError(f"expires_at is of type {type(moment).__name__}, but must be a datetime or Unix seconds")
    if moment.utcoffset() is None:
        raise _ComplaintError("expires_at has no time zone: write datetime.now(UTC) + timedelta(minutes=5)")
    return Attribute("String", moment.astimezone(UTC).isoformat(timespec="milliseconds"))


def _attributes(given: Mapping[str, AttributeValue], ours: Sequence[str]) -> dict[str, Attribute]:
    most = MAX_ATTRIBUTES - len(ours)
    if len(given) > most:
        raise _ComplaintError(
            f"it has {len(given)} attributes of its own, but at most {most} may go with {' and '.join(ours)}: "
            f"put the others into the payload"
        )
    return {name: _attribute(name, value, ours) for name, value in given.items()}


def _attribute(name: Any, value: Any, ours: Sequence[str]) -> Attribute:
    if not isinstance(name, str) or len(name) > _MAX_NAME_CHARACTERS or not _ATTRIBUTE_NAME.fullmatch(name):
        raise _ComplaintError(
            "the name of an attribute must be 1 to 256 letters, digits, - _ and single dots, and not start with AWS. or Amazon."
        )
    if name in ours:
        raise _ComplaintError(f"the attribute {name} is written by the publisher: leave it out")
    match value:
        case bool() | float():
            raise _ComplaintError(f"the attribute {name} is of type {type(value).__name__}, but must be {_KINDS}")
        case int() if abs(value) < 10**_MAX_EXPONENT:
            return Attribute("Number", str(value))
        case Decimal() if value.is_finite() and abs(value.adjusted()) < _MAX_EXPONENT:
            return Attribute("Number", f"{value:f}")
        case str() if value and not _UNSENDABLE.search(value):
            return Attribute("String", value)
        case bytes() if value:
            return Attribute("Binary", value)
        case int() | Decimal():
            raise _ComplaintError(f"the attribute {name} is too large, too small or no number: write it as text")
        case str() | bytes():
            raise _ComplaintError(f"the attribute {name} is empty or has control characters: SQS does not take it")
    raise _ComplaintError(f"the attribute {name} is of type {type(value).__name__}, but must be {_KINDS}")


def _attribute_bytes(name: str, attribute: Attribute) -> int:
    value = attribute.value
    size = len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode())
    return len(name) + len(attribute.data_type) + size
