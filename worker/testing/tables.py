"""`migrate`: the tables of inbox and outbox, for tests of handlers that use them."""

from worker.sql.database import open_database
from worker.sql.tables import migrate as migrate_database

__all__ = ["migrate"]


async def migrate(url: str) -> None:
    """Do what `longshore database migrate --database URL` does; the file of a SQLite database is made, too."""
    async with open_database(url, create=True) as database:
        await migrate_database(database)
