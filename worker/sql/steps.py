"""`run` and `run_async`: what is done in a transaction is written once, as a generator of statements, and driven on any connection.

A SQLite file that another transaction keeps is waited for here, without keeping the event loop.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from sqlite3 import SQLITE_BUSY_SNAPSHOT
from typing import Any, Final, TypeAlias, TypeVar

from worker.errors import TransientError, UsageError
from worker.sql.connection import Connection, Rows, Statement

__all__ = ["Insist", "Steps", "run", "run_async"]

T = TypeVar("T")

Steps: TypeAlias = Generator[Statement | None, Rows, T]
"""Yields statements and is sent their rows; `None` writes down what a session still keeps to itself."""
Insist: TypeAlias = Callable[[], None]
"""Raises what ends a wait for a SQLite file; without one the connection's own busy timeout does."""

PAUSE_SECONDS: Final = 0.05
"""How often, about, a SQLite file is tried that another transaction keeps."""

_TABLE_ERRORS = frozenset({"42P01", "42703"})  # undefined table, undefined column
_SQLITE_TABLE_ERRORS = ("no such table", "no such column", "has no column")
_CONFLICTS = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_SQLITE_LOCKED = "database is locked"


def run(connection: Connection, steps: Steps[T], insist: Insist | None = None) -> T:
    """Take the steps on a connection that waits for each."""
    try:
        wanted = next(steps)
        while True:
            try:
                rows = _done(connection, wanted, insist)
            except Exception as error:
                raise _told(error) from error
            if isawaitable(rows):
                if isinstance(rows, Coroutine):
                    rows.close()  # else Python warns that nobody awaited it
                raise UsageError("the connection is asynchronous: write `async with` or `await`")
            wanted = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(connection: Connection, steps: Steps[T], insist: Insist | None = None) -> T:
    """Take the steps on any connection; the event loop goes on while another transaction keeps a SQLite file."""
    try:
        wanted = next(steps)
        while True:
            try:
                rows = await _done_async(connection, wanted, insist)
            except Exception as error:
                raise _told(error) from error
            wanted = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def _done(connection: Connection, wanted: Statement | None, insist: Insist | None) -> Any:
    # On the loop it waits but once: whoever keeps the file may be a handler that cannot go on before this one returns.
    patience = _Patience(0, None if _is_on_a_loop() or _has_begun(connection.file) else insist)
    while True:
        try:
            return _begun(connection, wanted)
        except Exception as error:  # noqa: BLE001 - it is raised again unless it may pass
            time.sleep(patience.pause(error))


async def _done_async(connection: Connection, wanted: Statement | None, insist: Insist | None) -> Rows:
    file = connection.file
    with _not_waiting(file) as seconds:
        patience = _Patience(seconds, None if _has_begun(file) else insist)
        while True:
            try:
                rows: Any = _begun(connection, wanted)
                found: Rows = await rows if isawaitable(rows) else rows
            except Exception as error:  # noqa: BLE001 - it is raised again unless it may pass
                await asyncio.sleep(patience.pause(error))
            else:
                return found


def _begun(connection: Connection, wanted: Statement | None) -> Any:
    return connection.flush() if wanted is None else connection.execute(wanted)


class _Patience:
    """How long a statement is tried while another transaction keeps the SQLite file: for so many seconds, or until `insist` raises."""

    def __init__(self, seconds: float, insist: Insist | None) -> None:
        self._ends_at = time.monotonic() + seconds
        self._insist = insist

    def pause(self, error: Exception) -> float:
        """Return after how many seconds to try again; raise what ends the wait."""
        if not _may_be_unlocked(error) or (self._insist is None and time.monotonic() >= self._ends_at):
            raise error
        if self._insist is not None:
            self._insist()
        return random.uniform(0, 2 * PAUSE_SECONDS)


@contextmanager
def _not_waiting(file: Any) -> Iterator[float]:
    """Let a connection of sqlite3 say at once that its file is locked while inside; yield for how many seconds it would wait."""
    if file is None:
        yield 0
        return
    cursor = file.cursor()
    cursor.row_factory = None  # the user's rows may be dicts
    ((milliseconds,),) = cursor.execute("PRAGMA busy_timeout").fetchall()
    file.execute("PRAGMA busy_timeout = 0")
    try:
        yield milliseconds / 1000
    finally:
        file.execute(f"PRAGMA busy_timeout = {milliseconds}")


def _has_begun(file: Any) -> bool:
    """Whether the transaction was open before: who has read in it keeps others from the very commit that he waits for."""
    return file is not None and bool(file.in_transaction)


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _told(error: Exception) -> Exception:
    """Return what may pass as such, in a sentence; every other error as it came.

    Tables that are not there: somebody is about to make them. Another transaction in the way: it will end; one that holds
    a SQLite file is in everybody's way, the others in that of this message alone.
    """
    cause, code = _cause(error)
    if code in _CONFLICTS or _is_locked(error):
        said = " ".join(str(cause).split())
        return TransientError(f"another transaction is in the way ({said})", is_downstream=code is None)
    is_missing = code in _TABLE_ERRORS if code else any(said in str(cause) for said in _SQLITE_TABLE_ERRORS)
    if not is_missing or "longshore_" not in str(cause):  # a flush also writes what is not ours
        return error
    said = " ".join(str(cause).split())
    return TransientError(
        f"the database lacks Longshore's tables, or has those of another version ({said}): run `longshore database migrate`"
    )


def _is_locked(error: Exception) -> bool:
    cause, code = _cause(error)
    return code is None and _SQLITE_LOCKED in str(cause)


def _may_be_unlocked(error: Exception) -> bool:
    """Whether waiting helps; it does not for a transaction that has read what another one has changed since."""
    cause, _ = _cause(error)
    return _is_locked(error) and getattr(cause, "sqlite_errorcode", None) != SQLITE_BUSY_SNAPSHOT


def _cause(error: Exception) -> tuple[BaseException, str | None]:
    """Return what the driver raised, and PostgreSQL's code if it is one of PostgreSQL's."""
    cause = getattr(error, "orig", None) or error
    return cause, getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
