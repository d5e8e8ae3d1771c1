"""`open_database`: a connection of our own, for the commands and the relay."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from worker.errors import LongshoreError, TransientError, UsageError
from worker.sql.connection import adapt
from worker.sql.steps import Steps, run, run_async

__all__ = ["Database", "UnreachableError", "file_of", "open_database"]

T = TypeVar("T")

OPEN_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 60
_ALLOWED: Final = "sqlite:///orders.sqlite or postgresql://user:password@host/database"


class UnreachableError(LongshoreError):
    """The database did not answer, or did not do it; it may do so later."""


class Database:
    """One connection, with transactions that are ours. SQLite's is in a thread, because it waits for other writers."""

    def __init__(self, connection: Any, dialect: str, name: str, thread: ThreadPoolExecutor | None = None) -> None:
        self._connection = connection
        self._thread = thread
        self.dialect = dialect
        self.name = name
        """Its address as it may be shown: without user, password and options."""

    async def transact(self, steps: Steps[T]) -> T:
        """Take the steps in a transaction of their own, committed unless they raise; on SQLite that is one trip to its thread."""
        if self._thread is None:
            async with self.transaction():
                return await self.take(steps)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, steps)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Keep a transaction open while inside, on PostgreSQL: it keeps the rows that were locked, and stops nobody else."""
        async with self._connection.transaction():
            yield

    async def take(self, steps: Steps[T]) -> T:
        """Take the steps in the transaction that is open."""
        return await run_async(adapt(self._connection), steps)

    def _transact(self, steps: Steps[T]) -> T:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            return run(adapt(self._connection), steps)


@asynccontextmanager
async def open_database(
    url: str, *, create: bool = False, statement_seconds: float = STATEMENT_SECONDS
) -> AsyncIterator[Database]:
    """Connect to `sqlite:///FILE` or `postgresql://...`; raise `UsageError` when that cannot be.

    Raises `UnreachableError` where that may pass, or when it refuses something. `create` makes the file of a SQLite database that is not there.
    A statement may take `statement_seconds` on PostgreSQL; on SQLite it waits ten for other writers.
    """
    parsed = _parse(url)
    if parsed.scheme == "sqlite":
        async with _sqlite(parsed, create=create) as database:
            yield database
    else:
        async with _postgresql(parsed, statement_seconds) as database:
            yield database


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite database; `None` for another."""
    parsed = _parse(url)
    return Path(unquote(parsed.path[1:])) if parsed.scheme == "sqlite" else None


@asynccontextmanager
async def _sqlite(parsed: SplitResult, *, create: bool) -> AsyncIterator[Database]:
    path = Path(unquote(parsed.path[1:]))
    name = f"sqlite:///{path}"
    if not create and not path.exists():  # noqa: ASYNC240 - at the start, and quick
        raise UsageError(
            f"the database {name} does not exist: correct its address, or run `longshore database migrate`"
        )
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="longshore-sqlite")
    loop, connection = asyncio.get_running_loop(), None
    try:
        try:
            connection = await loop.run_in_executor(thread, _connected, path)
        except sqlite3.Error as error:
            raise UnreachableError(f"the database {name} cannot be opened ({error}): correct its address") from None
        try:
            yield Database(connection, "sqlite", name, thread)
        except (sqlite3.Error, TransientError) as error:
            raise _refusal(name, error) from error
    finally:
        if connection is not None:
            thread.submit(connection.close)  # in its turn: whoever was cancelled may still be at work
        thread.shutdown(wait=False)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=OPEN_SECONDS, isolation_level=None)
    connection.execute("SELECT count(*) FROM sqlite_master")  # opening alone reads nothing
    return connection


@asynccontextmanager
async def _postgresql(parsed: SplitResult, statement_seconds: float) -> AsyncIterator[Database]:
    try:
        import asyncpg
    except ImportError:
        raise UsageError("PostgreSQL wants the package asyncpg: pip install 'longshore[orders]'") from None

    name = f"postgresql://{parsed.hostname or ''}{f':{parsed.port}' if parsed.port else ''}{parsed.path}"
    address = parsed._replace(scheme="postgresql").geturl()
    try:
        connection = await asyncpg.connect(address, timeout=OPEN_SECONDS, command_timeout=statement_seconds)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        said = str(error) if isinstance(error, asyncpg.PostgresError) else _name_of(error)
        raise UnreachableError(
            f"the database {name} cannot be opened ({said}): start it, or correct its address"
        ) from None
    try:
        yield Database(connection, "postgresql", name)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, TransientError) as error:
        raise _refusal(name, error) from error
    finally:
        connection.terminate()  # what was not committed is meant to be lost


def _refusal(name: str, error: Exception) -> UnreachableError:
    said = " ".join(str(error).split()) or _name_of(error)
    return UnreachableError(
        f"the database {name} did not do it ({said}): see whether it is there and allows it, and try again"
    )


def _name_of(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _parse(url: str) -> SplitResult:
    try:
        parsed = urlsplit(url)
        is_complete = bool(parsed.path.strip("/")) and (bool(parsed.hostname) != (parsed.scheme == "sqlite"))
        _ = parsed.port
    except ValueError:
        is_complete, parsed = False, urlsplit("")
    if parsed.scheme not in {"sqlite", "postgresql", "postgresql+asyncpg"} or not is_complete:
        # What was given may hold a password, so it is not quoted.
        raise UsageError(f"the address of the database is none that can be opened; allowed is one such as {_ALLOWED}")
    return parsed
