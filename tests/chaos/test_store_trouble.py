"""A worker whose idempotency store cannot be used: what may heal is named and waited for, the rest is refused (I1, X1)."""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.command import longshore, mistake
from support.postgres import Postgres
from support.proxy import BadRoad
from support.redis import Redis
from support.shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("embedded_aws")]


async def test_a_store_of_another_version_ends_the_worker_with_a_sentence(shop: Shop, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "marks.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    shop.configure(router="once", process="idempotency: {store: 'sqlite:///marks.sqlite'}")
    ended = await asyncio.to_thread(longshore, "run", folder=tmp_path, environment=shop.environment)
    assert "the idempotency store marks.sqlite has version 7, but this release reads 1" in ended.stderr
    assert ended.returncode == 2


async def test_a_key_without_a_store_is_refused_by_name(shop: Shop, tmp_path: Path) -> None:
    shop.configure(router="once")
    ended = await asyncio.to_thread(longshore, "config", "check", folder=tmp_path, environment=shop.environment)
    assert "handle_once` (shop_handlers.py:" in mistake(ended)
    assert "has an idempotency_key, but the fleet has no store for it: set idempotency.store" in mistake(ended)


async def test_a_store_that_is_not_there_yet_is_named_and_waited_for(shop: Shop) -> None:
    """The worker runs, is not ready, receives nothing; nobody sees the password."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = f"redis://:secret@127.0.0.1:{port}/0"
    shop.configure(router="once", wait_time_seconds=1)
    await shop.send(3)
    worker = await shop.start()

    async def is_named() -> bool:
        status, said = await worker.readiness()
        return status == 503 and "the idempotency store does not answer: redis://***@127.0.0.1" in str(said)

    await shop.until(is_named)
    assert (await shop.depth()).visible == 3
    assert await worker.terminate() == 0
    assert "secret" not in worker.output


@asynccontextmanager
async def store_of_its_own(kind: str, shop: Shop) -> AsyncIterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Give the shop a store that nobody else uses, and yield what takes it away and what brings it back."""
    if kind == "dynamodb":
        async with BadRoad(shop.environment["AWS_ENDPOINT_URL"]) as road:
            shop.environment["AWS_ENDPOINT_URL_DYNAMODB"] = road.url
            shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = f"dynamodb://{shop.queue}"
            yield road.go_dark, road.light_up
    else:
        with Redis() if kind == "redis" else Postgres() as server:
            url = server.make_database() if isinstance(server, Redis) else await server.make_database()
            shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = url
            yield server.stop, server.start


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgresql", marks=pytest.mark.postgres),
        "dynamodb",
    ],
)
async def test_a_store_that_dies_and_comes_back_loses_nothing(shop: Shop, kind: str) -> None:
    """What could not be marked is retried or held, and done once the store is back (I1, P1)."""
    async with store_of_its_own(kind, shop) as (stop, start):
        shop.configure(
            router="once",
            concurrency=5,
            wait_time_seconds=1,
            visibility_timeout_seconds=10,
            attempts=2,
            retry={"base_seconds": 1, "max_seconds": 1},
            breaker={"pause_seconds": 1},
        )
        worker = await shop.start()
        await shop.send(1)
        await shop.until(shop.is_drained)
        stop()
        await shop.send_bodies([f'{{"n": {n}}}' for n in range(1, 21)])

        async def is_named() -> bool:
            status, said = await worker.readiness()
            return status == 503 and "the idempotency store does not answer" in str(said)

        await shop.until(is_named)
        start()
        await shop.until(shop.is_drained)
        assert shop.handled == dict.fromkeys(range(21), 1)
        assert (await shop.dead_letters.depth()).visible == 0
        assert await worker.terminate() == 0
        assert "Traceback" not in worker.output


@pytest.mark.redis
async def test_nothing_is_done_twice_while_a_store_stands_still(shop: Shop) -> None:
    """For longer than marks last, with two workers, and everything delivered twice: work that ran, that was done, and that was about to begin (I1)."""
    with Redis() as redis:
        shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = redis.make_database()
        shop.configure(router="once", concurrency=10, wait_time_seconds=1, visibility_timeout_seconds=6, attempts=2)
        for _ in range(2):
            await shop.start()
        long, short = ('{"n": 1000, "seconds": 18}', [f'{{"n": {n}, "seconds": 0.05}}' for n in range(300)])
        await shop.send_bodies([long])
        await shop.until(lambda: shop.started[1000] == 1)
        await shop.send_bodies([body for body in short for _ in range(2)])
        await shop.until(lambda: shop.handled.total() >= 20)
        redis.pause()
        await shop.send_bodies([long])
        await asyncio.sleep(12)
        redis.resume()
        await shop.until(shop.is_drained, seconds=120)
        assert shop.handled == dict.fromkeys([*range(300), 1000], 1)
        assert (await shop.dead_letters.depth()).visible == 0


@pytest.mark.postgres
async def test_a_table_that_somebody_drops_is_made_again(shop: Shop, postgres: Postgres) -> None:
    """Messages wait for it and are done, and the worker is ready again without a restart (I1, P1)."""
    url = await postgres.make_database()
    shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = url
    shop.configure(router="once", wait_time_seconds=1, visibility_timeout_seconds=6, breaker={"pause_seconds": 1})
    worker = await shop.start()
    await shop.send(1)
    await shop.until(shop.is_drained)
    connection = await postgres.connect(url.rpartition("/")[2])
    await connection.execute("DROP TABLE longshore_idempotency")
    await connection.close()
    await shop.send_bodies([f'{{"n": {n}}}' for n in range(1, 6)])

    async def is_ready() -> bool:
        return (await worker.readiness())[0] == 200

    await shop.until(lambda: len(shop.handled) == 6)
    await shop.until(is_ready)
    assert shop.handled == dict.fromkeys(range(6), 1)
    assert (await shop.dead_letters.depth()).visible == 0
    assert await worker.terminate() == 0
    assert "Traceback" not in worker.output


@pytest.mark.redis
async def test_a_worker_with_nothing_to_do_sees_that_its_store_is_back(shop: Shop) -> None:
    """It was told so by a message that waits for its mark; no other one has to come before it is ready again (I1)."""
    with Redis() as redis:
        shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = redis.make_database()
        shop.configure(router="once", wait_time_seconds=1, visibility_timeout_seconds=3)
        worker = await shop.start()
        await shop.send(1, seconds=2)
        await shop.until(lambda: shop.started == {0: 1})
        redis.stop()

        async def is_not_ready() -> bool:
            return (await worker.readiness())[0] == 503

        async def is_ready() -> bool:
            return (await worker.readiness())[0] == 200

        await shop.until(is_not_ready)
        assert not await shop.is_drained()
        redis.start()
        await shop.until(is_ready)
        await shop.until(shop.is_drained)
        assert shop.handled == {0: 1}
        assert await worker.terminate() == 0
