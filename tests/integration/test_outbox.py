"""The outbox and its relay (I4), on SQLite and, when asked for, on PostgreSQL: at least once, in order within each group."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.inbox import WAYS, execute, prepare, transaction
from support.postgres import Postgres

from worker import Publisher, PublishError, TransientError, UsageError, outbox
from worker.errors import EntryError, Fault
from worker.outbox.relay import Relay, Stop
from worker.outbox.serving import drain
from worker.outbox.store import Outbox, sole_relay
from worker.publisher import LargePayloads, Topic
from worker.publisher.topic import Publication
from worker.sql.database import Database, open_database
from worker.sql.steps import Steps
from worker.telemetry.metrics import OutboxMetrics
from worker.testing import MemoryObjects, MemoryTopic

pytestmark = pytest.mark.integration

FIFO = "payments.fifo"
T = TypeVar("T")


@pytest.fixture
async def url(orders_url: str) -> str:
    await prepare(orders_url)
    return orders_url


def a_way(url: str) -> str:
    return "sqlite3" if url.startswith("sqlite") else "asyncpg"


async def store(url: str, *events: tuple[str | None, int], topic: str = FIFO) -> None:
    """Store events, each a group and a number, in one transaction."""
    async with transaction(a_way(url), url) as (connection, _):
        for group, number in events:
            await outbox.publish(connection, "order.paid", {"n": number}, topic=topic, group_id=group, key=f"k{number}")


async def relay_once(url: str, topic: Topic, **settings: Any) -> int:
    publisher = Publisher(topic, **{"patience_seconds": 0, **settings})
    drained = await drain(url, publisher, topic=topic.name, stop=Stop())
    return drained.sent + drained.refused


@pytest.mark.parametrize(
    "way", [*WAYS["sqlite"], *(pytest.param(way, marks=pytest.mark.postgres) for way in WAYS["postgresql"])]
)
async def test_an_event_goes_out_with_its_transaction(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What was rolled back was never stored, and what was committed is published with all that it had."""
    if way in WAYS["sqlite"]:
        url = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.make_database()
    await prepare(url)
    attributes: dict[str, str | int | Decimal | bytes] = {"amount": Decimal("9.90"), "raw": b"\0\1", "who": "ann"}
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it rolls back what is inside
        async with transaction(way, url) as (connection, _):
            await outbox.publish(connection, "order.paid", {"n": 0}, topic="orders")
            raise ZeroDivisionError
    async with transaction(way, url) as (connection, _):
        key = await outbox.publish(connection, "order.paid", {"n": 1}, topic="orders", attributes=attributes)
        other = await outbox.publish(connection, "order.paid", {"n": 2}, topic="elsewhere", key="order-2:paid")
    assert len(key) == 32
    assert other == "order-2:paid"
    topic = MemoryTopic("orders")
    assert await relay_once(url, topic) == 1
    assert await relay_once(url, topic) == 0
    (sent,) = topic.publications
    assert (sent.body, sent.group_id, sent.deduplication_id) == ('{"n":1}', None, None)
    kept = {name: (one.data_type, one.value) for name, one in sent.attributes.items() if name != "published_at"}
    assert kept == {
        "event_type": ("String", "order.paid"),
        "amount": ("Number", "9.90"),
        "raw": ("Binary", b"\0\1"),
        "who": ("String", "ann"),
        "idempotency_key": ("String", key),
    }


@pytest.mark.parametrize("way", WAYS["sqlite"])
async def test_a_file_that_another_transaction_keeps_is_waited_for_while_the_loop_goes_on(
    way: str, tmp_path: Path
) -> None:
    """For as long as the connection says."""
    url = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    await prepare(url)
    async with transaction("sqlite3", url) as (keeping, _):
        await outbox.publish(keeping, "order.paid", {}, topic="orders", key="first")
        async with transaction(way, url) as (connection, run):
            run("PRAGMA busy_timeout = 300")
            began = time.monotonic()
            ticks = asyncio.create_task(ticking(lambda: time.monotonic() - began < 0.3))
            with pytest.raises(TransientError, match="another transaction is in the way"):
                await outbox.publish(connection, "order.paid", {}, topic="orders")
            assert 0.3 <= time.monotonic() - began < 2
            assert await ticks > 10
            keeping.commit()
            await outbox.publish(connection, "order.paid", {}, topic="orders", key="second")
    stored = await execute(url, "SELECT attributes FROM longshore_outbox")
    assert ["first" in stored[0][0], "second" in stored[1][0]] == [True, True]


