"""`adapt`: a connection of SQLAlchemy, asyncpg or sqlite3, as far as a statement in its transaction needs to know it."""

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from worker.errors import UsageError

__all__ = ["Connection", "Rows", "Statement", "adapt"]

Rows: TypeAlias = Sequence[Any]
"""Rows are tuples, whichever library brings them."""


class Statement(NamedTuple):
    """One statement; its values stand in the text as `:name`."""

    text: str
    values: Mapping[str, Any] = {}


_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")


class Connection(Protocol):
    """A connection in somebody's transaction."""

    @property
    def dialect(self) -> str:
        """`postgresql` or `sqlite`, as SQLAlchemy names them."""

    @property
    def file(self) -> Any:
        """The connection of sqlite3 that would keep the event loop while it waits for its file, if it is one."""

    def watch(self) -> None:
        """Remember the transaction that is open."""

    def is_watched(self) -> bool:
        """Whether that is open still, as far as it can be told without asking PostgreSQL; to be asked once."""

    def execute(self, statement: Statement) -> Rows | Awaitable[Rows]:
        """Run a statement in the transaction; the rows, or an awaitable of them."""

    def flush(self) -> Any:
        """Write down what was not sent to the database yet; perhaps an awaitable."""


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
        if _commits_each(connection):
            raise UsageError(
                "the sqlite3 connection commits each statement by itself: begin a transaction on it first, "
                'connection.execute("BEGIN"), or connect without isolation_level=None'
            )

    @property
    def file(self) -> Any:
        return self._connection

    def watch(self) -> None:
        self._connection.execute("SAVEPOINT longshore_once")  # SQLite numbers no transactions; this ends with its own

    def is_watched(self) -> bool:
        import sqlite3

        try:
            self._connection.execute("RELEASE longshore_once")
        except sqlite3.OperationalError:
            return False
        return True

    def execute(self, statement: Statement) -> Rows:
        if not self._connection.in_transaction:
            # At once: a transaction that reads first cannot wait for another writer any more, and fails instead.
            self._connection.execute("BEGIN IMMEDIATE")
        cursor = self._connection.cursor()
        cursor.row_factory = None  # the user's rows may be dicts
        rows: Rows = cursor.execute(statement.text, dict(statement.values)).fetchall()
        return rows

    def flush(self) -> Rows:
        return ()


class _Asyncpg:
    dialect = "postgresql"
    file = None

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        if not connection.is_in_transaction():
            raise UsageError(
                "the asyncpg connection is in no transaction: write `async with connection.transaction()` around it"
            )

    def watch(self) -> None:
        pass

    def is_watched(self) -> bool:
        is_open: bool = self._connection.is_in_transaction()
        return is_open

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
        self._is_session = hasattr(inner, "get_bind")
        bind = inner.get_bind() if self._is_session else inner
        self.dialect = str(bind.dialect.name)
        self._driver = str(bind.dialect.driver)
        self._watched: object | None = None
        if self.dialect not in {"postgresql", "sqlite"}:
            raise UsageError(f"inbox and outbox work on PostgreSQL and SQLite, and this database is {self.dialect}")

    @property
    def file(self) -> Any:
        if self._driver != "pysqlite":  # aiosqlite waits in a thread of its own
            return None
        return (self._inner.connection() if self._is_session else self._inner).connection.driver_connection

    def watch(self) -> None:
        self._watched = self._inner.get_transaction()

    def is_watched(self) -> bool:
        return self._watched is not None and self._inner.get_transaction() is self._watched

    def execute(self, statement: Statement) -> Any:
        if self._outer is not self._inner:
            return self._execute_async(statement)
        self._refuse_autocommit(self._outer.connection() if self._is_session else self._outer)
        return _fetched(self._outer.execute(*_in_alchemy(statement)))

    async def _execute_async(self, statement: Statement) -> Rows:
        connection = await self._outer.connection() if self._is_session else self._outer
        self._refuse_autocommit(connection.sync_connection)
        return _fetched(await self._outer.execute(*_in_alchemy(statement)))

    def flush(self) -> Any:
        return self._outer.flush() if self._is_session else ()

    def _refuse_autocommit(self, connection: Any) -> None:
        """Ask the driver, which knows how it was told so: by the engine, or for this connection or transaction alone."""
        driver = connection.connection
        is_sqlite = self.dialect == "sqlite"
        if _commits_each(driver.driver_connection) if is_sqlite else getattr(driver, "autocommit", False) is True:
            raise UsageError(
                "the connection of SQLAlchemy commits each statement by itself (AUTOCOMMIT), so nothing would be committed "
                "together with it: take an engine or connection of another isolation_level"
            )


def _commits_each(connection: Any) -> bool:
    """Whether each statement on a connection of sqlite3, or aiosqlite, is a transaction of its own."""
    # `autocommit` is Python 3.12's.
    is_told_so = connection.isolation_level is None or getattr(connection, "autocommit", False) is True
    return is_told_so and not connection.in_transaction


def _in_alchemy(statement: Statement) -> tuple[Any, dict[str, Any]]:
    from sqlalchemy import text

    return text(statement.text), dict(statement.values)


def _fetched(result: Any) -> Rows:
    rows: Rows = result.all() if result.returns_rows else ()
    return rows
