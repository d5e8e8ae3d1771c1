"""The inbox (I2) and its fence (I3), for every library's connection, on SQLite and, when asked for, on PostgreSQL."""

import asyncio
import gc
import json
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from support.inbox import WAYS, effect, effects, execute, marks, prepare, transaction
from support.postgres import Postgres

from worker import Batch, LeaseLostError, Message, Router, TransientError, UsageError, outbox
from worker.testing import FakeLease, Fleet, MemorySource

pytestmark = pytest.mark.integration


def a_message(*, lease: FakeLease | None = None, **changes: Any) -> Message[Any]:
    fields: dict[str, Any] = {
        "id": "message-1",
        "queue": "orders",
        "event": {"order_id": "order-1"},
        "event_type": "order.created",
        "body": "{}",
        "attributes": {},
        "receive_count": 1,
        "sent_at": datetime.now(UTC),
        "published_at": None,
        "group_id": None,
        "sequence_number": None,
        "lease": lease or FakeLease(),
    }
    return Message(**{**fields, **changes})


@pytest.fixture
async def url(orders_url: str) -> str:
    await prepare(orders_url)
    return orders_url


@pytest.fixture(
    params=[
        *WAYS["sqlite"],
        *(pytest.param(way, marks=pytest.mark.postgres) for way in WAYS["postgresql"]),
    ]
)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def place(way: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that fits the way."""
    if way in WAYS["sqlite"]:
        url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.make_database()
    await prepare(url)
    return url


async def test_an_effect_is_committed_once(way: str, place: str) -> None:
    """Whoever comes again, with another message of the same key too, is told and does nothing (I2)."""
    seen = []
    for number in range(3):
        async with effect(way, place, a_message(id=f"message-{number}"), key="order-1") as first:
            seen.append(first)
    assert seen == [True, False, False]
    assert await effects(place) == [7]
    assert await marks(place) == [("orders", "order.created", "order-1", "message-0", 1)]


async def test_a_mark_is_of_one_queue_and_one_event_type(way: str, place: str) -> None:
    """Four queues get the same event; an order is created and shipped under one key."""
    for changes in ({}, {"queue": "mails"}, {"event_type": "order.shipped"}, {"event_type": None}):
        async with effect(way, place, a_message(**changes), key="order-1") as first:
            assert first
    assert len(await effects(place)) == 4


async def test_a_handler_that_fails_leaves_neither_effect_nor_mark(way: str, place: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with effect(way, place, a_message(), key="order-1"):
            raise ZeroDivisionError
    assert (await effects(place), await marks(place)) == ([], [])
    async with effect(way, place, a_message(), key="order-1") as first:
        assert first


async def test_a_lost_lease_commits_nothing(way: str, place: str) -> None:
    """It is looked at before the work, and again before the commit (I3)."""
    with pytest.raises(LeaseLostError, match="receive 1 of message message-1 has lost its lease"):
        async with effect(way, place, a_message(lease=FakeLease(is_lost=True)), key="order-1"):
            raise AssertionError("it was started")
    lease = FakeLease()
    with pytest.raises(LeaseLostError):
        async with effect(way, place, a_message(lease=lease), key="order-1"):
            lease.remaining_seconds = 0
    assert (await effects(place), await marks(place)) == ([], [])


async def test_an_older_receive_learns_that_a_newer_one_has_committed(way: str, place: str) -> None:
    """Also when its own clock says that it holds the lease, as that of a machine that was moved may do (I3)."""
    async with effect(way, place, a_message(receive_count=2), key="order-1"):
        pass
    with pytest.raises(LeaseLostError):
        async with effect(way, place, a_message(receive_count=1), key="order-1"):
            raise AssertionError("it was started")
    async with effect(way, place, a_message(receive_count=2), key="order-1") as first:
        assert not first  # its own commit, whose answer was lost
    assert await effects(place) == [7]


async def test_the_key_may_come_with_the_event(way: str, place: str) -> None:
    """The attribute that the outbox writes is the default; there is no other."""
    message = a_message(attributes={"idempotency_key": "key-9"})
    async with effect(way, place, message) as first:
        assert first
    assert [mark[2] for mark in await marks(place)] == ["key-9"]
    with pytest.raises(UsageError, match=r"give what names the event in your business"):
        async with effect(way, place, a_message()):
            raise AssertionError("it was started")


@pytest.mark.parametrize("key", ["", "k" * 501, b"bytes", True, "nul\0"])
def test_a_key_that_is_none_is_refused(key: object) -> None:
    with pytest.raises(UsageError, match="has no key, or one that is none"):
        a_message().once(None, key=key)


async def test_missing_tables_are_named_and_may_pass(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The message is tried again, the breaker opens, nothing is lost."""
    url = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    if way in WAYS["postgresql"]:
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.make_database()
    with pytest.raises(TransientError, match="run `longshore database migrate`") as caught:
        async with effect(way, url, a_message(), key="order-1"):
            raise AssertionError("it was started")
    assert caught.value.is_downstream


@pytest.mark.postgres
async def test_who_comes_second_waits_for_the_first(postgres: Postgres) -> None:
    """Two workers with the same key: the second goes on when the first rolls back, and does nothing when it commits."""
    url = await postgres.make_database()
    await prepare(url)
    begun, end = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with effect("asyncpg", url, a_message(id="a"), key="order-1"):
            begun.set()
            await end.wait()
            raise ZeroDivisionError

    async def second() -> bool:
        async with effect("asyncpg", url, a_message(id="b"), key="order-1") as is_first:
            return is_first

    one = asyncio.create_task(first())
    await begun.wait()
    two = asyncio.create_task(second())
    done, _ = await asyncio.wait({two}, timeout=0.3)
    assert not done
    end.set()
    with pytest.raises(ZeroDivisionError):
        await one
    assert await two
    assert await effects(url) == [7]


@pytest.mark.postgres
async def test_the_server_ends_a_transaction_whose_commit_comes_after_the_lease(postgres: Postgres) -> None:
    """Between the last look at the lease and the commit a process may stand still: PostgreSQL watches (I3)."""
    url = await postgres.make_database()
    await prepare(url)
    connection = await asyncpg.connect(url)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):  # noqa: PT012 - at its end
        async with asyncio.timeout(30), connection.transaction():
            async with a_message(lease=FakeLease(remaining_seconds=0.2)).once(connection, key="order-1"):
                await connection.execute("INSERT INTO effects (n) VALUES (7)")
            while not connection.is_closed():  # noqa: ASYNC110 - the lease is over; the commit comes after it
                await asyncio.sleep(0.05)
    connection.terminate()
    assert (await effects(url), await marks(url)) == ([], [])


