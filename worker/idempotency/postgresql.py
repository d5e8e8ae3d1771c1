"""`PostgresStore`: marks in a table of a PostgreSQL database, for the processes of many machines."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from worker.errors import ConfigError
from worker.idempotency.store import VERSION, Answer, Begun, Mark, Row, Running, StoreError, answer_to
from worker.settings.base import masked

__all__ = ["PostgresStore"]

R = TypeVar("R")

CALL_SECONDS: Final = 4.0
CONNECTIONS: Final = 4
MOST_PRUNED: Final = 10_000

TABLE: Final = """
CREATE TABLE IF NOT EXISTS longshore_idempotency (
    key text PRIMARY KEY,
    fingerprint text NOT NULL,
    owner text,
    ends_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS longshore_idempotency_ends_at ON longshore_idempotency (ends_at);
"""
VERSIONED: Final = f"COMMENT ON TABLE longshore_idempotency IS 'version {VERSION}'"
_LOCK: Final = 0x10_9540
"""Of the advisory lock under which the table is made: `IF NOT EXISTS` alone is a race between processes that start at once."""

_ASKED: Final = (
    "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[]) AS asked (key, fingerprint, owner, seconds)"
)
# Ordered, so that two calls with the same keys wait for each other instead of locking each other out.
_BEGIN: Final = f"""
INSERT INTO longshore_idempotency AS kept
SELECT key, fingerprint, owner, clock_timestamp() + seconds * interval '1 second' FROM ({_ASKED} ORDER BY key) AS ordered
ON CONFLICT (key) DO UPDATE
SET fingerprint = excluded.fingerprint, owner = excluded.owner, ends_at = excluded.ends_at
WHERE kept.ends_at <= clock_timestamp() OR (kept.owner = excluded.owner AND kept.fingerprint = excluded.fingerprint)
RETURNING key
"""  # noqa: S608  # put together from constants
_KEPT: Final = """
SELECT key, fingerprint, owner, extract(epoch FROM ends_at - clock_timestamp())::float8
FROM longshore_idempotency WHERE key = ANY($1::text[])
"""
_FINISH: Final = f"""
INSERT INTO longshore_idempotency
SELECT key, fingerprint, NULL, clock_timestamp() + seconds * interval '1 second' FROM ({_ASKED} ORDER BY key) AS ordered
ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, owner = NULL, ends_at = excluded.ends_at
"""  # noqa: S608
_LOCKED: Final = f"""
WITH mine AS (
    SELECT kept.key, mine.seconds FROM longshore_idempotency AS kept
    JOIN ({_ASKED}) AS mine ON mine.key = kept.key AND mine.owner = kept.owner ORDER BY kept.key FOR UPDATE OF kept
)
"""  # noqa: S608
_RELEASE: Final = f"{_LOCKED} DELETE FROM longshore_idempotency AS kept USING mine WHERE kept.key = mine.key"  # noqa: S608
_RENEW: Final = f"""
{_LOCKED}
UPDATE longshore_idempotency AS kept SET ends_at = clock_timestamp() + mine.seconds * interval '1 second'
FROM mine WHERE kept.key = mine.key
"""  # noqa: S608
_PRUNE: Final = """
DELETE FROM longshore_idempotency WHERE key IN (
    SELECT key FROM longshore_idempotency WHERE ends_at <= clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED
)
"""


class PostgresStore:
    """A call is one statement; one more where keys were not free. The clock is the server's."""

    def __init__(self, url: str, *, retention_seconds: float) -> None:
        try:
            import asyncpg
        except ImportError:
            raise ConfigError(
                "idempotency.store is a PostgreSQL, but its client is not installed: pip install 'longshore[postgresql]'"
            ) from None
        self._asyncpg = asyncpg
        self._url = url
        self._place = masked(url)
        self._retention_seconds = retention_seconds
        self._pool: Any = None

    async def open(self) -> None:
        """Connect, and make the table where there is none."""
        self._connect()
        await self._on_connection(self._prepare)

    async def is_made(self) -> bool:
        """Connect, and look for the table."""
        self._connect()
        return await self._on_connection(self._is_there)

    async def close(self) -> None:
        """Close every connection; calls that are still on them fail."""
        if self._pool is not None:
            self._pool.terminate()

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        """Mark as in progress what is free."""

        async def begin(connection: Any) -> list[Answer]:
            begun = {row[0] for row in await connection.fetch(_BEGIN, *_columns(marks))}
            taken = [mark.key for mark in marks if mark.key not in begun]
            rows = {row[0]: Row(*row[1:]) for row in await connection.fetch(_KEPT, taken)} if taken else {}
            return [Begun() if mark.key in begun else _taken(mark, rows.get(mark.key)) for mark in marks]

        return await self._on_connection(begin)

    async def finish(self, marks: Sequence[Mark]) -> None:
        """Mark as done."""
        await self._execute(_FINISH, *_columns([mark._replace(seconds=self._retention_seconds) for mark in marks]))

    async def release(self, marks: Sequence[Mark]) -> None:
        """Free the keys."""
        await self._execute(_RELEASE, *_columns(marks))

    async def renew(self, marks: Sequence[Mark]) -> None:
        """Push the ends back."""
        await self._execute(_RENEW, *_columns(marks))

    async def prune(self) -> int:
        """Forget what has ended, in statements that nobody has to wait for."""
        total = 0
        while pruned := int((await self._execute(_PRUNE, MOST_PRUNED)).split()[-1]):  # "DELETE 10"
            total += pruned
        return total

    async def doubts(self) -> list[str]:
        """Have none."""
        return []

    def _connect(self) -> None:
        if self._pool is None:
            self._pool = self._asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=CONNECTIONS,
                timeout=CALL_SECONDS,
                command_timeout=CALL_SECONDS,
                reset=_as_it_is,
            )

    async def _prepare(self, connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if not await self._is_there(connection):
                await connection.execute(TABLE)
                await connection.execute(VERSIONED)

    async def _is_there(self, connection: Any) -> bool:
        """Return whether there is the table; raise `ConfigError` when another version has made it."""
        if await connection.fetchval("SELECT to_regclass('longshore_idempotency')") is None:
            return False
        said = await connection.fetchval("SELECT obj_description('longshore_idempotency'::regclass, 'pg_class')")
        if said != f"version {VERSION}":
            raise ConfigError(
                f"the table longshore_idempotency of {self._place} says {said!r} of itself, but this release reads "
                f"'version {VERSION}': run the release that made it, or name another database"
            )
        return True

    async def _execute(self, statement: str, *arguments: object) -> str:
        async def execute(connection: Any) -> str:
            return str(await connection.execute(statement, *arguments))

        return await self._on_connection(execute)

    async def _on_connection(self, work: Callable[[Any], Awaitable[R]]) -> R:
        if self._pool is None:
            raise StoreError(f"{self._place} was not opened")
        try:
            await self._pool  # connects at its first use only
            async with self._pool.acquire(timeout=CALL_SECONDS) as connection, self._ended_with_its_call(connection):
                return await work(connection)
        except ValueError as error:  # its text quotes what it could not read, which may be a part of the password
            raise ConfigError(
                f"idempotency.store is a URL that PostgreSQL's client cannot read ({type(error).__name__}), and is not quoted "
                f"as it may hold a password: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and %40, %2F or %3A for @, / or :"
            ) from None
        except self._asyncpg.InsufficientPrivilegeError as error:
            raise StoreError(f"{self._place} ({error}): grant it, or make the table by hand") from error
        except (self._asyncpg.PostgresError, self._asyncpg.InterfaceError, OSError) as error:
            raise StoreError(f"{self._place} ({str(error) or type(error).__name__})") from error

    @asynccontextmanager
    async def _ended_with_its_call(self, connection: Any) -> AsyncIterator[None]:
        """Drop the connection of a call that had no answer: the pool would wait for one in a task that nobody asks after."""
        try:
            yield
        except self._asyncpg.PostgresError:  # an answer
            raise
        except BaseException:
            connection.terminate()
            raise


async def _as_it_is(_: Any) -> None:
    """Let a connection go back to the pool without the round trip that would reset it: each call is one statement, which leaves nothing."""


def _columns(marks: Sequence[Mark]) -> tuple[list[str], list[str], list[str], list[float]]:
    return [m.key for m in marks], [m.fingerprint for m in marks], [m.owner for m in marks], [m.seconds for m in marks]


def _taken(mark: Mark, row: Row | None) -> Answer:
    """Return the answer for a key that was not free; one that was let go since then is free in a moment."""
    answer = answer_to(mark, row, 0)
    return Running(0) if isinstance(answer, Begun) else answer
