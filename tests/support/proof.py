"""What it takes to prove that effects happen once: a ledger that would show a second one, a feed that repeats itself, and every run noted."""

import json
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
from support.inbox import prepare
from support.shop import Shop

__all__ = ["HANDLERS", "Feed", "Ledger", "Runs"]

MOST_WAITING: Final = 600
"""Messages at most that wait in the queue: the embedded AWS looks at each of them for every receive."""

HANDLERS: Final = """
import asyncio, os, sqlite3
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from worker import Message, Router

LEDGER = os.environ["LEDGER"]
RUNS = os.open("runs.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
ONCE = "INSERT INTO ledger (n) VALUES ({}) ON CONFLICT DO NOTHING RETURNING n"
ALWAYS = "INSERT INTO ledger (n) VALUES ({}) RETURNING n"
COUNT = "UPDATE counter SET value = value + 1"

@asynccontextmanager
async def connections():
    if LEDGER.startswith("sqlite"):
        yield None
        return
    async with asyncpg.create_pool(LEDGER, min_size=1, max_size=8) as pool:
        yield pool

keyed = Router(lifespan=connections)
inbox = Router(lifespan=connections)

def note(verb: str, message: Message[Any]) -> None:
    os.write(RUNS, f"{verb} {message.event['n']} {os.getpid()}\\n".encode())

@asynccontextmanager
async def transaction(pool):
    if pool is None:
        connection = sqlite3.connect(LEDGER.removeprefix("sqlite:///"), timeout=10)
        connection.execute("PRAGMA synchronous = NORMAL")
        async def fetch(sql):
            return connection.execute(sql).fetchall()
        try:
            with connection:
                yield connection, fetch
        finally:
            connection.close()
        return
    async with pool.acquire() as connection, connection.transaction():
        yield connection, connection.fetch

async def do(fetch, insert: str, message: Message[Any]) -> None:
    if await fetch(insert.format(message.event["n"])):
        await fetch(COUNT)

@keyed.on("*", idempotency_key="n")
async def with_a_key(message: Message[dict[str, Any]]) -> None:
    note("start", message)
    await asyncio.sleep(message.event["seconds"])
    async with transaction(message.state) as (connection, fetch):
        await do(fetch, ONCE, message)
    await asyncio.sleep(message.event["seconds"])
    note("end", message)

@inbox.on("*")
async def through_the_inbox(message: Message[dict[str, Any]]) -> None:
    note("start", message)
    await asyncio.sleep(message.event["seconds"])
    async with transaction(message.state) as (connection, fetch):
        async with message.once(connection, key=message.event["n"]) as first:
            if first:
                await do(fetch, ALWAYS, message)
    await asyncio.sleep(message.event["seconds"])
    note("end", message)
"""


@dataclass(frozen=True)
class Ledger:
    """A table of effects, and a counter that each of them increments."""

    url: str
    """Of a database, `sqlite:///...` or `postgresql://...`."""
    is_unique: bool
    """Whether the table takes each id once only, as it must where nothing but a key stands before it."""

    async def open(self) -> None:
        """Make the tables, the inbox's with them."""
        if self.url.startswith("sqlite"):
            await self._ask("PRAGMA journal_mode = WAL")
        await prepare(self.url)
        await self._ask(f"CREATE TABLE ledger (n INTEGER NOT NULL {'PRIMARY KEY' if self.is_unique else ''})")
        await self._ask("CREATE TABLE counter (value INTEGER NOT NULL)")
        await self._ask("INSERT INTO counter (value) VALUES (0)")

    async def counter(self) -> int:
        """Return how many effects there were."""
        return int((await self._ask("SELECT value FROM counter"))[0][0])

    async def numbers(self) -> list[int]:
        """Return the event of each effect, in order."""
        return [row[0] for row in await self._ask("SELECT n FROM ledger ORDER BY n")]

    async def inbox(self) -> int:
        """Return how many messages the inbox holds as handled."""
        return int((await self._ask("SELECT count(*) FROM longshore_inbox"))[0][0])

    async def _ask(self, sql: str) -> list[Any]:
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection, connection:
                return connection.execute(sql).fetchall()
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()


class Feed:
    """Sends each event one to four times, some copies side by side and some long after."""

    def __init__(self, shop: Shop, events: int, seconds: float, chance: random.Random) -> None:
        places = [
            (n + chance.choice((0, chance.uniform(0, 20), chance.uniform(0, events))) * (copy > 0), n)
            for n in range(events)
            for copy in range(chance.randint(1, 4))
        ]
        self._shop = shop
        self._bodies = [json.dumps({"n": n, "seconds": seconds}) for _, n in sorted(places)]

    def __len__(self) -> int:
        return len(self._bodies)

    async def send(self) -> None:
        """Send everything, no faster than the workers take it."""
        for start in range(0, len(self), 200):
            await self._shop.until(self._has_room, seconds=600)
            await self._shop.send_bodies(self._bodies[start : start + 200])

    async def _has_room(self) -> bool:
        return (await self._shop.depth()).visible < MOST_WAITING


@dataclass
class Runs:
    """What the handlers noted: who began which event, in order."""

    path: Path
    of: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The processes that began each event."""
    ended: set[tuple[int, int]] = field(default_factory=set)
    """Events that came to their handler's end, and in which process."""
    _read: int = 0

    def look(self) -> int:
        """Read on; return how many events have begun."""
        for verb, number, pid in self._new():
            if verb == "start":
                self.of[number].append(pid)
            else:
                self.ended.add((number, pid))
        return len(self.of)

    @property
    def total(self) -> int:
        """How often a handler's body ran."""
        return sum(len(pids) for pids in self.of.values())

    def repeated(self) -> list[tuple[int, int]]:
        """Return the runs that were not the last of their event: the event and the process."""
        return [(number, pid) for number, pids in self.of.items() for pid in pids[:-1]]

    def _new(self) -> Iterator[tuple[str, int, int]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + bool(whole)
        for line in whole.decode().splitlines():
            verb, number, pid = line.split()
            yield verb, int(number), int(pid)
