"""The relays of a process, on SQLite and, when asked for, on PostgreSQL: they start with it, end after it, and stand in for each other."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.inbox import execute, prepare, transaction
from support.postgres import Postgres

from worker import UsageError, outbox
from worker.errors import EntryError, Fault
from worker.fleet import relays
from worker.fleet.relays import Relays, open_relays
from worker.outbox import serving
from worker.outbox.store import OtherRelayError, sole_relay
from worker.publisher.topic import Publication
from worker.settings import FleetSettings
from worker.sql.database import UnreachableError, open_database
from worker.telemetry.metrics import Metrics
from worker.testing import MemoryTopic

pytestmark = pytest.mark.integration

TOPIC = "payments.fifo"
AN_HOUR_AGO = {
    "sqlite": "UPDATE longshore_outbox SET stored_at = datetime('now', '-1 hour')",
    "postgresql": "UPDATE longshore_outbox SET stored_at = now() - interval '1 hour'",
}


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for seconds in production waits for a moment here."""
    for name in ("AGAIN_SECONDS", "STAND_BY_SECONDS", "LASTING_SECONDS"):
        monkeypatch.setattr(serving, name, 0.05)
    monkeypatch.setattr(relays, "PATIENCE_SECONDS", 0.0)


@asynccontextmanager
async def running(url: str, topic: MemoryTopic, metrics: Metrics | None = None) -> AsyncIterator[Relays]:
    settings = FleetSettings.model_validate(
        {
            "topics": {TOPIC: {}},
            "queues": {"orders": {"handlers": "shop:router"}},
            "outbox": {"database": url, "topics": [TOPIC]},
        }
    )
    async with open_relays(settings, lambda _: topic, metrics or Metrics()) as opened:
        yield opened


async def store(url: str, *numbers: int) -> None:
    async with transaction("sqlite3" if url.startswith("sqlite") else "asyncpg", url) as (connection, _):
        for number in numbers:
            await outbox.publish(connection, "order.paid", {"n": number}, topic=TOPIC, group_id="a", key=f"k{number}")


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; the bound only ends a broken test."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is nobody's event
            await asyncio.sleep(0.01)


def sent(topic: MemoryTopic) -> list[int]:
    return [payload["n"] for _, payload in topic.published]


async def unsent(url: str) -> int:
    ((count,),) = await execute(url, "SELECT count(*) FROM longshore_outbox WHERE sent_at IS NULL")
    return int(count)