@pytest.mark.parametrize("way", WAYS["sqlite"])
async def test_who_comes_second_waits_for_the_file_and_keeps_the_loop_free(way: str, tmp_path: Path) -> None:
    """The first one may be a handler of the same loop, in the middle of its transaction; the busy timeout is as it was then."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    begun = asyncio.Event()

    async def first() -> None:
        async with effect("sqlite3", url, a_message(id="a"), key="order-1"):
            begun.set()
            await asyncio.sleep(0.5)

    async def second() -> int:
        async with transaction(way, url) as (connection, execute):
            async with a_message(id="b").once(connection, key="order-2"):
                execute("INSERT INTO effects (n) VALUES (8)")
            return int(next(iter(execute("PRAGMA busy_timeout")))[0])

    one = asyncio.create_task(first())
    await begun.wait()
    async with asyncio.timeout(3):  # less than sqlite3 waits
        assert await second() == 5000
    await one
    assert await effects(url) == [7, 8]


async def test_a_file_is_waited_for_as_long_as_the_lease_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stands still in its transaction is nobody's failure: an asynchronous handler waits, and one in a thread."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0}))
    monkeypatch.setattr("worker.inbox.once.TOLD_AFTER_SECONDS", 0.1)
    said: list[str] = []
    monkeypatch.setattr("worker.inbox.once.log", SimpleNamespace(warning=lambda event, **_: said.append(event)))
    lease = FakeLease()

    def in_a_thread() -> None:
        with (
            closing(sqlite3.connect(tmp_path / "inbox.sqlite")) as connection,
            a_message(lease=lease).once(connection, key="order-2"),
        ):
            raise AssertionError("it was started")

    async def on_the_loop() -> None:
        async with effect("sqlite3", url, a_message(lease=lease), key="order-2"):
            raise AssertionError("it was started")

    async with effect("sqlite3", url, a_message(id="a"), key="order-1"):
        waiting = [asyncio.create_task(asyncio.to_thread(in_a_thread)), asyncio.create_task(on_the_loop())]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        assert not done
        lease.remaining_seconds = 0
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, LeaseLostError)
    assert said == ["another transaction keeps the SQLite file, and a message waits for it"] * 2
    assert await effects(url) == [7]


@pytest.mark.parametrize("way", WAYS["sqlite"])
async def test_where_waiting_would_keep_the_loop_a_locked_file_may_pass(way: str, tmp_path: Path) -> None:
    """A plain `with` on the loop waits as long as its connection says: an outage, not a bug."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    async with (
        effect("sqlite3", url, a_message(id="a"), key="order-1"),
        transaction(way, url) as (connection, execute),
    ):
        execute("PRAGMA busy_timeout = 0")
        with (
            pytest.raises(TransientError, match="another transaction is in the way") as caught,
            a_message(id="b").once(connection, key="order-2"),
        ):
            raise AssertionError("it was started")
    assert caught.value.is_downstream
    assert await effects(url) == [7]