async def ticking(goes_on: Callable[[], bool]) -> int:
    """Return how often the loop came by."""
    ticks = 0
    while goes_on():
        await asyncio.sleep(0.01)
        ticks += 1
    return ticks


async def test_a_fifo_topic_gets_the_key_as_deduplication_id(url: str) -> None:
    """So what is sent twice within five minutes arrives once; a key that SNS would not take is hashed."""
    await store(url, ("a", 1))
    async with transaction(a_way(url), url) as (connection, _):
        await outbox.publish(connection, "order.paid", {}, topic=FIFO, group_id="a", key="schön")
    topic = MemoryTopic(FIFO)
    await relay_once(url, topic)
    first, second = topic.publications
    assert (first.group_id, first.deduplication_id) == ("a", "k1")
    assert len(str(second.deduplication_id)) == 64
    assert second.attributes["idempotency_key"].value == "schön"


async def test_what_sns_would_refuse_is_refused_in_the_transaction(url: str) -> None:
    """The author hears of it, and nothing waits for ever; the key is never the eleventh attribute."""
    eight = {f"a{number}": "x" for number in range(8)}
    async with transaction(a_way(url), url) as (connection, _):
        with pytest.raises(
            PublishError,
            match="it has 8 attributes of its own, but at most 7 may go with event_type, published_at and idem",
        ):
            await outbox.publish(connection, "order.paid", {}, topic="orders", attributes=eight)
        with pytest.raises(PublishError, match="give a group_id"):
            await outbox.publish(connection, "order.paid", {}, topic=FIFO)
        with pytest.raises(UsageError, match="the key of an event must be text"):
            await outbox.publish(connection, "order.paid", {}, topic="orders", key="")
        with pytest.raises(UsageError, match="give its value as key="):
            await outbox.publish(connection, "order.paid", {}, topic="orders", attributes={"idempotency_key": "mine"})
    assert await relay_once(url, MemoryTopic("orders")) == 0


async def test_until_when_an_event_is_worth_handling_goes_with_it(url: str) -> None:
    """As an attribute, like that of an event that is published at once; with it, six are left."""
    topic = MemoryTopic("orders")
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    six = {f"a{number}": "x" for number in range(6)}
    async with transaction(a_way(url), url) as (connection, _):
        await outbox.publish(connection, "order.paid", {}, topic="orders", expires_at=moment, attributes=six)
        with pytest.raises(
            PublishError,
            match="it has 7 attributes of its own, but at most 6 may go with event_type, published_at, expires_at and",
        ):
            await outbox.publish(
                connection, "order.paid", {}, topic="orders", expires_at=moment, attributes={**six, "b": "x"}
            )
        with pytest.raises(PublishError, match="expires_at has no time zone"):
            await outbox.publish(connection, "order.paid", {}, topic="orders", expires_at=moment.replace(tzinfo=None))
    assert await relay_once(url, topic) == 1
    assert topic.publications[0].attributes["expires_at"].value == "2030-01-01T00:00:00.000+00:00"
    assert len(topic.publications[0].attributes) == 10


async def test_a_large_event_goes_through_s3_where_its_relay_has_a_bucket(url: str) -> None:
    """It is refused at once unless its author says that it may be large, and for good by a relay without a bucket."""
    objects, event = MemoryObjects(), {"note": "x" * 300_000}
    async with transaction(a_way(url), url) as (connection, _):
        with pytest.raises(PublishError, match="takes at most 262,144"):
            await outbox.publish(connection, "order.paid", event, topic="orders")
        await outbox.publish(connection, "order.paid", event, topic="orders", max_bytes=1_000_000)
    topic = MemoryTopic("orders")
    assert await relay_once(url, topic, large_payloads=LargePayloads("payloads", objects=objects)) == 1
    (sent,) = topic.publications
    assert sent.attributes["ExtendedPayloadSize"].value == str(len('{"note":""}') + 300_000)
    assert "idempotency_key" in sent.attributes
    assert "PayloadS3Pointer" in sent.body
    async with transaction(a_way(url), url) as (connection, _):
        await outbox.publish(connection, "order.paid", event, topic="orders", max_bytes=1_000_000)
    assert await relay_once(url, topic) == 1
    assert len(topic.publications) == 1
    ((refusal,),) = await execute(url, "SELECT refusal FROM longshore_outbox WHERE refused_at IS NOT NULL")
    assert "takes at most 262,144" in refusal


