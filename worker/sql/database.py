"""`open_database`: a connection of our own, for the commands and the relay."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from worker.errors import UsageError
from worker.sql.connection import Rows, Statement, adapt

__all__ = ["Database", "open_database"]

OPEN_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 60
_ALLOWED: Final = "sqlite:///orders.sqlite or postgresql://user:password@host/database"


class Database:
    """One connection, with transactions that are ours."""

    def __init__(self, connection: Any, dialect: str, name: str) -> None:
        self._connection = connection
        self.dialect = dialect
        self.name = name
        """Its address as it may be shown: without user, password and options."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit what is done inside, unless it raises."""
        if self.dialect == "postgresql":
            async with self._connection.transaction():
                yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            yield

    async def execute(self, statement: Statement) -> Rows:
        """Run one statement of the transaction."""
        rows = adapt(self._connection).execute(statement)
        return rows if isinstance(rows, list) else await rows  # type: ignore[misc]  # sqlite3's are there already


@asynccontextmanager
async def open_database(url: str, *, create: bool = False) -> AsyncIterator[Database]:
    """Connect to `sqlite:///FILE` or `postgresql://...`; raise `UsageError` when that cannot be, or when it refuses something.

    `create` makes the file of a SQLite database that is not there.
    """
    parsed = _parse(url)
    if parsed.scheme == "sqlite":
        async with _sqlite(parsed, create=create) as database:
            yield database
    else:
        async with _postgresql(parsed) as database:
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
    try:
        connection = sqlite3.connect(path, timeout=OPEN_SECONDS, isolation_level=None)
        connection.execute("SELECT count(*) FROM sqlite_master")  # opening alone reads nothing
    except sqlite3.Error as error:
        raise UsageError(f"the database {name} cannot be opened ({error}): correct its address") from None
    try:
        yield Database(connection, "sqlite", name)
    except sqlite3.Error as error:
        raise _refusal(name, error) from error
    finally:
        connection.close()


@asynccontextmanager
async def _postgresql(parsed: SplitResult) -> AsyncIterator[Database]:
    try:
        import asyncpg
    except ImportError:
        raise UsageError("PostgreSQL wants the package asyncpg: pip install 'longshore[orders]'") from None

    name = f"postgresql://{parsed.hostname or ''}{f':{parsed.port}' if parsed.port else ''}{parsed.path}"
    address = parsed._replace(scheme="postgresql").geturl()
    try:
        connection = await asyncpg.connect(address, timeout=OPEN_SECONDS, command_timeout=STATEMENT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        said = str(error) if isinstance(error, asyncpg.PostgresError) else type(error).__name__
        raise UsageError(f"the database {name} cannot be opened ({said}): start it, or correct its address") from None
    try:
        yield Database(connection, "postgresql", name)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _refusal(name, error) from error
    finally:
        connection.terminate()  # what was not committed is meant to be lost


def _refusal(name: str, error: Exception) -> UsageError:
    said = " ".join(str(error).split()) or type(error).__name__
    return UsageError(
        f"the database {name} did not do it ({said}): see whether it is there and allows it, and try again"
    )


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
