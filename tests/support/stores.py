"""The stores of idempotency marks that one suite is run on, each empty and of its own for every test."""

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from redis import asyncio as redis
from support.postgres import Postgres
from support.redis import Redis

from worker.aws.session import AwsClients
from worker.idempotency import MemoryStore, Store, StoreError, open_store
from worker.idempotency.dynamodb import VERSION_KEY
from worker.idempotency.redis import PREFIX
from worker.local import EmbeddedAws

__all__ = ["STORES", "OpenAgain", "Server", "marks_at", "opener", "server_of", "url_of"]

RETENTION_SECONDS: Final = 3600
STORES: Final = (
    pytest.param("memory"),
    pytest.param("sqlite"),
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("dynamodb", marks=pytest.mark.integration),
)

Server = Path | Postgres | Redis | EmbeddedAws | None
"""Where a store keeps its marks; `None` is this process."""
OpenAgain = Callable[[], Awaitable[Store]]
"""Opens the same store once more, as another process would."""


def server_of(kind: str, request: pytest.FixtureRequest) -> Server:
    """Return what stores of the kind need; asked for outside of an event loop, since some have one of their own."""
    fixture = {"sqlite": "tmp_path", "postgresql": "postgres", "redis": "redis", "dynamodb": "embedded_aws"}.get(kind)
    server: Server = None if fixture is None else request.getfixturevalue(fixture)
    return server


async def opener(server: Server, stack: AsyncExitStack, url: str | None = None) -> OpenAgain:
    """Return what opens one store there, an empty one without `url`; it is closed with the stack."""
    if server is None:
        memory = MemoryStore(retention_seconds=RETENTION_SECONDS)
        return lambda: _itself(memory)
    dynamodb = None
    if isinstance(server, EmbeddedAws):
        dynamodb = (await stack.enter_async_context(AwsClients(server.access))).dynamodb
    place = url or await url_of(server)

    async def open_again() -> Store:
        store = open_store(place, retention_seconds=RETENTION_SECONDS, dynamodb=dynamodb)
        stack.push_async_callback(store.close)
        with suppress(StoreError):  # DynamoDB takes a moment to make a table
            await store.open()
        await store.open()
        return store

    return open_again


async def _itself(store: Store) -> Store:
    await asyncio.sleep(0)
    return store


async def url_of(server: Server) -> str:
    """Return the address of an empty store of its own."""
    if isinstance(server, Postgres):
        return await server.make_database()
    if isinstance(server, Redis):
        return server.make_database()
    if isinstance(server, EmbeddedAws):
        return f"dynamodb://marks-{uuid.uuid4().hex[:8]}"
    return f"sqlite:///{server}/marks/idempotency.sqlite"


async def marks_at(server: Server, url: str) -> tuple[int, int]:
    """Ask the store itself, without Longshore: how many marks are in progress, ended or not, and how many are done."""
    if isinstance(server, Postgres):
        return _told_apart(await _owners_in_postgresql(url))
    if isinstance(server, Redis):
        return _told_apart(await _owners_in_redis(url))
    if isinstance(server, EmbeddedAws):
        return _told_apart(await _owners_in_dynamodb(server, url.removeprefix("dynamodb://")))
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return _told_apart([owner for (owner,) in connection.execute("SELECT owner FROM longshore_idempotency")])


def _told_apart(owners: Sequence[str | None]) -> tuple[int, int]:
    done = sum(owner is None for owner in owners)
    return len(owners) - done, done


async def _owners_in_postgresql(url: str) -> list[str | None]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch("SELECT owner FROM longshore_idempotency")]
    finally:
        await connection.close()


async def _owners_in_redis(url: str) -> list[str | None]:
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    try:
        names = [name async for name in client.scan_iter(match=f"{PREFIX}*:*", count=1000)]
        return [kept.partition(":")[2] or None for kept in await client.mget(names) if kept is not None]
    finally:
        await client.aclose()


async def _owners_in_dynamodb(server: EmbeddedAws, table: str) -> list[str | None]:
    owners: list[str | None] = []
    async with AwsClients(server.access) as clients:
        page: dict[str, Any] = {}
        while True:
            answer = await clients.dynamodb.call("scan", TableName=table, **page)
            items = [item for item in answer["Items"] if item["key"]["S"] != VERSION_KEY]
            owners += [item["owner"]["S"] if "owner" in item else None for item in items]
            if "LastEvaluatedKey" not in answer:
                return owners
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
