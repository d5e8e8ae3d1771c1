"""Until when an event is worth handling: what its publisher says of it, as an attribute or in its payload."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from worker.aws.envelope import Decoded

__all__ = ["expires_at"]

ATTRIBUTE: Final = "expires_at"
_MAX_TIME_CHARACTERS: Final = 64


def expires_at(decoded: Decoded, key: str | None = None) -> float | None:
    """Return the Unix time from which on the event is too late; `None` when it does not say, or says nonsense.

    It stands in the attribute `expires_at`, else, where a `key` is given, in the payload under that key: as ISO 8601,
    which without an offset is UTC, or as Unix seconds. Without a key no payload is parsed.
    """
    said: Any = decoded.attributes.get(ATTRIBUTE)
    if said is None and key is not None and f'"{key}"' in decoded.payload:
        said = _in_payload(decoded.payload, key)
    return None if said is None else _unix_time(said)


def _in_payload(payload: str, key: str) -> Any:
    try:
        parsed = orjson.loads(payload)
    except ValueError:
        return None
    return parsed.get(key) if isinstance(parsed, dict) else None


def _unix_time(said: Any) -> float | None:
    match said:
        case bool():
            return None
        case int() | float():
            return float(said)
        case str() if len(said) <= _MAX_TIME_CHARACTERS:
            return _read(said)
        case _:
            return None


def _read(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
