"""`longshore database migrate|schema|prune`: the tables of inbox and outbox in a database of yours."""

from enum import StrEnum
from typing import Annotated, Final

import typer

__all__ = ["DatabaseOption", "database"]

KEEP_DAYS: Final = 14
MAX_DAYS: Final = 3650

DatabaseOption = Annotated[
    str,
    typer.Option(
        "--database", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/NAME; $PGPASSWORD is heeded."
    ),
]

database = typer.Typer(
    name="database", help="The tables of inbox and outbox.", no_args_is_help=True, rich_markup_mode=None
)


class Dialect(StrEnum):
    """The databases that there are tables for."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


@database.command()
def migrate(database: DatabaseOption) -> None:
    """Create the tables, or bring them to this version.

    One transaction; what is there already stays, and whoever comes second waits. Run it before the workers that want it.
    """
    import asyncio

    from worker.sql.database import open_database
    from worker.sql.tables import migrate

    async def work() -> str:
        async with open_database(database, create=True) as opened:
            before, after = await migrate(opened)
            if before == after:
                return f"{opened.name}: the tables are of version {after} already"
            return f"{opened.name}: {'created the tables' if not before else f'from version {before}'}, now of version {after}"

    typer.echo(asyncio.run(work()))


@database.command()
def schema(
    dialect: Annotated[Dialect, typer.Option("--dialect", help="Of which database.")] = Dialect.POSTGRESQL,
) -> None:
    """Print the statements of `migrate`, for migrations of your own."""
    from worker.sql.tables import statements

    for text in statements(dialect):
        typer.echo(f"{text};")


@database.command()
def prune(
    database: DatabaseOption,
    days: Annotated[int, typer.Option("--days", min=KEEP_DAYS, max=MAX_DAYS, help="Keep so many.")] = KEEP_DAYS,
) -> None:
    """Delete the marks and the sent events that are older.

    No message is older than fourteen days, so no mark is missed. The relay does it once an hour; without one, do it by cron.
    """
    import asyncio

    from worker.sql.database import open_database
    from worker.sql.tables import prune, require_tables

    async def work() -> str:
        async with open_database(database) as opened:
            await require_tables(opened)
            marks, events = await prune(opened, days)
            return f"{opened.name}: deleted {marks:,} marks and {events:,} sent events of {days} days ago and before"

    typer.echo(asyncio.run(work()))
