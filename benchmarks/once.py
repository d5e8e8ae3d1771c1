"""What it costs to do work once: idempotency marks in each store, and the inbox in a transaction of one's own."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg

from benchmarks.figures import goal
from benchmarks.programs import Stub
from benchmarks.servers import Postgres, Redis, started
from benchmarks.tap import Tap
from benchmarks.turns import Consumer, surcharge
from benchmarks.workers import ONCE, PLAIN, worker
from worker import Message
from worker.aws.session import AwsClients
from worker.idempotency import Mark, Store, StoreError, Together, open_store
from worker.local import EmbeddedAws
from worker.sql.database import open_database
from worker.sql.tables import migrate
from worker.testing import FakeLease

__all__ = ["MICROSECONDS_GOAL", "run"]

MICROSECONDS_GOAL = 120.0
"""Of CPU per message, in a worker at work whose marks are in SQLite."""
ROUND_TRIPS_GOAL = 2.0
WRITES_GOAL = 2.0
STATEMENTS_GOAL = 1.0
MESSAGES = 400
AT_ONCE = 40
RETENTION_SECONDS = 3600.0
WRITES = frozenset({"put_item", "update_item", "delete_item"})


def run(rounds: int, seconds: float) -> bool:
    """Measure, print, and return whether the goals are met; a server that is not installed is said not to be measured."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stub() as stub,
        worker(PLAIN, folder, stub) as plain,
        worker(ONCE, folder, stub) as once,
    ):
        consumers = [Consumer("without a key", PLAIN, plain), Consumer("with a key, in SQLite", ONCE, once)]
        met = [surcharge("once", consumers, stub, rounds=rounds, seconds=seconds, limit=MICROSECONDS_GOAL)]
    print(f"once, stores: {MESSAGES} messages, each begun and finished, one by one and {AT_ONCE} at once")
    print(f"{'':24}{'one by one':>12}{'at once':>9}")
    with started(Redis()) as redis:
        if redis is not None:
            met.append(asyncio.run(_redis(redis)))
    met.append(asyncio.run(_dynamodb()))
    with started(Postgres()) as postgres:
        if postgres is not None:
            asyncio.run(_postgres(postgres))
            met.append(asyncio.run(_inbox(postgres)))
    return all(met)


async def _redis(server: Redis) -> bool:
    alone, together = await _round_trips(server.port, server.make_database())
    print(f"  {'Redis, round trips':22}{alone:>12.2f}{together:>9.2f}  {goal(alone, ROUND_TRIPS_GOAL, '')}")
    return alone <= ROUND_TRIPS_GOAL


async def _postgres(server: Postgres) -> None:
    alone, together = await _round_trips(server.port, await server.make_database())
    print(f"  {'PostgreSQL, round trips':22}{alone:>11.2f}{together:>9.2f}")


async def _round_trips(port: int, url: str) -> tuple[float, float]:
    """Return how many round trips a message costs, one by one and at once."""
    async with Tap(port) as tap:
        store = open_store(tap.through(url), retention_seconds=RETENTION_SECONDS)
        await store.open()
        await _work(store, AT_ONCE, range(AT_ONCE))  # connections are made, statements are known
        found: list[float] = []
        for at_once in (1, AT_ONCE):
            before = tap.round_trips
            await _work(store, at_once, range(MESSAGES))
            found.append((tap.round_trips - before) / MESSAGES)
        await store.close()
    alone, together = found
    return alone, together


class _Counted:
    """A channel to DynamoDB that counts what is written."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.writes = 0

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Pass the call on."""
        self.writes += operation in WRITES
        return await self._channel.call(operation, **parameters)


async def _dynamodb() -> bool:
    async with EmbeddedAws() as aws, AwsClients(aws.access) as clients:
        counted: Any = _Counted(clients.dynamodb)
        store = open_store("dynamodb://benchmark", retention_seconds=RETENTION_SECONDS, dynamodb=counted)
        with suppress(StoreError):  # DynamoDB takes a moment to make the table
            await store.open()
        await store.open()
        before = counted.writes
        await _work(store, 1, range(MESSAGES))
        writes = (counted.writes - before) / MESSAGES
    print(f"  {'DynamoDB, writes':22}{writes:>12.2f}{'':9}  {goal(writes, WRITES_GOAL, '')}")
    return bool(writes <= WRITES_GOAL)


async def _work(store: Store, at_once: int, numbers: Sequence[int]) -> None:
    """Begin and finish, as the engine does it, so many messages at once."""

    async def finish(marks: Sequence[Mark]) -> Sequence[None]:
        await store.finish(marks)
        return [None] * len(marks)

    begins, finishes = Together(store.begin, "begin"), Together(finish, "finish")
    left, run_number = iter(numbers), time.monotonic_ns()

    async def take() -> None:
        for number in left:
            mark = Mark(f"benchmark:{run_number}:{number}", "fingerprint", "owner", 60.0)
            await begins.submit(mark)
            await finishes.submit(mark)

    await asyncio.gather(*(take() for _ in range(at_once)))


async def _inbox(server: Postgres) -> bool:
    """Count what a mark adds to the statements of a transaction."""
    url = await server.make_database()
    async with open_database(url, create=True) as database:
        await migrate(database)
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE effects (n INTEGER NOT NULL)")
    said: list[str] = []
    connection.add_query_logger(lambda record: said.append(record.query))
    async with connection.transaction(), _message(1).once(connection, key=1):
        await connection.execute("INSERT INTO effects VALUES (1)")
    await connection.close()
    mark = sum("longshore_inbox" in query for query in said)
    fence = sum("set_config" in query for query in said)
    print(f"  inbox in PostgreSQL: {mark} statement for the mark, {goal(mark, STATEMENTS_GOAL, '')}; {fence} more for the fence before the commit")  # fmt: skip
    return mark <= STATEMENTS_GOAL


def _message(number: int) -> Message[Any]:
    return Message(
        id=f"message-{number}",
        queue="benchmark",
        event={},
        event_type="order.created",
        body="{}",
        attributes={},
        receive_count=1,
        sent_at=datetime.now(UTC),
        published_at=None,
        group_id=None,
        sequence_number=None,
        lease=FakeLease(),
    )
