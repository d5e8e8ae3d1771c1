"""From a body to the type of a handler's annotation, and what may be said of a payload that does not fit it."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pydantic
import pydantic_core
from pydantic import TypeAdapter, ValidationError

from worker.aws.envelope import Decoded
from worker.aws.pointers import pointer_in
from worker.errors import InvalidPayloadError
from worker.objects import S3Pointer

__all__ = ["Payload"]

_MAX_ENTRIES: Final = 5
_MAX_COUNTED: Final = 1_000  # beyond it, listing the errors takes longer than finding them


class Payload:
    """Reads the payload of a message as one type.

    `str` is the body as text, `bytes` the body as UTF-8, `Any` the parsed JSON or else the text; every other type
    that pydantic knows is validated from JSON. `S3Pointer` is where a large payload lies, which is then not fetched. Raises pydantic's own errors for a type that it does not know.
    """

    __slots__ = ("read", "type")

    def __init__(self, annotated: Any) -> None:
        self.type = annotated
        self.read: Callable[[Decoded], Any]
        """Return the event of a decoded body; raises `InvalidPayloadError`, which quotes nothing of the payload."""
        if annotated is str:
            self.read = _text
        elif annotated is bytes:
            self.read = _utf8
        elif annotated is Any:
            self.read = _json_or_text
        elif annotated is S3Pointer:
            self.read = _pointer
        else:
            self.read = _Validated(annotated)


class _Validated:
    """Validates a JSON payload; what it says of one that does not fit names places and kinds, never values."""

    def __init__(self, annotated: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotated)
        self._validate = self._adapter.validate_json
        self._name = str(getattr(annotated, "__name__", annotated))
        self._known_names: frozenset[str] | None = None

    def __call__(self, decoded: Decoded) -> Any:
        try:
            return self._validate(decoded.payload)
        except ValidationError as error:
            complaint = self._complaint(error)
        # Raised out here, because pydantic's error holds the payload and would come along as the context.
        raise InvalidPayloadError(f"the payload does not fit {self._name} ({complaint})")

    def _complaint(self, error: ValidationError) -> str:
        count = error.error_count()
        if count > _MAX_COUNTED:
            return f"{count} errors"
        found = error.errors(include_url=False, include_context=False, include_input=False)
        entries = [f"{self._location(entry['loc'])}: {entry['type']}" for entry in found[:_MAX_ENTRIES]]
        if count > _MAX_ENTRIES:
            entries.append(f"and {count - _MAX_ENTRIES} more")
        return "; ".join(entries)

    def _location(self, location: tuple[int | str, ...]) -> str:
        """Name the place of an error; keys that the type does not know come from the payload and are not quoted."""
        if self._known_names is None:
            self._known_names = frozenset(self._names())
        parts = [str(part) if isinstance(part, int) or part in self._known_names else "?" for part in location]
        return ".".join(parts) or "payload"

    def _names(self) -> Iterator[str]:
        """Yield the names of all fields and models of the type."""
        try:
            todo: list[Any] = [self._adapter.json_schema()]
        except (pydantic.PydanticUserError, TypeError, ValueError):  # a type without a JSON schema: no name is known
            return
        while todo:
            found = todo.pop()
            if isinstance(found, dict):
                yield from found.get("properties", ())
                yield from found.get("$defs", ())
                todo.extend(found.values())
            elif isinstance(found, list):
                todo.extend(found)


def _text(decoded: Decoded) -> str:
    return decoded.body


def _utf8(decoded: Decoded) -> bytes:
    try:
        return decoded.body.encode()
    except UnicodeEncodeError:
        pass  # the error holds the body
    raise InvalidPayloadError("the body has lone surrogates and cannot be written as UTF-8")


def _pointer(decoded: Decoded) -> S3Pointer:
    pointer = pointer_in(decoded.body, decoded.attributes)
    if pointer is None:
        raise InvalidPayloadError("the body does not point to S3, but the handler takes pointers only")
    return pointer


def _json_or_text(decoded: Decoded) -> Any:
    try:
        return pydantic_core.from_json(decoded.payload, allow_inf_nan=False)
    except ValueError:  # also nested too deep, or a number of thousands of digits
        return decoded.payload
