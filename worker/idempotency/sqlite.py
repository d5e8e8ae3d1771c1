"""`SqliteStore`: marks in a file, for the processes of one machine."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar, cast

from worker.errors import ConfigError
from worker.idempotency.store import VERSION, Answer, Begun, Mark, Row, StoreError, answer_to
from worker.idempotency.together import Together

__all__ = ["SqliteStore"]

R = TypeVar("R")

BUSY_SECONDS: Final = 4.0
"""How long a transaction waits for another process's."""
PORTION: Final = 10_000
"""Rows that one transaction looks at when it prunes, so that nobody waits for long."""
PRUNE_SECONDS: Final = 2.0
"""How long one prune goes on; the next one begins where it stopped."""

TABLE: Final = """
CREATE TABLE IF NOT EXISTS longshore_idempotency (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    owner TEXT,
    ends_at REAL NOT NULL
)
"""
"""With row ids, so that what is begun together lies together, and finishing it writes one page instead of one for each."""


class SqliteStore:
    """One connection in one thread; calls that come while a transaction is under way share the next.

    The clock is the machine's: all who share the file run on it. A power cut may lose the last moments (WAL,
    `synchronous=NORMAL`), the death of a process loses nothing.
    """

    def __init__(self, path: Path, *, retention_seconds: float) -> None:
        self._path = path
        self._retention_seconds = retention_seconds
        self._thread = ThreadPoolExecutor(1, "longshore-idempotency")
        self._connection: sqlite3.Connection | None = None
        self._works: Together[Callable[[], object], object] = Together(self._transact, "idempotency-sqlite")
        self._pruned_to = ""
        self._is_closed = False

    async def open(self) -> None:
        """Open the file, and make it and its folder where there is none."""
        await self._run(lambda: None)

    async def is_made(self) -> bool:
        """Look into the file, if there is one."""
        return self._path.exists() and await asyncio.to_thread(self._look)

    async def close(self) -> None:
        """Close the file; waits for the transaction that is under way."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown(wait=False)

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        """Mark as in progress what is free."""
        return await self._run(lambda: self._begin(marks))

    async def finish(self, marks: Sequence[Mark]) -> None:
        """Mark as done."""
        now = time.time()
        await self._many(
            "INSERT INTO longshore_idempotency VALUES (?, ?, NULL, ?) ON CONFLICT (key) DO UPDATE SET "
            "fingerprint = excluded.fingerprint, owner = NULL, ends_at = excluded.ends_at",
            [(mark.key, mark.fingerprint, now + self._retention_seconds) for mark in marks],
        )

    async def release(self, marks: Sequence[Mark]) -> None:
        """Free the keys."""
        await self._many(
            "DELETE FROM longshore_idempotency WHERE key = ? AND owner = ?", [(mark.key, mark.owner) for mark in marks]
        )

    async def renew(self, marks: Sequence[Mark]) -> None:
        """Push the ends back."""
        now = time.time()
        await self._many(
            "UPDATE longshore_idempotency SET ends_at = ? WHERE key = ? AND owner = ?",
            [(now + mark.seconds, mark.key, mark.owner) for mark in marks],
        )

    async def prune(self) -> int:
        """Forget what has ended, in transactions that nobody has to wait for."""
        total, stops_at = 0, time.monotonic() + PRUNE_SECONDS
        while time.monotonic() < stops_at:
            total += await self._run(self._prune)
            if not self._pruned_to:
                break
        return total

    async def doubts(self) -> list[str]:
        """Have none."""
        return []

    def _begin(self, marks: Sequence[Mark]) -> list[Answer]:
        connection, now = self._connected(), time.time()
        rows = [(mark.key, mark.fingerprint, mark.owner, now + mark.seconds) for mark in marks]
        new = connection.executemany("INSERT INTO longshore_idempotency VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)  # fmt: skip
        if new.rowcount == len(marks):
            return [Begun()] * len(marks)
        answers = list[Answer]()
        for mark, row in zip(marks, rows, strict=True):
            found = connection.execute(
                "SELECT fingerprint, owner, ends_at FROM longshore_idempotency WHERE key = ?", (mark.key,)
            ).fetchone()
            answer = answer_to(mark, Row(*found), now)
            if isinstance(answer, Begun):  # it may stand there already, or be one that has ended
                connection.execute("REPLACE INTO longshore_idempotency VALUES (?, ?, ?, ?)", row)
            answers.append(answer)
        return answers

    def _prune(self) -> int:
        """Forget what has ended in the next portion, by key: there is no index by time that every mark would have to keep."""
        connection, after = self._connected(), self._pruned_to
        ((self._pruned_to,),) = connection.execute(
            "SELECT coalesce(max(key), '') FROM "
            "(SELECT key FROM longshore_idempotency WHERE key > ? ORDER BY key LIMIT ?)",
            (after, PORTION),
        )
        return connection.execute(
            "DELETE FROM longshore_idempotency WHERE key > ? AND key <= ? AND ends_at <= ?",
            (after, self._pruned_to, time.time()),
        ).rowcount  # fmt: skip

    async def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        await self._run(lambda: self._connected().executemany(statement, rows))

    async def _run(self, work: Callable[[], R]) -> R:
        return cast("R", await self._works.submit(work))

    async def _transact(self, works: Sequence[Callable[[], object]]) -> Sequence[object]:
        if self._is_closed:
            raise StoreError(f"the file {self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._in_transaction, works)

    def _in_transaction(self, works: Sequence[Callable[[], object]]) -> Sequence[object]:
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                results = [work() for work in works]
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
        except (sqlite3.Error, OSError) as error:
            self._disconnect()  # a file that was replaced or locked is opened anew
            raise self._failure(error) from error
        return results

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        self._version(connection)
        connection.execute(TABLE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _look(self) -> bool:
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                return self._version(connection) == VERSION
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return what the file was written by, 0 where nothing was; raise `ConfigError` when that was another version."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in {0, VERSION}:
            raise ConfigError(
                f"the idempotency store {self._path} has version {version}, but this release reads {VERSION}: "
                f"run the release that wrote it, or name another file"
            )
        return int(version)

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"the file {self._path} cannot be used ({error})")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
