"""How a database is opened: its address, and what each kind of database needs to be told."""

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import URL, Connection, MetaData, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from worker import UsageError

__all__ = ["Store", "address", "make_tables", "open_store"]

T = TypeVar("T")

OPEN_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 30
POSTGRESQL_CONNECTIONS: Final = 4
_ONE_MAKES_TABLES: Final = text("SELECT pg_advisory_xact_lock(7310581)")
_READ_ONLY: Final = {"read_only": True}
"""Execution options of a transaction that writes nothing: on SQLite it then waits for no writer."""

_ALLOWED: Final = "sqlite:///orders.sqlite or postgresql://user:password@host/database"
_SQLITE_PRAGMAS: Final = ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL")


def address(url: str, name: str) -> str:
    """Return the part of a database's address that may be shown: no user, no password, no options."""
    parsed = _parse(url, name)
    port = f":{parsed.port}" if parsed.port else ""
    return f"{parsed.drivername}://{parsed.host or ''}{port}/{parsed.database}"


class Store(Protocol):
    """A database that runs work, each piece in a transaction of its own."""

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the kind of database."""

    async def run(self, work: Callable[[Connection], T], *, is_reading: bool = False) -> T:
        """Run the work in a transaction, committed unless it raises; one that only reads waits for no writer."""

    async def close(self) -> None:
        """Close the connections."""


def open_store(url: str, name: str) -> Store:
    """Return a store that has not connected yet; raise `UsageError`, which calls it by its name, when the address is none."""
    parsed = _parse(url, name)
    return _Postgresql(parsed) if parsed.drivername == "postgresql" else _Sqlite(parsed)


async def make_tables(store: Store, tables: MetaData) -> None:
    """Make those that are missing; of several workers that begin together, one makes them."""

    def work(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(_ONE_MAKES_TABLES)
        tables.create_all(connection)

    ends_at = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return await store.run(work)
        except OperationalError as error:  # SQLite lets nobody wait who switches a new file to WAL
            if "locked" not in str(error.orig) or time.monotonic() > ends_at:
                raise
        await asyncio.sleep(random.uniform(0, 0.1))


class _Sqlite:
    """One connection in one thread: a transaction is a single trip there, and waiting for a turn is fair."""

    dialect = "sqlite"

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(
            url,
            hide_parameters=True,  # errors go to logs, rows do not
            pool_size=1,
            max_overflow=0,
            pool_reset_on_return=None,  # every transaction ends with a commit or a rollback of its own
        )
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "begin", _begin_on_sqlite)
        self._reading = self._engine.execution_options(**_READ_ONLY)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")

    async def run(self, work: Callable[[Connection], T], *, is_reading: bool = False) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work, is_reading)

    def _run(self, work: Callable[[Connection], T], is_reading: bool) -> T:  # noqa: FBT001 - run_in_executor takes no keywords
        with (self._reading if is_reading else self._engine).begin() as connection:
            return work(connection)

    async def close(self) -> None:
        """Close the connection in its turn: a verb whose caller was cancelled may still be at work."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=False)


class _Postgresql:
    """A few connections; the work is written for a plain one and waits without a thread (SQLAlchemy's `run_sync`)."""

    dialect = "postgresql"

    def __init__(self, url: URL) -> None:
        query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
        self._engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg", query=query),
            hide_parameters=True,
            pool_size=POSTGRESQL_CONNECTIONS,
            max_overflow=0,
            connect_args={"timeout": OPEN_SECONDS, "command_timeout": STATEMENT_SECONDS},
        )

    async def run(self, work: Callable[[Connection], T], *, is_reading: bool = False) -> T:
        del is_reading  # readers wait for nobody there
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions: we do
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_on_sqlite(connection: Any) -> None:
    """Take the write lock at once: a transaction that reads first can no longer wait for it, and fails instead."""
    if not connection.get_execution_options().get("read_only"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _parse(url: str, name: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _refused(name, "is not one") from None
    kind = parsed.drivername
    if kind not in _COMPLETE:
        raise _refused(name, f"begins with {kind}://")
    if not _COMPLETE[kind](parsed) or "@" in (parsed.host or ""):
        raise _refused(name, f"begins with {kind}:// but is not complete")
    return parsed


_COMPLETE: Final[dict[str, Callable[[URL], bool]]] = {
    "sqlite": lambda url: bool(url.database) and url.database != ":memory:" and not url.host,
    "postgresql": lambda url: bool((url.host or url.query.get("host")) and url.database),
}


def _refused(name: str, found: str) -> UsageError:
    """Return the error for an address; what it says may hold a password, so it is not quoted."""
    return UsageError(
        f"the address of {name} {found}; allowed is one such as {_ALLOWED}, with special characters of "
        f"a password written as %XX"
    )