async def test_missing_tables_are_named(orders_url: str) -> None:
    """By a handler's publish so that it is tried again, by the relay at once."""
    with pytest.raises(TransientError, match="run `longshore database migrate`"):
        async with transaction(a_way(orders_url), orders_url) as (connection, _):
            await outbox.publish(connection, "order.paid", {}, topic="orders")
    with pytest.raises(UsageError, match="has no tables of Longshore's, and version 1 is wanted"):
        await relay_once(orders_url, MemoryTopic("orders"))


async def test_calls_carry_ten_events_and_groups_keep_their_order(url: str) -> None:
    await store(url, *((f"g{number % 10}", number) for number in range(30)))
    topic = MemoryTopic(FIFO)
    assert await relay_once(url, topic) == 30
    assert topic.calls == [10, 10, 10]
    assert in_groups(topic.publications) == {f"g{group}": [group, group + 10, group + 20] for group in range(10)}


class Moody(MemoryTopic):
    """A topic that takes some entries and refuses others."""

    def __init__(self, name: str, *, refuses: Sequence[int] = (), throttles: float = 0) -> None:
        super().__init__(name)
        self._chance = random.Random(7)
        self._refuses = refuses
        self._throttles = throttles

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        results: list[str | EntryError] = []
        for one in publications:
            if number_of(one) in self._refuses:
                results.append(EntryError(Fault.INVALID, "InvalidParameter"))
            elif self._chance.random() < self._throttles:
                results.append(EntryError(Fault.THROTTLED, "Throttling"))
            else:
                results += await super().publish([one])
        return results


class Death:
    """Kills a relay at one of its fault points: before and after a call, and before each note of what was sent."""

    def __init__(self, chance: float) -> None:
        self.chance = chance
        self._random = random.Random(8)
        self.has_come = asyncio.Event()

    async def may_come(self) -> None:
        if self._random.random() < self.chance:
            self.has_come.set()
            await asyncio.Event().wait()  # nothing more is done


class Mortal(Database):
    """A database whose relay may die before it has noted what was sent."""

    death: Death

    async def transact(self, steps: Steps[T]) -> T:
        if getattr(steps, "__name__", "") == "_note":
            await self.death.may_come()
        return await super().transact(steps)


class MortalTopic(Moody):
    """A topic whose relay may die before it has sent, and after."""

    def __init__(self, name: str, death: Death) -> None:
        super().__init__(name, throttles=0.1)
        self._death = death

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        await self._death.may_come()
        results = await super().publish(publications)
        await self._death.may_come()
        return results


def number_of(publication: Publication) -> int:
    return int(publication.body.removeprefix('{"n":').removesuffix("}"))


def in_groups(publications: Sequence[Publication]) -> dict[str, list[int]]:
    """Return what was published of each group, in order, a number's first time only."""
    groups: dict[str, list[int]] = defaultdict(list)
    for one in publications:
        if (number := number_of(one)) not in groups[str(one.group_id)]:
            groups[str(one.group_id)].append(number)
    return groups


async def test_what_is_never_taken_is_noted_and_its_group_goes_on(url: str) -> None:
    await store(url, ("a", 1), ("a", 2), ("a", 3))
    topic = Moody(FIFO, refuses=[2])
    assert await relay_once(url, topic) == 3
    assert in_groups(topic.publications) == {"a": [1, 3]}
    ((number, refusal),) = await execute(url, "SELECT id, refusal FROM longshore_outbox WHERE refused_at IS NOT NULL")
    assert number == 2
    assert "SNS refuses it (InvalidParameter)" in refusal


