"""Handlers that commit through the inbox in every way that there is, on SQLite and PostgreSQL."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from inspect import isawaitable
from typing import Any

import asyncpg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from worker import Message
from worker.sql.database import open_database
from worker.sql.tables import migrate

__all__ = ["WAYS", "effect", "effects", "execute", "marks", "prepare", "transaction"]

WAYS = {
    "sqlite": ("sqlite3", "alchemy", "session"),
    "postgresql": ("asyncpg", "pool", "async-connection", "async-session"),
}


async def prepare(url: str) -> None:
    """Make the tables: Longshore's, and one for effects."""
    async with open_database(url, create=True) as database:
        await migrate(database)
    await execute(url, "CREATE TABLE effects (n INTEGER NOT NULL)")


async def effects(url: str) -> list[int]:
    """Return the effects that were committed."""
    return sorted(row[0] for row in await execute(url, "SELECT n FROM effects"))


async def marks(url: str) -> list[tuple[Any, ...]]:
    """Return the marks."""
    rows = await execute(url, "SELECT queue, event_type, key, message_id, generation FROM longshore_inbox")
    return sorted(tuple(row) for row in rows)


async def execute(url: str, sql: str) -> list[Any]:
    """Run a statement by itself and return its rows."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            found = connection.execute(sql).fetchall()
        connection.close()
        return found
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


@asynccontextmanager
async def effect(way: str, url: str, message: Message[Any], *, key: object = None) -> AsyncIterator[bool]:
    """Commit the effect of a message once; what is done inside comes after the effect and before the fence."""
    async with transaction(way, url) as (connection, execute), message.once(connection, key=key) as first:
        if first:
            done = execute("INSERT INTO effects (n) VALUES (7)")
            if isawaitable(done):
                await done
        yield first


@asynccontextmanager
async def transaction(way: str, url: str) -> AsyncIterator[tuple[Any, Callable[[str], Any]]]:
    """Open a connection and a transaction on it; yield it with what runs SQL there, perhaps as an awaitable."""
    async with AsyncExitStack() as stack:
        match way:
            case "sqlite3":
                connection: Any = stack.enter_context(closing(sqlite3.connect(url.removeprefix("sqlite:///"))))
                stack.enter_context(connection)
                yield connection, connection.execute
            case "alchemy" | "session":
                engine = create_engine(url)
                stack.callback(engine.dispose)
                connection = stack.enter_context(engine.connect() if way == "alchemy" else Session(engine))
                stack.enter_context(connection.begin())
                yield connection, lambda sql: connection.execute(text(sql))
            case "asyncpg" | "pool":
                pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=1, max_size=1))
                connection = await stack.enter_async_context(pool.acquire())
                if way == "asyncpg":
                    connection = await asyncpg.connect(url)
                    stack.push_async_callback(connection.close)
                await stack.enter_async_context(connection.transaction())
                yield connection, connection.execute
            case _:
                is_session = way == "async-session"
                many = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
                stack.push_async_callback(many.dispose)
                connection = await stack.enter_async_context(AsyncSession(many) if is_session else many.connect())
                await stack.enter_async_context(connection.begin())
                yield connection, lambda sql: connection.execute(text(sql))
