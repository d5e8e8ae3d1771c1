"""`migrate`: the tables of inbox and outbox come into a database of yours."""

from worker.sql import tables
from worker.sql.database import open_database

__all__ = ["migrate"]


async def migrate(url: str) -> None:
    """Make the tables of inbox and outbox at `sqlite:///FILE` or `postgresql://...`, or bring them to this version.

    It does what `longshore database migrate` does, for lifespans and tests; the file of a SQLite database is made, too.
    Of several workers that begin together one makes them, and the others wait.
    Raises `UsageError` when the database cannot be opened, or is of a newer Longshore.
    """
    async with open_database(url, create=True) as database:
        await tables.migrate(database)