async def test_what_is_stored_is_sent_and_counted(orders_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await prepare(orders_url)
    monkeypatch.setattr(serving, "COUNT_SECONDS", 0)
    topic, metrics = MemoryTopic(TOPIC), Metrics()
    async with running(orders_url, topic, metrics) as opened:
        await store(orders_url, 1, 2)
        await until(lambda: len(topic.publications) == 2)
        await until(lambda: metrics.outboxes()[TOPIC]["waiting"] == 0)
        assert metrics.outboxes()[TOPIC] == {"sent": 2, "refused": 0, "waiting": 0, "oldest_seconds": 0}
        assert opened.problems() == []
        topic.fail(Fault.THROTTLED, calls=1_000_000)
        await store(orders_url, 3)
        await execute(orders_url, AN_HOUR_AGO["sqlite" if orders_url.startswith("sqlite") else "postgresql"])
        await until(lambda: 3590 < (metrics.outboxes()[TOPIC]["oldest_seconds"] or 0) < 3700)
        assert metrics.outboxes()[TOPIC]["waiting"] == 1
        await until(lambda: bool(opened.problems()))
        assert opened.problems()[0].startswith(f"outbox {TOPIC}: order.paid was not confirmed by {TOPIC}: ")
    assert b'longshore_outbox_sent_total{topic="payments.fifo"} 2.0' in metrics.render()[0]


async def test_what_was_stored_last_is_sent_before_the_end(orders_url: str) -> None:
    """In the drain: whatever handlers stored until then (L7, I4)."""
    await prepare(orders_url)
    topic = MemoryTopic(TOPIC)
    async with running(orders_url, topic) as opened:
        await store(orders_url, *range(150))  # more than one step takes
        await opened.drain(asyncio.get_running_loop().time() + 30)
        assert sent(topic) == list(range(150))
    assert await unsent(orders_url) == 0


class Mute(MemoryTopic):
    """A topic whose SNS answers nobody."""

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        await asyncio.Event().wait()
        return await super().publish(publications)


async def test_what_does_not_make_it_stays_for_the_next(orders_url: str) -> None:
    """The drain's time is kept although SNS is dark; nothing is lost."""
    await prepare(orders_url)
    await store(orders_url, 1)
    loop = asyncio.get_running_loop()
    async with running(orders_url, Mute(TOPIC)) as opened:
        began_at = loop.time()
        await opened.drain(began_at + 1.2)
    assert loop.time() - began_at < 5
    assert await unsent(orders_url) == 1
    topic = MemoryTopic(TOPIC)
    async with running(orders_url, topic) as opened:
        await until(lambda: sent(topic) == [1])


class Held(MemoryTopic):
    """A topic whose SNS answers when it is let."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.is_called, self.may_answer = asyncio.Event(), asyncio.Event()

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        self.is_called.set()
        await self.may_answer.wait()
        return await super().publish(publications)


async def test_a_second_signal_sends_nothing_more(orders_url: str) -> None:
    """What is on the wire is noted still; what waits behind it stays for the next."""
    await prepare(orders_url)
    await store(orders_url, 1, 2, 3)
    topic = Held(TOPIC)
    async with running(orders_url, topic) as opened:
        await topic.is_called.wait()
        draining = asyncio.create_task(opened.drain(asyncio.get_running_loop().time() + 3600))
        await asyncio.sleep(0)
        opened.hasten()
        topic.may_answer.set()
        await draining
        assert sent(topic) == [1]
    assert await unsent(orders_url) == 2


async def test_on_sqlite_a_second_one_stands_by_and_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, refused, really = f"sqlite:///{tmp_path / 'orders.sqlite'}", list[str](), sole_relay

    @asynccontextmanager
    async def noted(url: str, topic: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(really(url, topic))
            except OtherRelayError as error:
                refused.append(str(error))
                raise
            yield

    monkeypatch.setattr(serving, "sole_relay", noted)
    await prepare(url)
    first, second = MemoryTopic(TOPIC), MemoryTopic(TOPIC)
    async with AsyncExitStack() as leading:
        await leading.enter_async_context(running(url, first))
        await store(url, 1)
        await until(lambda: sent(first) == [1])
        async with running(url, second) as standing_by:
            await until(lambda: len(refused) > 1)
            await store(url, 2)
            await until(lambda: sent(first) == [1, 2])
            assert standing_by.problems() == []
            await leading.aclose()
            await store(url, 3)
            await until(lambda: sent(second) == [3])
    assert sent(first) == [1, 2]


async def test_missing_tables_are_told_at_once(orders_url: str) -> None:
    await execute(orders_url, "SELECT 1")  # makes the file
    with pytest.raises(UsageError, match="has no tables of Longshore's, and version 1 is wanted"):
        async with running(orders_url, MemoryTopic(TOPIC)):
            pass


@pytest.mark.parametrize("url", ["postgresql://ann:secret@127.0.0.1:1/orders"])
async def test_a_database_that_is_away_is_waited_for(url: str) -> None:
    """The process starts, and says for which outbox it is not ready; no password is said."""
    async with running(url, MemoryTopic(TOPIC)) as opened:
        (problem,) = opened.problems()
        assert problem.startswith(f"outbox {TOPIC}: the database postgresql://127.0.0.1:1/orders cannot be opened")
        assert "secret" not in problem


async def test_a_database_that_comes_back_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready from then on, and what waited is sent."""
    url, is_away = f"sqlite:///{tmp_path / 'orders.sqlite'}", True
    await prepare(url)
    await store(url, 1)
    topic, metrics, really = MemoryTopic(TOPIC), Metrics(), open_database

    @asynccontextmanager
    async def opened_or_not(url: str, **options: Any) -> AsyncIterator[Any]:
        if is_away:
            raise UnreachableError("the database is away")
        async with really(url, **options) as database:
            yield database

    monkeypatch.setattr(serving, "open_database", opened_or_not)
    async with running(url, topic, metrics) as opened:
        assert opened.problems() == [f"outbox {TOPIC}: the database is away"]
        is_away = False
        await until(lambda: opened.problems() == [])
        await until(lambda: sent(topic) == [1])


@pytest.mark.postgres
async def test_a_database_that_hangs_is_told_of_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and answers none, as behind a dead disk or network; the time that it was asked counts."""
    monkeypatch.setattr(serving, "CALL_SECONDS", 2)
    monkeypatch.setattr(serving, "LASTING_SECONDS", 3)
    with Postgres() as server:
        url = await server.make_database()
        await prepare(url)
        topic = MemoryTopic(TOPIC)
        async with running(url, topic) as opened:
            await store(url, 1)
            await until(lambda: sent(topic) == [1])
            with server.hanging():
                began_at = time.monotonic()
                await until(lambda: bool(opened.problems()))
                assert 2 < time.monotonic() - began_at < 4.5
                assert "no answer in time" in opened.problems()[0]
            await until(lambda: opened.problems() == [])
            await store(url, 2)
            await until(lambda: sent(topic) == [1, 2])


async def test_a_relay_that_crashes_is_started_again(orders_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await prepare(orders_url)
    monkeypatch.setattr(relays, "RESTART_SECONDS", 0.05)
    crashes = iter([RuntimeError("a defect")])
    really = serving.Serving._send

    async def crashing(self: serving.Serving, database: Any) -> None:
        if (crash := next(crashes, None)) is not None:
            raise crash
        await really(self, database)

    monkeypatch.setattr(serving.Serving, "_send", crashing)
    topic = MemoryTopic(TOPIC)
    async with running(orders_url, topic):
        await store(orders_url, 1)
        await until(lambda: sent(topic) == [1])
