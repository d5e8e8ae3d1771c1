"""What a real database says of a row that it refuses: in no log line and in no dead letter are the row's values (M3)."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from support.postgres import Postgres

from worker import Message, Router
from worker.telemetry import logs
from worker.testing import Fleet, MemorySource

pytestmark = pytest.mark.postgres

CARD = "4111111111111111"
TABLE = "CREATE TABLE cards (number text PRIMARY KEY, cents integer)"

Work = Callable[[str], Awaitable[None]]


async def through_asyncpg(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for _ in range(2):
            await connection.execute("INSERT INTO cards VALUES ($1, 1)", CARD)
    finally:
        await connection.close()


@asynccontextmanager
async def sqlalchemy_on(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def through_sqlalchemy(url: str) -> None:
    async with sqlalchemy_on(url) as connection:
        for _ in range(2):
            await connection.execute(text("INSERT INTO cards VALUES (:number, 1)"), {"number": CARD})


async def of_another_type(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SELECT '{CARD}'::integer")
    finally:
        await connection.close()


async def unfit_for_the_driver(url: str) -> None:
    async with sqlalchemy_on(url) as connection:
        await connection.execute(text("INSERT INTO cards VALUES ('1', :cents)"), {"cents": CARD})


@pytest.fixture
def written() -> Iterator[io.BytesIO]:
    """What is logged, as a worker writes it."""
    stream = io.BytesIO()
    logs.configure("json", "info", stream)
    yield stream
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (through_asyncpg, "UniqueViolationError: 23505: duplicate key value violates unique constraint"),
        (through_sqlalchemy, "IntegrityError: UniqueViolationError 23505: duplicate key value violates unique"),
        (of_another_type, "NumericValueOutOfRangeError: 22003"),
        (unfit_for_the_driver, "DBAPIError: DataError"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
async def test_no_value_of_a_refused_row_is_written_anywhere(
    postgres: Postgres, written: io.BytesIO, work: Work, told: str
) -> None:
    url = await postgres.make_database()
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    await connection.close()
    source, router = MemorySource(), Router()

    @router.on("*")
    async def handle(_: Message[Any]) -> None:
        await work(url)

    source.send("{}", attributes={"event_type": "card.added"})
    await Fleet(source, attempts=1, wait_time_seconds=1).run(router)
    (letter,) = source.dead_letters
    reason = str(letter.attributes["longshore.dead_letter"].value)
    assert told in reason
    assert CARD not in reason
    lines = written.getvalue().decode()
    assert '"dead letter"' in lines
    assert CARD not in lines