def autocommit(way: str, url: str) -> Any:
    """Return what opens a connection that commits each statement by itself."""
    match way:
        case "sqlite3":
            return closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None))
        case "alchemy" | "session":
            engine = create_engine(url, isolation_level="AUTOCOMMIT")
            return engine.connect() if way == "alchemy" else Session(engine)
        case _:
            many = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), poolclass=NullPool)
            many = many.execution_options(isolation_level="AUTOCOMMIT")
            return AsyncSession(many) if way == "async-session" else many.connect()


@pytest.mark.parametrize(
    "way",
    [
        *WAYS["sqlite"],
        *(pytest.param(way, marks=pytest.mark.postgres) for way in ("async-connection", "async-session")),
    ],
)
async def test_a_connection_that_commits_each_statement_is_refused(way: str, place: str) -> None:
    """Its mark would stay when the handler fails, and the effect would never happen; so for an event of the outbox."""
    async with AsyncExitStack() as stack:
        opened = autocommit(way, place)
        connection = await stack.enter_async_context(opened) if way.startswith("async") else stack.enter_context(opened)
        with pytest.raises(UsageError, match="commits each statement by itself"):
            async with a_message().once(connection, key="order-1"):
                raise AssertionError("it was started")
        with pytest.raises(UsageError, match="commits each statement by itself"):
            await outbox.publish(connection, "order.paid", {}, topic="payments")
        if not way.startswith("async"):
            with pytest.raises(UsageError, match="commits each statement by itself"):
                outbox.publish_sync(connection, "order.paid", {}, topic="payments")
    assert (await marks(place), await execute(place, "SELECT id FROM longshore_outbox")) == ([], [])


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_a_transaction_that_has_read_does_not_wait_for_ever(mode: str, tmp_path: Path) -> None:
    """It may stand in the way of the one that it waits for, or never get the file at all: it is begun anew, by the next attempt."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    await execute(url, f"PRAGMA journal_mode = {mode}")
    async with transaction("sqlite3", url) as (connection, run), transaction("sqlite3", url) as (_, write):
        run("PRAGMA busy_timeout = 200")
        run("BEGIN")
        run("SELECT * FROM effects")
        write("INSERT INTO effects (n) VALUES (7)")
        if mode == "WAL":
            write("COMMIT")
        async with asyncio.timeout(5):
            with pytest.raises(TransientError, match="another transaction is in the way"):
                async with a_message().once(connection, key="order-1"):
                    raise AssertionError("it was started")
        connection.rollback()
    assert await effects(url) == [7]


async def test_rows_may_be_whatever_the_connection_makes_of_them(tmp_path: Path) -> None:
    """What is asked of them are tuples still: here by who finds the mark of a newer receive."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    async with effect("sqlite3", url, a_message(receive_count=2), key="order-1"):
        pass
    with closing(sqlite3.connect(tmp_path / "inbox.sqlite")) as connection:
        connection.row_factory = lambda cursor, row: dict(zip([one[0] for one in cursor.description], row, strict=True))
        with pytest.raises(LeaseLostError):
            async with a_message(receive_count=1).once(connection, key="order-1"):
                raise AssertionError("it was started")
        assert connection.execute("PRAGMA busy_timeout").fetchall() == [{"timeout": 5000}]