async def test_a_failed_event_keeps_its_group_waiting_and_no_other(url: str) -> None:
    await store(url, ("a", 1), ("a", 2), ("b", 3))
    topic = MemoryTopic(FIFO)
    topic.fail(Fault.THROTTLED)
    assert await relay_once(url, topic) == 0
    assert await relay_once(url, topic) == 3
    assert in_groups(topic.publications) == {"a": [1, 2], "b": [3]}


@pytest.mark.postgres
async def test_relays_side_by_side_keep_the_order_of_groups(postgres: Postgres) -> None:
    """Who has the first of a group has the group."""
    url = await postgres.make_database()
    await prepare(url)
    topic = MemoryTopic(FIFO)

    async def relay() -> None:
        async with open_database(url) as database, Publisher(topic, patience_seconds=0) as publisher:
            work = Relay(Outbox(database, FIFO), publisher, OutboxMetrics(FIFO), Stop())
            while await execute(url, "SELECT 1 FROM longshore_outbox WHERE sent_at IS NULL LIMIT 1"):
                await work.step()

    await store(url, *((f"g{number % 7}", number) for number in range(400)))
    await asyncio.gather(*(relay() for _ in range(4)))
    assert in_groups(topic.publications) == {f"g{group}": list(range(group, 400, 7)) for group in range(7)}
    assert len(topic.publications) == 400


@pytest.mark.postgres
async def test_events_of_a_group_are_numbered_in_the_order_of_their_commits(postgres: Postgres) -> None:
    """Who stores the second waits for the first one's commit, so no relay can see the second alone."""
    url = await postgres.make_database()
    await prepare(url)
    async with transaction("asyncpg", url) as (connection, _):
        await outbox.publish(connection, "order.paid", {"n": 1}, topic=FIFO, group_id="a")
        second = asyncio.create_task(store(url, ("a", 2)))
        await store(url, ("b", 3))  # others do not wait
        assert not second.done()
        topic = MemoryTopic(FIFO)
        assert await relay_once(url, topic) == 1
    await second
    assert await relay_once(url, topic) == 2
    assert in_groups(topic.publications) == {"b": [3], "a": [1, 2]}


async def test_a_thousand_deaths_lose_nothing(tmp_path: Path) -> None:
    """A relay dies before it sends, after it sent and before it noted: every event goes out, in order (D4)."""
    url = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    await prepare(url)
    death = Death(0.3)
    topic, chance, deaths, number = MortalTopic(FIFO, death), random.Random(9), 0, 0
    while deaths < 1000:
        if chance.random() < 0.3:
            await store(url, *((f"g{chance.randrange(3)}", number + more) for more in range(2)))
            number += 2
        deaths += await dies(url, topic, death)
    death.chance = topic._throttles = 0
    await relay_once(url, topic)
    groups = in_groups(topic.publications)
    assert sorted(number for group in groups.values() for number in group) == list(range(number))
    assert all(group == sorted(group) for group in groups.values())
    assert len(topic.publications) > number  # some went out again
    assert not await execute(url, "SELECT 1 FROM longshore_outbox WHERE sent_at IS NULL")


async def dies(url: str, topic: Topic, death: Death) -> bool:
    """Let a relay take a step; return whether it died, and with it all that it had not committed."""
    death.has_come.clear()
    async with open_database(url) as opened:
        database = Mortal(opened._connection, opened.dialect, opened.name, opened._thread)
        database.death = death
        publisher = Publisher(topic, patience_seconds=0)
        await publisher.open()
        relay = Relay(Outbox(database, FIFO), publisher, OutboxMetrics(FIFO), Stop())
        step = asyncio.create_task(relay.step())
        end = asyncio.create_task(death.has_come.wait())
        await asyncio.wait({step, end}, return_when=asyncio.FIRST_COMPLETED)
        closing = asyncio.create_task(publisher.close())
        await asyncio.sleep(0)
        for task in (step, end, closing):
            task.cancel()
        await asyncio.gather(step, end, closing, return_exceptions=True)
    return death.has_come.is_set()


async def test_sqlite_has_one_relay_a_topic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    await prepare(url)
    async with sole_relay(url, "orders"):
        with pytest.raises(UsageError, match="on SQLite there can be one"):
            await relay_once(url, MemoryTopic("orders"))
        assert await relay_once(url, MemoryTopic("others")) == 0
