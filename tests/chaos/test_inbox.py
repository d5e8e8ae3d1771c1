"""A worker that stood still cannot commit late (I3): real workers, real signals."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from support.inbox import effects, marks, prepare
from support.postgres import Postgres
from support.shop import Shop, Worker

pytestmark = pytest.mark.integration

HANDLERS = """
import asyncio, os, signal, sqlite3
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from worker import Message, Router

router = Router()
URL = os.environ["EFFECTS_DATABASE"]
LEDGER = os.open("ledger.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(verb: str, message: Message[Any]) -> None:
    os.write(LEDGER, f"{verb} {message.event['n']} {os.getpid()} {message.receive_count}\\n".encode())

def at(point: str, message: Message[Any]) -> None:
    if message.event.get("stops") == point and message.receive_count == 1:
        note("stop", message)
        os.kill(os.getpid(), signal.SIGSTOP)

@asynccontextmanager
async def transaction():
    if URL.startswith("sqlite"):
        connection = sqlite3.connect(URL.removeprefix("sqlite:///"), timeout=0.5)
        try:
            with connection:
                yield connection, connection.execute
        finally:
            connection.close()
        return
    connection = await asyncpg.connect(URL)
    try:
        async with connection.transaction():
            yield connection, connection.execute
    finally:
        connection.terminate()

async def do(execute, sql: str) -> None:
    done = execute(sql)
    if asyncio.iscoroutine(done):
        await done

@router.on("*")
async def handle(message: Message[dict[str, Any]]) -> None:
    note("start", message)
    try:
        at("before", message)
        async with transaction() as (connection, execute):
            async with message.once(connection, key=message.event["n"]) as first:
                if first:
                    await do(execute, f"INSERT INTO effects (n) VALUES ({message.event['n']})")
                at("inside", message)
            at("committing", message)
    except BaseException as error:
        note(f"refused:{type(error).__name__}", message)
        raise
    note("end", message)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'effects.sqlite'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.make_database()
    await prepare(url)
    return url


def configure(shop: Shop, url: str, **settings: Any) -> None:
    patient = {"visibility_timeout_seconds": 2, "wait_time_seconds": 1, "attempts": 100, "breaker": "none"}
    shop.configure(**{**patient, **settings})
    (shop.folder / "shop_handlers.py").write_text(HANDLERS)
    shop.environment["EFFECTS_DATABASE"] = url


def notes(shop: Shop) -> list[list[str]]:
    ledger = shop.folder / "ledger.txt"
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


def noted(shop: Shop, verb: str, worker: Worker) -> bool:
    return any(note[0].startswith(verb) and int(note[2]) == worker.process.pid for note in notes(shop))


@pytest.mark.parametrize("point", ["before", "inside"])
async def test_a_worker_that_stood_still_beyond_its_lease_commits_nothing(shop: Shop, url: str, point: str) -> None:
    """Its message is another's by then, whose commit stands: before its mark, and between mark and fence (I3)."""
    await stand_still(shop, url, point)


@pytest.mark.postgres
async def test_a_commit_that_comes_after_the_lease_is_refused_by_the_server(shop: Shop, postgres: Postgres) -> None:
    """Between fence and commit nobody can look any more but PostgreSQL (I3)."""
    url = await postgres.make_database()
    await prepare(url)
    await stand_still(shop, url, "committing")


async def test_who_waits_for_the_file_of_one_that_stands_still_spends_no_attempt(shop: Shop, tmp_path: Path) -> None:
    """On SQLite a worker that is stopped inside its transaction is in everybody's way, and nobody's failure (I2)."""
    url = f"sqlite:///{tmp_path / 'effects.sqlite'}"
    await prepare(url)
    configure(shop, url, concurrency=1, attempts=1)
    await shop.send(1, stops="inside")
    old = await shop.start()
    await shop.until(lambda: noted(shop, "stop", old))
    new = await shop.start()
    await shop.send_bodies(['{"n": 1}'])
    await shop.until(lambda: noted(shop, "start", new))
    await asyncio.sleep(4)  # longer than its connection waits, and than its lease is if it is not extended
    assert not noted(shop, "refused", new)
    old.process.send_signal(signal.SIGCONT)
    await shop.until(shop.is_drained)
    assert await effects(url) == [0, 1]
    assert (await shop.dead_letters.depth()).visible == 0
    assert "another transaction keeps the SQLite file" in new.output
    assert await new.terminate() == 0
    assert await old.terminate() == 0


async def stand_still(shop: Shop, url: str, point: str) -> None:
    """Let one worker stand still at a point of its work until another has the message, and then go on."""
    configure(shop, url, concurrency=1)
    await shop.send(1, stops=point)
    old = await shop.start()
    await shop.until(lambda: noted(shop, "stop", old))
    new = await shop.start()
    await shop.until(lambda: noted(shop, "start", new))
    if point != "inside":  # there its open transaction keeps the other one waiting
        await shop.until(lambda: noted(shop, "end", new))
        assert await effects(url) == [0]
    old.process.send_signal(signal.SIGCONT)
    await shop.until(lambda: noted(shop, "refused", old))
    await shop.until(shop.is_drained)
    assert noted(shop, "end", new)
    assert not noted(shop, "end", old)
    assert await effects(url) == [0]
    ((*_, generation),) = await marks(url)
    assert generation > 1
    assert await new.terminate() == 0
    assert await old.terminate() == 0
