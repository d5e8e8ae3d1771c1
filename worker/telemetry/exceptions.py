"""An exception as a few short fields of a log line: what it is, what it says, where it came from. Never a payload."""

import traceback
from collections.abc import Iterable
from pathlib import PurePath
from types import TracebackType
from typing import Any

__all__ = ["describe", "in_lines"]

_MESSAGE_LENGTH = 500
_FRAMES = 12
_DEPTH = 3
_MEMBERS = 5


def describe(error: BaseException, *, depth: int = _DEPTH) -> dict[str, Any]:
    """Return `type`, `message` (cut), `stack` (innermost frame first) and, where there are any, `cause` and `members`.

    A validation error of pydantic is told by its fields and rules, because its text quotes the input.
    """
    fields: dict[str, Any] = {"type": _name(error), "message": _message(error), "stack": _stack(error.__traceback__)}
    if depth > 1:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            fields["cause"] = describe(cause, depth=depth - 1)
        if isinstance(error, BaseExceptionGroup):
            fields["members"] = [describe(member, depth=depth - 1) for member in error.exceptions[:_MEMBERS]]
    return fields


def in_lines(error: BaseException) -> str:
    """Return the same as text for a terminal."""
    return "\n".join(_lines(describe(error)))


def _lines(fields: dict[str, Any], indent: str = "") -> Iterable[str]:
    yield f"{indent}{fields['type']}: {fields['message']}"
    for frame in fields["stack"]:
        yield f"{indent}    at {frame}"
    for inner in (*fields.get("members", ()), *([fields["cause"]] if "cause" in fields else ())):
        yield from _lines(inner, indent + "  ")


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        if type(error).__module__.startswith("pydantic") and hasattr(error, "errors"):
            rules = error.errors(include_url=False, include_context=False, include_input=False)
            text = "; ".join(f"{'.'.join(map(str, rule['loc']))}: {rule['type']}" for rule in rules)
        else:
            text = str(error)
    except Exception as broken:  # noqa: BLE001 - a stranger's __str__ may do anything, and a log line must still come out
        return f"(its text raises {type(broken).__name__})"
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]}... ({len(text)} characters)"


def _stack(origin: TracebackType | None) -> list[str]:
    frames = [
        f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-2:])}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(origin)
    ]
    return frames[: -_FRAMES - 1 : -1]
