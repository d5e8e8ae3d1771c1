"""Events as lines of JSON, as files and pipes carry them."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from worker.publisher.composer import Outgoing

__all__ = ["LineError", "read_line", "read_payload"]

_KEYS: Final = ("event_type", "event", "data", "attributes", "group_id", "deduplication_id", "expires_at")


class LineError(Exception):
    """What is wrong with a line: the rest of a sentence that starts with `line 7`; it never quotes the line."""


def read_line(text: str, *, event_type: str | None = None, group_id: str | None = None) -> Outgoing:
    """Read one event; `event_type` and `group_id` are for lines that name none. Raises `LineError`.

    1. `{"event_type": "order.created", "data": {...}}`, optionally with `attributes`, `group_id`, `deduplication_id`,
       `expires_at`; `event` may stand for `event_type`. The payload is `data`; a text is sent as it is.
    2. Any other object with an `event`: `{"event": "order.created", "order_id": ...}` is the payload as a whole.
    3. Anything else is a payload of the given `event_type`.
    """
    parsed = _parse(text)
    if isinstance(parsed, dict):
        if "data" in parsed and ("event" in parsed or "event_type" in parsed):
            return _wrapped(parsed, group_id)
        if "event_type" in parsed:
            raise LineError('has an event_type but no data: write {"event_type": "order.created", "data": {...}}')
        if isinstance(parsed.get("event"), str):
            return Outgoing(parsed["event"], text.strip(), group_id=group_id)
    if event_type is None:
        raise LineError('names no event type: write {"event_type": "order.created", "data": {...}}, or give EVENT_TYPE')
    return Outgoing(event_type, _payload(parsed, text), group_id=group_id)


def read_payload(text: str) -> str:
    """Return the payload that is written as JSON: a text without its quotes, anything else as it stands."""
    return _payload(_parse(text), text)


def _payload(parsed: Any, text: str) -> str:
    return parsed if isinstance(parsed, str) else text.strip()


def _parse(text: str) -> Any:
    why = "it is nested too deep"
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        why = f"{error.msg}, at character {error.pos + 1}"
    except ValueError:
        why = "NaN, Infinity and numbers of thousands of digits are none"
    except RecursionError:
        pass
    raise LineError(f"is not JSON ({why})")  # out here, because the decoder's error holds the text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _wrapped(parsed: Mapping[str, Any], group_id: str | None) -> Outgoing:
    for key in parsed:
        if key not in _KEYS:
            nearest = get_close_matches(key, _KEYS, n=1)
            advice = f"did you mean {nearest[0]}?" if nearest else f"allowed are {', '.join(_KEYS)}"
            raise LineError(f"has a key beside data that says nothing about an event ({_short(key)}): {advice}")
    names = {name for name in (parsed.get("event_type"), parsed.get("event")) if isinstance(name, str)}
    if len(names) != 1 or not all(isinstance(parsed.get(key, ""), str) for key in ("event_type", "event")):
        raise LineError("must name one event type, in text, such as order.created")
    return Outgoing(
        names.pop(),
        parsed["data"],
        _attributes(parsed.get("attributes")),
        parsed.get("group_id", group_id),
        parsed.get("deduplication_id"),
        _expiry(parsed.get("expires_at")),
    )


def _expiry(found: Any) -> Any:
    """Return a time that is written as text as one; the composer says what is wrong with everything else."""
    if not isinstance(found, str):
        return found
    try:
        return datetime.fromisoformat(found)
    except ValueError:
        pass
    raise LineError("has an expires_at that is no time: write 2027-01-01T00:00:00Z, or Unix seconds")


def _attributes(found: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise LineError('has attributes that are no object: write {"country": "DE", "items": 3}')
    return {name: Decimal(repr(value)) if isinstance(value, float) else value for name, value in found.items()}


def _short(key: str) -> str:
    return key if key.isprintable() and len(key) <= 40 else "a long one"  # noqa: PLR2004 - enough to find it by
