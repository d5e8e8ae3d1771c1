"""`adapt`: a connection of SQLAlchemy, asyncpg or sqlite3, as far as a statement in its transaction needs to know it.

What is done with it is written once, as a generator of statements (`Steps`), and driven by `run` or `run_async`.
"""

import re
from collections.abc import Awaitable, Coroutine, Generator, Mapping, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from worker.errors import TransientError, UsageError

__all__ = ["Connection", "Rows", "Statement", "Steps", "adapt", "run", "run_async"]

T = TypeVar("T")

Rows: TypeAlias = Sequence[Any]
"""Rows are tuples, whichever library brings them."""


class Statement(NamedTuple):
    """One statement; its values stand in the text as `:name`."""

    text: str
    values: Mapping[str, Any] = {}


Steps: TypeAlias = Generator[Statement | None, Rows, T]
"""Yields statements and is sent their rows; `None` writes down what a session still keeps to itself."""

_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")
_TABLE_ERRORS = frozenset({"42P01", "42703"})  # undefined table, undefined column
_SQLITE_TABLE_ERRORS = ("no such table", "no such column", "has no column")
_CONFLICTS = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_SQLITE_LOCKED = "database is locked"


class Connection(Protocol):
    """A connection in somebody's transaction."""

    @property
    def dialect(self) -> str:
        """`postgresql` or `sqlite`, as SQLAlchemy names them."""

    def transaction(self) -> object | None:
        """Return what stands for the transaction that is open; another one, or `None`, once it has ended."""

    def execute(self, statement: Statement) -> Rows | Awaitable[Rows]:
        """Run a statement in the transaction; the rows, or an awaitable of them."""

    def flush(self) -> Any:
        """Write down what was not sent to the database yet; perhaps an awaitable."""


def run(connection: Connection, steps: Steps[T]) -> T:
    """Take the steps on a connection that waits for each."""
    try:
        wanted = next(steps)
        while True:
            try:
                rows = connection.flush() if wanted is None else connection.execute(wanted)
            except Exception as error:
                raise _told(error) from error
            if isawaitable(rows):
                if isinstance(rows, Coroutine):
                    rows.close()  # else Python warns that nobody awaited it
                raise UsageError(f"{_name(connection)} is asynchronous: write `async with` or `await`")
            wanted = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(connection: Connection, steps: Steps[T]) -> T:
    """Take the steps on any connection."""
    try:
        wanted = next(steps)
        while True:
            try:
                rows = connection.flush() if wanted is None else connection.execute(wanted)
                if isawaitable(rows):
                    rows = await rows
            except Exception as error:
                raise _told(error) from error
            wanted = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def adapt(connection: Any) -> Connection:
    """Return a connection of any library that is known; raise `UsageError` for another."""
    for kind in type(connection).__mro__:
        match kind.__module__.partition(".")[0], kind.__name__:
            case "sqlite3", "Connection":
                return _Sqlite(connection)
            case "asyncpg", "Connection" | "PoolConnectionProxy":
                return _Asyncpg(connection)
            case "sqlalchemy", "Connection" | "Session":
                return _Alchemy(connection, connection)
            case "sqlalchemy", "AsyncConnection":
                return _Alchemy(connection, connection.sync_connection)
            case "sqlalchemy", "AsyncSession":
                return _Alchemy(connection, connection.sync_session)
    raise UsageError(
        f"a {type(connection).__name__} is no connection that Longshore knows: give a Session, AsyncSession, Connection or "
        f"AsyncConnection of SQLAlchemy, a connection of asyncpg, or one of sqlite3"
    )


class _Sqlite:
    dialect = "sqlite"

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        if not connection.in_transaction and getattr(connection, "autocommit", False) is True:
            # Python 3.12 on; `with connection` would not commit what we begin.
            raise UsageError("the sqlite3 connection commits each statement by itself: begin a transaction first")

    def transaction(self) -> object | None:
        return self._connection if self._connection.in_transaction else None

    def execute(self, statement: Statement) -> Rows:
        if not self._connection.in_transaction:
            # At once: a transaction that reads first cannot wait for another writer any more, and fails instead.
            self._connection.execute("BEGIN IMMEDIATE")
        rows: Rows = self._connection.execute(statement.text, dict(statement.values)).fetchall()
        return rows

    def flush(self) -> Rows:
        return ()


class _Asyncpg:
    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        if not connection.is_in_transaction():
            raise UsageError(
                "the asyncpg connection is in no transaction: write `async with connection.transaction()` around it"
            )

    def transaction(self) -> object | None:
        return self._connection if self._connection.is_in_transaction() else None

    async def execute(self, statement: Statement) -> Rows:
        names = list(statement.values)
        text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement.text)
        rows: Rows = await self._connection.fetch(text, *statement.values.values())
        return rows

    def flush(self) -> Rows:
        return ()


class _Alchemy:
    """SQLAlchemy's four; `inner` is the synchronous half of an asynchronous one, else the same."""

    def __init__(self, outer: Any, inner: Any) -> None:
        self._outer = outer
        self._inner = inner
        bind = inner.get_bind() if hasattr(inner, "get_bind") else inner
        self.dialect = str(bind.dialect.name)
        if self.dialect not in {"postgresql", "sqlite"}:
            raise UsageError(f"inbox and outbox work on PostgreSQL and SQLite, and this database is {self.dialect}")

    def transaction(self) -> object | None:
        found: object | None = self._inner.get_transaction()
        return found

    def execute(self, statement: Statement) -> Any:
        from sqlalchemy import text

        result = self._outer.execute(text(statement.text), dict(statement.values))
        return _rows(result) if isawaitable(result) else _fetched(result)

    def flush(self) -> Any:
        return self._outer.flush() if hasattr(self._outer, "flush") else ()


async def _rows(result: Awaitable[Any]) -> Rows:
    return _fetched(await result)


def _fetched(result: Any) -> Rows:
    rows: Rows = result.all() if result.returns_rows else ()
    return rows


def _name(connection: Connection) -> str:
    return "this connection" if isinstance(connection, _Asyncpg) else "this session"


def _told(error: Exception) -> Exception:
    """Return what may pass as such, in a sentence; every other error as it came.

    Tables that are not there: somebody is about to make them. Another transaction in the way: it will end; one that holds
    a SQLite file is in everybody's way, the others in that of this message alone.
    """
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if code in _CONFLICTS or (code is None and _SQLITE_LOCKED in str(cause)):
        said = " ".join(str(cause).split())
        return TransientError(f"another transaction is in the way ({said})", is_downstream=code is None)
    is_missing = code in _TABLE_ERRORS if code else any(said in str(cause) for said in _SQLITE_TABLE_ERRORS)
    if not is_missing or "longshore_" not in str(cause):  # a flush also writes what is not ours
        return error
    said = " ".join(str(cause).split())
    return TransientError(
        f"the database lacks Longshore's tables, or has those of another version ({said}): run `longshore database migrate`"
    )
