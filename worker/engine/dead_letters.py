"""What a dead letter says: the message as it was, and one attribute that tells why it is there."""

import hashlib
import json
import traceback
from datetime import UTC, datetime
from pathlib import PurePath

import structlog

from worker.engine.delivery import Delivery
from worker.message import Attribute, Received
from worker.outcome import DeadLetter
from worker.source import Copy

__all__ = ["REASON_ATTRIBUTE", "compose", "fingerprint"]

REASON_ATTRIBUTE = "longshore.dead_letter"
MAX_ATTRIBUTES = 10
MAX_MESSAGE_BYTES = 1_048_576
"""SQS counts the body and the names, types and values of all attributes (SQS quotas, since August 2025)."""
MAX_REASON_CHARACTERS = 1_000

log = structlog.get_logger("settlement")


def compose(delivery: Delivery, fate: DeadLetter, *, queue: str, is_fifo: bool, now_wall: float) -> Copy:
    """Return the copy for the dead-letter queue: body and attributes unchanged, the reason added where it fits."""
    received = delivery.received
    attributes = {name: value for name, value in received.attributes.items() if name != REASON_ATTRIBUTE}
    reason = _fit(_facts(delivery, fate, queue, now_wall), received, attributes)
    if reason is None:
        log.warning("dead letter without its reason: no room in the message", reason=fate.reason, **delivery.log_fields)
    else:
        attributes[REASON_ATTRIBUTE] = Attribute("String", reason)
    return Copy(
        body=received.body,
        attributes=attributes,
        group_id=received.group_id,
        deduplication_id=received.id if is_fifo else None,  # as SQS's own redrive does
        trace_header=received.trace_header,
    )


def fingerprint(reason: str, error: BaseException | None) -> str:
    """Return twelve hex digits that are the same for failures of the same kind at the same place in the code."""
    parts = [reason if error is None else type(error).__qualname__]
    if error is not None:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]  # reads no source files
        parts += [f"{PurePath(code.co_filename).name}:{code.co_name}" for code in codes[-2:]]
    return hashlib.sha256("|".join(parts).encode(errors="replace"), usedforsecurity=False).hexdigest()[:12]


def _facts(delivery: Delivery, fate: DeadLetter, queue: str, now_wall: float) -> dict[str, object]:
    received = delivery.received
    facts: dict[str, object] = {
        "reason": fate.reason[:MAX_REASON_CHARACTERS],
        "error": None if fate.error is None else type(fate.error).__qualname__,
        "fingerprint": fingerprint(fate.reason, fate.error),
        "handler": delivery.handler,
        "source": queue,
        "attempts": delivery.attempt,
        "message_id": received.id,
        "sent_at": _timestamp(received.sent_at),
        "dead_lettered_at": _timestamp(now_wall),
        "trace": received.trace_header,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _fit(facts: dict[str, object], received: Received, attributes: dict[str, Attribute]) -> str | None:
    if len(attributes) >= MAX_ATTRIBUTES:
        return None
    room = MAX_MESSAGE_BYTES - _size(received.body, attributes) - len(REASON_ATTRIBUTE) - len("String")
    text = json.dumps(facts)  # ASCII: characters that SQS refuses are escaped
    if len(text) > room:
        excess = len(text) - room
        reason = str(facts["reason"])
        text = json.dumps(facts | {"reason": reason[: max(0, len(reason) - excess)]})
    return text if len(text) <= room else None


def _size(body: str, attributes: dict[str, Attribute]) -> int:
    size = len(body.encode(errors="surrogatepass"))
    for name, (data_type, value) in attributes.items():
        size += len(name) + len(data_type)
        size += len(value) if isinstance(value, bytes) else len(value.encode(errors="surrogatepass"))
    return size


def _timestamp(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else None
