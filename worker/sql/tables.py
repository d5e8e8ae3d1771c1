"""The tables of inbox and outbox: what they are, how they come into a database, and how they stay small."""

from typing import Final

from worker.errors import UsageError
from worker.sql.connection import Statement
from worker.sql.database import Database
from worker.sql.steps import Steps

__all__ = ["KEEP_DAYS", "VERSION", "migrate", "prune", "require_tables", "statements"]

VERSION: Final = 1
KEEP_DAYS: Final = 14
"""SQS keeps a message for at most fourteen days (SQS quotas), so an older mark meets no second delivery of its message."""

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS longshore_schema (version INTEGER NOT NULL PRIMARY KEY)"
_VERSION: Final = Statement("SELECT max(version) FROM longshore_schema")
_ONE_MIGRATES: Final = Statement("SELECT pg_advisory_xact_lock(7310582)")

_STEPS: Final = {
    1: (
        """CREATE TABLE longshore_inbox (
    queue TEXT NOT NULL,
    event_type TEXT NOT NULL,
    key TEXT NOT NULL,
    message_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    handled_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (queue, event_type, key)
)""",
        "CREATE INDEX longshore_inbox_handled_at ON longshore_inbox (handled_at)",
        """CREATE TABLE longshore_outbox (
    id {number},
    topic TEXT NOT NULL,
    event_type TEXT NOT NULL,
    body TEXT NOT NULL,
    attributes TEXT NOT NULL,
    group_id TEXT,
    deduplication_id TEXT,
    stored_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    sent_at {time},
    refused_at {time},
    refusal TEXT
)""",
        "CREATE INDEX longshore_outbox_unsent ON longshore_outbox (topic, group_id, id) WHERE sent_at IS NULL AND refused_at IS NULL",
        "CREATE INDEX longshore_outbox_sent_at ON longshore_outbox (sent_at) WHERE sent_at IS NOT NULL",
    ),
}
"""What each version adds to the one before it."""
_TYPES: Final = {
    "postgresql": {"time": "TIMESTAMPTZ", "number": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"},
    "sqlite": {"time": "TEXT", "number": "INTEGER PRIMARY KEY AUTOINCREMENT"},
}
_HAS_SCHEMA: Final = {
    "postgresql": "SELECT 1 WHERE to_regclass('longshore_schema') IS NOT NULL",
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'longshore_schema'",
}
_BEFORE: Final = {
    "postgresql": "CURRENT_TIMESTAMP - make_interval(days => {days})",
    "sqlite": "datetime('now', '-{days} days')",
}


def statements(dialect: str, *, since: int = 0) -> list[str]:
    """Return the statements that bring a `postgresql` or `sqlite` database from a version to the newest."""
    made = [text.format(**_TYPES[dialect]) for number in range(since + 1, VERSION + 1) for text in _STEPS[number]]
    versions = [f"INSERT INTO longshore_schema (version) VALUES ({number})" for number in range(since + 1, VERSION + 1)]  # noqa: S608 - a number of ours
    return [_SCHEMA, *made, *versions]


async def migrate(database: Database) -> tuple[int, int]:
    """Create the tables, or bring them to the newest version; return the version before, 0 for none, and after.

    It is one transaction, and who comes second waits. Raises `UsageError` when they are newer than this Longshore.
    """
    return await database.transact(_migrate(database)), VERSION


async def require_tables(database: Database) -> None:
    """Raise `UsageError`, one sentence, unless the tables are there and of this version."""
    found = await database.transact(_found(database.dialect))
    _refuse_newer(found, database.name)
    if found < VERSION:
        has = f"has Longshore's tables of version {found}" if found else "has no tables of Longshore's"
        raise UsageError(
            f"the database {database.name} {has}, and version {VERSION} is wanted: run `longshore database migrate`"
        )


async def prune(database: Database, days: int = KEEP_DAYS) -> tuple[int, int]:
    """Delete the marks of what was handled, and the events that were sent, `days` ago and before; return how many of each."""
    before = _BEFORE[database.dialect].format(days=int(days))
    marks = await database.transact(_prune("inbox", "handled_at", before))
    return marks, await database.transact(_prune("outbox", "sent_at", before))


def _migrate(database: Database) -> Steps[int]:
    if database.dialect == "postgresql":
        yield _ONE_MIGRATES
    yield Statement(_SCHEMA)
    found = yield from _version()
    _refuse_newer(found, database.name)
    if found < VERSION:
        for text in statements(database.dialect, since=found):
            yield Statement(text)
    return found


def _found(dialect: str) -> Steps[int]:
    has_schema = yield Statement(_HAS_SCHEMA[dialect])
    return (yield from _version()) if has_schema else 0


def _version() -> Steps[int]:
    rows = yield _VERSION
    return int(rows[0][0] or 0)


def _prune(table: str, column: str, before: str) -> Steps[int]:
    rows = yield Statement(f"DELETE FROM longshore_{table} WHERE {column} < {before} RETURNING 1")  # noqa: S608 - names and a number of ours
    return len(rows)


def _refuse_newer(found: int, name: str) -> None:
    if found > VERSION:
        raise UsageError(
            f"the database {name} has Longshore's tables of version {found}, and this Longshore knows {VERSION}: upgrade it"
        )