async def test_a_transaction_that_was_begun_by_hand_is_one(tmp_path: Path) -> None:
    """Also on connections whose driver begins none: those of sqlite3, and of engines that do it themselves."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    with closing(sqlite3.connect(tmp_path / "inbox.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        async with a_message().once(connection, key="order-1") as first:
            assert first
        connection.execute("COMMIT")
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    with Session(engine) as session, session.begin():
        async with a_message(id="b").once(session, key="order-2") as first:
            assert first
    engine.dispose()
    assert [mark[2] for mark in await marks(url)] == ["order-1", "order-2"]


@pytest.mark.postgres
async def test_two_batches_in_each_others_way_may_pass(postgres: Postgres) -> None:
    """They mark the same messages in different order: PostgreSQL ends one of them, which is tried again."""
    url = await postgres.make_database()
    await prepare(url)
    meeting = asyncio.Barrier(2)

    async def batch(*keys: str) -> None:
        async with transaction("asyncpg", url) as (connection, _), AsyncExitStack() as open_marks:
            await open_marks.enter_async_context(a_message(id=keys[0]).once(connection, key=keys[0]))
            await meeting.wait()
            await open_marks.enter_async_context(a_message(id=keys[0]).once(connection, key=keys[1]))

    results = await asyncio.gather(batch("a", "b"), batch("b", "a"), return_exceptions=True)
    (failure,) = (result for result in results if result is not None)
    assert isinstance(failure, TransientError)
    assert "deadlock" in failure.reason
    assert len(await marks(url)) == 2


@pytest.mark.parametrize("name", ["orders", "orders.fifo"])
async def test_batches_and_groups_are_marked_message_by_message(name: str, tmp_path: Path) -> None:
    """The same event in two messages, in one batch and in several, has one effect (I2, B1, F1)."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    router = Router()

    @router.on("*", batch=Batch(size=5, window_seconds=1))
    async def handle(messages: Sequence[Message[dict[str, Any]]]) -> None:
        async with transaction("sqlite3", url) as (connection, execute), AsyncExitStack() as open_marks:
            for message in messages:
                number = message.event["n"]
                if await open_marks.enter_async_context(message.once(connection, key=number)):
                    execute(f"INSERT INTO effects (n) VALUES ({int(number)})")  # noqa: S608 - a test's

    source = MemorySource(name)
    for number in [*range(12), *range(12)]:
        group = f"g{number % 2}" if name.endswith(".fifo") else None
        source.send(json.dumps({"n": number}), attributes={"event_type": "order.created"}, group_id=group)
    await Fleet(source).run(router)
    assert await effects(url) == list(range(12))
    assert source.dead_letters == []


@pytest.mark.parametrize("way", WAYS["sqlite"])
async def test_a_synchronous_handler_writes_with(way: str, tmp_path: Path) -> None:
    """Such handlers run in threads, with connections that wait."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    seen = []
    for _ in range(2):
        async with transaction(way, url) as (connection, execute):
            with a_message().once(connection, key="order-1") as first:
                if first:
                    execute("INSERT INTO effects (n) VALUES (7)")
            seen.append(first)
    assert seen == [True, False]
    assert await effects(url) == [7]


@pytest.mark.postgres
@pytest.mark.parametrize("way", ["asyncpg", "async-connection", "async-session"])
async def test_an_asynchronous_connection_in_a_plain_with_is_told(way: str, postgres: Postgres) -> None:
    """And nothing is left that nobody awaits, which would be a warning."""
    url = await postgres.make_database()
    async with transaction(way, url) as (connection, _):
        with pytest.raises(UsageError, match="write `async with`"), a_message().once(connection, key="order-1"):
            raise AssertionError("it was started")
    gc.collect()


@pytest.mark.parametrize("way", WAYS["sqlite"])
async def test_a_commit_inside_the_block_is_a_mistake_that_is_told(way: str, tmp_path: Path) -> None:
    """Also when another transaction has begun since."""
    url = f"sqlite:///{tmp_path / 'inbox.sqlite'}"
    await prepare(url)
    for number, then in enumerate(([], ["INSERT INTO effects (n) VALUES (7)"])):
        async with AsyncExitStack() as stack:
            engine = create_engine(url)
            stack.callback(engine.dispose)
            if way == "sqlite3":
                connection: Any = stack.enter_context(closing(sqlite3.connect(tmp_path / "inbox.sqlite")))
            else:
                connection = stack.enter_context(engine.connect() if way == "alchemy" else Session(engine))
            with pytest.raises(UsageError, match="commit after the block"):  # noqa: PT012 - at its end
                async with a_message().once(connection, key=number):
                    connection.commit()
                    for sql in then:
                        connection.execute(sql if way == "sqlite3" else text(sql))
    assert await effects(url) == []


@pytest.mark.postgres
async def test_a_commit_inside_the_block_is_known_by_its_number(postgres: Postgres) -> None:
    """PostgreSQL numbers transactions, so a second one is not taken for the first."""
    url = await postgres.make_database()
    await prepare(url)
    connection = await asyncpg.connect(url)
    one = connection.transaction()
    await one.start()
    with pytest.raises(UsageError, match="commit after the block"):  # noqa: PT012 - at its end
        async with a_message().once(connection, key="order-1"):
            await one.commit()
            await connection.transaction().start()
            await connection.execute("INSERT INTO effects (n) VALUES (7)")
    connection.terminate()
    assert await effects(url) == []


def test_a_mark_that_was_not_entered_is_no_answer() -> None:
    with pytest.raises(UsageError, match="neither true nor false before it is entered"):
        assert a_message().once(None, key="order-1")


def test_an_unknown_connection_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="a dict is no connection that Longshore knows"), a_message().once({}, key="1"):
        raise AssertionError("it was started")
