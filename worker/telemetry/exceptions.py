"""An exception as a few short fields of a log line: what it is, what it says, where it came from."""

import re
import traceback
from collections.abc import Iterable
from pathlib import PurePath
from types import TracebackType
from typing import Any

from worker.errors import LongshoreError

__all__ = ["describe", "in_lines", "said"]

_MESSAGE_LENGTH = 500
_FRAMES = 12
_DEPTH = 3
_MEMBERS = 5
_OF_A_DATABASE = frozenset({"Error", "InterfaceError", "PostgresError", "StatementError"})
"""Bases of what sqlite3, psycopg, asyncpg and SQLAlchemy raise; the first two are names of PEP 249."""
_QUOTED = re.compile(r"'[^']*'?")


def describe(error: BaseException, *, depth: int = _DEPTH) -> dict[str, Any]:
    """Return `type`, `message` (cut), `stack` (innermost frame first) and, where there are any, `cause` and `members`."""
    fields: dict[str, Any] = {"type": _name(error), "message": said(error), "stack": _stack(error.__traceback__)}
    if depth > 1:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None and not (cause is error.__cause__ and _is_of_a_database(error)):  # it has said that
            fields["cause"] = describe(cause, depth=depth - 1)
        if isinstance(error, BaseExceptionGroup):
            fields["members"] = [describe(member, depth=depth - 1) for member in error.exceptions[:_MEMBERS]]
    return fields


def in_lines(error: BaseException) -> str:
    """Return the same as text for a terminal."""
    return "\n".join(_lines(describe(error)))


def said(error: BaseException) -> str:
    """Return what an exception says, cut, without what it is known to quote of a payload.

    An error of Longshore's own is kept: it is a sentence, or the reason that a handler's author gives. Of any other the
    first line is: drivers of databases put the row, the statement and its parameters below.
    """
    try:
        text = _text(error)
    except Exception as broken:  # noqa: BLE001 - a stranger's __str__ may do anything, and a log line must still come out
        return f"(its text raises {type(broken).__name__})"
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]}... ({len(text)} characters)"


def _text(error: BaseException) -> str:
    if isinstance(error, LongshoreError):
        return str(error)
    if type(error).__module__.startswith("pydantic") and hasattr(error, "errors"):
        rules = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, rule['loc']))}: {rule['type']}" for rule in rules)
    if _is_of_a_database(error):
        return _said_by_a_database(error)
    return str(error).partition("\n")[0]


def _said_by_a_database(error: BaseException) -> str:
    """Return class, SQLSTATE and first line of what the driver raised; the line is left out where a value did not fit, as it is about that."""
    origin, is_of_a_value = error, False
    while deeper := getattr(origin, "orig", None) or origin.__cause__:  # SQLAlchemy wraps, up to twice
        if not _is_of_a_database(deeper):
            is_of_a_value = deeper is getattr(origin, "orig", None)  # a parameter that could not be converted
            break
        origin = deeper
    state = getattr(origin, "sqlstate", None)
    what = " ".join(str(part) for part in (type(origin).__name__ if origin is not error else None, state) if part)
    if is_of_a_value or "DataError" in _names(origin):
        return what or "a value does not fit"
    text = _QUOTED.sub("'...'", str(origin).partition("\n")[0])
    return f"{what}: {text}" if what else text


def _is_of_a_database(error: BaseException) -> bool:
    return bool(_names(error) & _OF_A_DATABASE)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _lines(fields: dict[str, Any], indent: str = "") -> Iterable[str]:
    yield f"{indent}{fields['type']}: {fields['message']}"
    for frame in fields["stack"]:
        yield f"{indent}    at {frame}"
    for inner in (*fields.get("members", ()), *([fields["cause"]] if "cause" in fields else ())):
        yield from _lines(inner, indent + "  ")


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _stack(origin: TracebackType | None) -> list[str]:
    frames = [
        f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-2:])}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(origin)
    ]
    return frames[: -_FRAMES - 1 : -1]
