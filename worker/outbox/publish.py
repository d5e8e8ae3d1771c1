"""`publish`: an event goes into the outbox, in the transaction that it is the news of."""

import hashlib
import json
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from worker.errors import UsageError
from worker.inbox import IDEMPOTENCY_KEY
from worker.message import Attribute
from worker.publisher.composer import MAX_ATTRIBUTES, MAX_BYTES, AttributeValue, Composer, Moment, Outgoing
from worker.publisher.errors import refused
from worker.sql.connection import Statement, adapt
from worker.sql.steps import Steps, run, run_async

__all__ = ["publish", "publish_sync", "read_attributes"]

_OURS: Final = ("event_type", "published_at")
_FITS_DEDUPLICATION: Final = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_KEY_CHARACTERS: Final = 500

_IN_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended(:lane, 7310583))"
"""Numbers are given out before they are committed. So whoever stores an event of a group waits until the last one of that
group is committed: the order of numbers is the order of commits."""
_INSERT: Final = (
    "INSERT INTO longshore_outbox (topic, event_type, body, attributes, group_id, deduplication_id) "
    "VALUES (:topic, :event_type, :body, :attributes, :group_id, :deduplication_id)"
)


async def publish(  # noqa: PLR0913 - an event has these parts
    connection: Any,
    event_type: str,
    event: Any,
    *,
    topic: str,
    group_id: str | None = None,
    key: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    expires_at: Moment | None = None,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Store an event in the connection's transaction, to be published once that is committed; return its key.

    `connection` is what `message.once` takes. `topic` is the name that the relay is started with. Events of one `group_id`
    are published in the order in which they were stored; the others in any. `key` names the event in your business, such as
    `f"{order_id}:paid"`, else it is random; it travels as the attribute `idempotency_key`, because an event may be
    published twice, and on a FIFO topic as its deduplication id. `attributes` are at most seven, with `expires_at` six;
    that is what `Publisher.publish` takes, and the event is published all the same when it has passed.
    `max_bytes` is what the event may have with its attributes: more than SNS takes where the relay puts large payloads into S3
    (`topics.NAME.large_payloads`); a relay that does not will refuse it.
    Raises `PublishError` at once for an event that SNS would refuse, and `UsageError` for a connection or key that is none.
    """
    steps = _store(Outgoing(event_type, event, attributes, group_id, None, expires_at), topic, _key(key), max_bytes)
    adapted = adapt(connection)
    return await run_async(adapted, steps(adapted.dialect))


def publish_sync(  # noqa: PLR0913 - an event has these parts
    connection: Any,
    event_type: str,
    event: Any,
    *,
    topic: str,
    group_id: str | None = None,
    key: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    expires_at: Moment | None = None,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Do what `publish` does on a connection that is not asynchronous."""
    steps = _store(Outgoing(event_type, event, attributes, group_id, None, expires_at), topic, _key(key), max_bytes)
    adapted = adapt(connection)
    return run(adapted, steps(adapted.dialect))


def read_attributes(stored: str) -> dict[str, AttributeValue]:
    """Return the attributes of a stored event as a publisher takes them."""
    return {name: _read(kind, value) for name, (kind, value) in json.loads(stored).items()}


def _store(outgoing: Outgoing, topic: str, key: str, max_bytes: int) -> "_Store":
    is_fifo = topic.endswith(".fifo")
    composed = _composer(topic, max_bytes).compose(
        outgoing._replace(
            attributes=_attributes(outgoing, key),
            deduplication_id=_deduplication_id(key) if is_fifo else None,
        )
    )
    publication = composed.publication
    kept = {name: _written(one) for name, one in publication.attributes.items() if name not in _OURS}
    values = {
        "topic": topic,
        "event_type": outgoing.event_type,
        "body": publication.body,
        "attributes": json.dumps(kept),
        "group_id": publication.group_id,
        "deduplication_id": publication.deduplication_id,
    }
    return _Store(values, key)


def _attributes(outgoing: Outgoing, key: str) -> dict[str, AttributeValue]:
    """Return the event's attributes with its key; raise what is wrong about them in the author's numbers."""
    given = outgoing.attributes or {}
    if IDEMPOTENCY_KEY in given:
        raise UsageError(
            f"the attribute {IDEMPOTENCY_KEY} is written by the outbox: give its value as key=, and leave it out of attributes"
        )
    ours = [*_OURS, *(["expires_at"] if outgoing.expires_at is not None else []), IDEMPOTENCY_KEY]
    if len(given) > (most := MAX_ATTRIBUTES - len(ours)):
        raise refused(
            outgoing.event_type,
            f"it has {len(given)} attributes of its own, but at most {most} may go with {', '.join(ours[:-1])} and {ours[-1]}: "
            f"put the others into the payload",
        )
    return {**given, IDEMPOTENCY_KEY: key}


class _Store:
    """The steps that store one event."""

    def __init__(self, values: dict[str, Any], key: str) -> None:
        self._values = values
        self._key = key

    def __call__(self, dialect: str) -> Steps[str]:
        values = self._values
        if dialect == "postgresql" and values["group_id"] is not None:
            yield Statement(_IN_TURN, {"lane": f"{values['topic']}\n{values['group_id']}"})
        yield Statement(_INSERT, values)
        return self._key


@lru_cache(maxsize=100)
def _composer(topic: str, max_bytes: int) -> Composer:
    return Composer(topic, max_bytes=max_bytes)


def _key(given: Any) -> str:
    if given is None:
        return uuid.uuid4().hex
    if isinstance(given, str) and 0 < len(given) <= _MAX_KEY_CHARACTERS:
        return given
    raise UsageError(f"the key of an event must be text of 1 to {_MAX_KEY_CHARACTERS} characters, or left out")


def _deduplication_id(key: str) -> str:
    return key if _FITS_DEDUPLICATION.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()


def _written(attribute: Attribute) -> tuple[str, str]:
    value = attribute.value
    return attribute.data_type, b64encode(value).decode() if isinstance(value, bytes) else value


def _read(kind: str, value: str) -> AttributeValue:
    match kind:
        case "Number":
            return Decimal(value)
        case "Binary":
            return b64decode(value)
        case _:
            return value
