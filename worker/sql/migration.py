"""`migrate`: the tables of inbox and outbox come into a database of yours."""

from worker.sql import tables
from worker.sql.database import open_database

__all__ = ["migrate"]


async def migrate(url: str) -> None:
    """Make the tables of inbox and outbox at `sqlite:///FILE` or `postgresql://...`, or bring them to this version.

    It does what `longshore database migrate` does, for lifespans and tests; the file of a SQLite database is made, too.
    Of several workers that begin together one makes them, and the others wait.
    Raises `UsageError` for an address that is none, or tables of a newer Longshore, and another `LongshoreError` when the
    database does not answer or does not allow it.
    """
    async with open_database(url, create=True) as database:
        await tables.migrate(database)
