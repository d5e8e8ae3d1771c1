"""`IdempotencyKey`: how a handler names the business key of an event, and what of it a store is told."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson

from worker.errors import ConfigError, PermanentError, TransientError

__all__ = ["IdempotencyKey", "KeySource", "fingerprint_of"]

KeySource = str | Sequence[str] | Callable[[Any], Any]
"""A field of the event (`"order_id"`, `"order.id"`), several of them, or a function of the event."""

_ALLOWED: Final = "allowed is a field of the event such as 'order.id', a sequence of fields, or a function of the event"
_VALUES: Final = (str, int, UUID, Decimal, date, time)  # a datetime is a date


class IdempotencyKey:
    """Reads the key of an event. Raises `ConfigError`, which names the owner, for what can never name a key."""

    __slots__ = ("_function", "_paths")

    def __init__(self, source: KeySource, *, owner: str) -> None:
        self._function: Callable[[Any], Any] | None = None
        self._paths: tuple[tuple[str, ...], ...] = ()
        if isinstance(source, str):
            source = (source,)
        if isinstance(source, Sequence) and source and all(isinstance(path, str) for path in source):
            self._paths = tuple(tuple(path.split(".")) for path in source)
            if all(name for path in self._paths for name in path):
                return
        elif callable(source):
            self._function = source
            return
        raise ConfigError(f"{owner} has idempotency_key={source!r}; {_ALLOWED}")

    def check(self, annotated: Any, *, owner: str) -> None:
        """Raise `ConfigError` for a field that events of the annotated model cannot have."""
        fields: Mapping[str, Any] | None = getattr(annotated, "model_fields", None)
        if fields is None:
            return
        for path in self._paths:
            if not hasattr(annotated, path[0]) and path[0] not in fields:
                raise ConfigError(
                    f"{owner} has idempotency_key={'.'.join(path)!r}, but {annotated.__name__} has no field {path[0]}; "
                    f"it has {', '.join(fields) or 'none'}"
                )

    def read(self, event: object) -> str:
        """Return a hash of the event's key. Raises `PermanentError`, which quotes no value, when the event has none."""
        if self._function is not None:
            value = self._called(self._function, event)
            parts = list(value) if isinstance(value, (tuple, list)) else [value]
            texts = [_text(part, "what its function returns") for part in parts]
            if not texts:
                raise PermanentError("no idempotency key: its function returns an empty sequence")
        else:
            texts = [_text(_at(event, path), f"the payload's {'.'.join(path)}") for path in self._paths]
        return hashlib.sha256(orjson.dumps(texts)).hexdigest()

    def _called(self, function: Callable[[Any], Any], event: object) -> Any:
        """Return what the function returns; what it stumbles over stands in the event, and will not change by trying again."""
        try:
            return function(event)
        except (PermanentError, TransientError):  # it says so itself
            raise
        except Exception as error:
            raise PermanentError(f"no idempotency key: its function raised {type(error).__name__}") from error


def fingerprint_of(payload: str) -> str:
    """Return a hash of the payload, the same for the same JSON whatever the order of its keys and its white space."""
    try:
        canonical = orjson.dumps(orjson.loads(payload), option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # plain text
        canonical = payload.encode(errors="surrogatepass")
    return hashlib.sha256(canonical).hexdigest()


def _at(event: object, path: tuple[str, ...]) -> object:
    """Return what stands at the path, `None` where nothing does."""
    found: Any = event
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return found


def _text(value: object, what: str) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool) or not isinstance(value, _VALUES):
        found = "is missing" if value is None else f"is a {type(value).__name__}, which names nothing"
        raise PermanentError(f"no idempotency key: {what} {found}")
    text = str(value)
    if not text.strip():
        raise PermanentError(f"no idempotency key: {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PermanentError(f"no idempotency key: {what} has lone surrogates") from None
    return text
