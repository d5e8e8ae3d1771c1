"""Until when an event is worth handling: what its publisher says of it, as an attribute or in its payload."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from worker.aws.envelope import Decoded
from worker.engine.context import QueueContext
from worker.engine.delivery import Delivery

__all__ = ["Expiry", "expires_at"]

ATTRIBUTE: Final = "expires_at"
LAST_SECOND: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_MAX_TIME_CHARACTERS: Final = 64

log = structlog.get_logger("dispatcher")


class Expiry:
    """Reads the deadlines of one queue's events; one that cannot be read is none, is counted, and is warned of once."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._was_said = False

    def of(self, delivery: Delivery, decoded: Decoded) -> float | None:
        """Return the Unix time from which on the event is too late; `None` when it has no such time."""
        try:
            return expires_at(decoded, self._context.settings.expires_at_key)
        except ValueError as error:
            self._context.metrics.unreadable_deadline()
            if not self._was_said:
                self._was_said = True
                log.warning("an expires_at cannot be read: its event never counts as too late; further ones are counted", queue=self._context.queue, why=str(error), **delivery.log_fields)  # fmt: skip
            return None


def expires_at(decoded: Decoded, key: str | None = None) -> float | None:
    """Return the Unix time from which on the event is too late; `None` when it does not say.

    It stands in the attribute `expires_at`, else, where a `key` is given, in the payload under that key: as ISO 8601,
    which without an offset is UTC, or as Unix seconds. Without a key no payload is parsed. Raises `ValueError`, whose text
    quotes nothing, for what is no time.
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


def _unix_time(said: Any) -> float:
    match said:
        case int() | float() if not isinstance(said, bool):
            return _within_reason(float(said))
        case str() if len(said) <= _MAX_TIME_CHARACTERS:
            return _read(said)
        case str():
            raise ValueError("it is a long text")
        case _:
            raise ValueError(f"it is a {type(said).__name__}")


def _read(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        return _within_reason(seconds)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError("it is neither ISO 8601 nor a number")  # out here, because the other error quotes it


def _within_reason(seconds: float) -> float:
    """Refuse what is no moment: milliseconds are not guessed at, as a wrong guess would delete events."""
    if abs(seconds) <= LAST_SECOND:  # false for NaN
        return seconds
    raise ValueError("as Unix seconds it lies beyond the year 9999; milliseconds have to be divided by 1000")
