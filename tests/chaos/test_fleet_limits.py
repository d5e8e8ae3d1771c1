"""`longshore run` processes under one limit of the fleet: never more at once, and not one receive is spent for waiting (P3).

`attempts: 1` and `max_receive_count: 1`, so a message that is received without being allowed to start is in the dead-letter queue.
The full dose is `make proof`: six workers.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis as RedisClient
from support.redis import Redis
from support.shop import Shop, Worker

from worker.aws.session import AwsClients
from worker.local import EmbeddedAws

pytestmark = [pytest.mark.integration, pytest.mark.redis]

IS_FULL: Final = os.environ.get("LONGSHORE_DOSE") == "full"
WORKERS: Final = 6 if IS_FULL else 3
MOST_SECONDS: Final = 600
"""Only ends a broken test."""


class LimitedFleet:
    """Workers on a shop's queue, with a limit over all of them; what is in flight is sampled while they work."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.workers: list[Worker] = []
        self.most_in_flight = 0
        self.samples = 0
        self.took = 0.0

    def configure(self, store: str, concurrency: int) -> None:
        """One receive for each message, and a limit that is the whole queue's."""
        limit = json.dumps({"concurrency": concurrency, "scope": "fleet", "store": store, "fail": "closed"})
        self.shop.configure(
            process=f"drain_seconds: 12\nlimits:\n  crm: {limit}",
            limit="crm",
            attempts=1,
            dead_letter={"queue": f"{self.shop.queue}-dlq", "max_receive_count": 1},
            visibility_timeout_seconds=5,
            wait_time_seconds=2,
        )

    async def start(self) -> None:
        """Start all of them side by side."""
        self.workers = list(await asyncio.gather(*(self.shop.start() for _ in range(WORKERS))))

    async def is_known_to(self, store: str) -> None:
        """Return once each worker has claimed: one that is new to an empty store gets its permits at once, as documented."""
        async with RedisClient.from_url(store) as client:

            async def is_known() -> bool:
                return await client.zcard("longshore:limit:{shop/crm}:owners") == WORKERS

            await self.shop.until(is_known)

    async def kill(self, worker: Worker) -> None:
        """SIGKILL, and note in the ledger that what it ran has ended."""
        await worker.kill()
        self.workers.remove(worker)
        with (self.shop.folder / "ledger.txt").open("a") as ledger:
            ledger.write(f"killed 0 {worker.process.pid} {time.time()}\n")

    async def drained(self) -> None:
        """Sample until SQS has nothing left."""
        began = time.monotonic()
        async with asyncio.timeout(MOST_SECONDS):
            while (depth := await self.shop.depth()).visible + depth.in_flight:
                self.most_in_flight = max(self.most_in_flight, depth.in_flight)
                self.samples += 1
                await asyncio.sleep(0.02)
        self.took = time.monotonic() - began

    def running(self) -> Iterator[Counter[int]]:
        """Yield how many handlers each worker ran at every moment at which that changed: a line is written where each begins and ends."""
        running: Counter[int] = Counter()
        for line in (self.shop.folder / "ledger.txt").read_text().splitlines():
            verb, _, pid, _ = line.split()
            if verb == "killed":
                del running[int(pid)]
            else:
                running[int(pid)] += 1 if verb == "start" else -1
            yield running

    @property
    def most_at_once(self) -> int:
        """How many handlers ran at once at most, of all workers together."""
        return max(running.total() for running in self.running())

    async def is_paused(self) -> bool:
        """Whether nothing is in flight, and each worker says that it starts nothing, and why."""
        said = [await worker.readiness() for worker in self.workers]
        is_named = all(status == 503 and "nothing starts under limit crm" in str(why) for status, why in said)
        return is_named and (await self.shop.depth()).in_flight == 0

    async def end(self) -> None:
        """Stop those that live; each of them drains and ends well, and has warned of the only receive."""
        assert await asyncio.gather(*(worker.terminate() for worker in self.workers)) == [0] * len(self.workers)
        assert all("max_receive_count is 1, less than" in worker.output for worker in self.workers)

    def say(self, name: str, dead_letters: int, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the figures, for a person who runs the full dose."""
        if IS_FULL:
            workers = len({line.split()[2] for line in (self.shop.folder / "ledger.txt").read_text().splitlines()})
            with capsys.disabled():
                print(  # noqa: T201
                    f"\n{name}: {self.shop.handled.total()} handled by {workers} workers, {self.shop.started.total()} runs, "
                    f"{dead_letters} dead letters; at most {self.most_in_flight} in flight ({self.samples} samples) "
                    f"and {self.most_at_once} handlers at once; {self.took:.0f} s"
                )


@pytest.fixture
async def fleet(
    tmp_path: Path, aws_clients: AwsClients, unique_name: Callable[[str], str], embedded_aws: EmbeddedAws
) -> AsyncIterator[LimitedFleet]:
    shop = Shop(tmp_path, unique_name("crm"), aws_clients, embedded_aws)
    await shop.open(max_receive_count=1)
    try:
        yield LimitedFleet(shop)
    finally:
        await shop.close()
        await shop.demolish()


@pytest.mark.parametrize(
    ("concurrency", "count", "seconds"),
    [(3, 100, 2.0) if IS_FULL else (3, 24, 0.5), (1, 1000, 0.01) if IS_FULL else (1, 60, 0.01)],
)
async def test_a_burst_keeps_to_the_limit(
    fleet: LimitedFleet, redis: Redis, capsys: pytest.CaptureFixture[str], concurrency: int, count: int, seconds: float
) -> None:
    """Every message is received once, when it may start, and done: none twice, none in the dead-letter queue."""
    fleet.configure(redis.make_database(), concurrency)
    await fleet.start()
    await fleet.shop.send(count, seconds=seconds)
    await fleet.drained()
    await fleet.end()
    dead_letters = (await fleet.shop.dead_letters.depth()).visible
    fleet.say(f"limit {concurrency}", dead_letters, capsys)
    assert dead_letters == 0
    assert fleet.shop.started == dict.fromkeys(range(count), 1)
    assert fleet.shop.handled == dict.fromkeys(range(count), 1)
    assert 0 < fleet.most_in_flight <= concurrency
    assert 0 < fleet.most_at_once <= concurrency


async def test_a_killed_worker_takes_nothing_but_what_it_had_in_hand(
    fleet: LimitedFleet, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill -9: its permits count until they end, so nobody is above the limit; with one receive each, its own messages are lost to SQS's net (D4)."""
    count, seconds = (100, 2.0) if IS_FULL else (24, 0.5)
    fleet.configure(redis.make_database(), 3)
    await fleet.start()
    await fleet.shop.send(count, seconds=seconds)
    await fleet.shop.until(lambda: fleet.shop.handled.total() >= count // 4)
    *_, running = fleet.running()
    victim = next(worker for worker in fleet.workers if running[worker.process.pid])
    await fleet.kill(victim)
    await fleet.drained()
    await fleet.end()
    dead_letters = (await fleet.shop.dead_letters.depth()).visible
    fleet.say("limit 3, one worker killed", dead_letters, capsys)
    missing = set(range(count)) - set(fleet.shop.handled)
    assert len(missing) <= dead_letters <= 3
    assert set(fleet.shop.started.values()) == {1}
    assert set(fleet.shop.started - fleet.shop.handled) <= missing
    assert 0 < fleet.most_at_once <= 3


@pytest.mark.parametrize("paused_seconds", [0, 10] if IS_FULL else [0])
async def test_a_redis_that_goes_and_comes_back_empty_costs_nothing_but_time(
    fleet: LimitedFleet, capsys: pytest.CaptureFixture[str], paused_seconds: float
) -> None:
    """Killed under full load and back at once: whom it knew keeps its permits. While it is gone nothing starts, and each worker says why (P3)."""
    count, seconds = (100, 2.0) if IS_FULL else (18, 2.0)
    with Redis() as redis:
        database = redis.make_database()
        fleet.configure(database, 3)
        await fleet.start()
        await fleet.is_known_to(database)
        await fleet.shop.send(count, seconds=seconds)
        await fleet.shop.until(lambda: fleet.shop.started.total() >= count // 6)
        redis.stop()
        if paused_seconds:
            await fleet.shop.until(fleet.is_paused)
            begun = fleet.shop.started
            await asyncio.sleep(paused_seconds)
            assert fleet.shop.started == begun
        redis.start()
        await fleet.drained()
        await fleet.end()
    dead_letters = (await fleet.shop.dead_letters.depth()).visible
    fleet.say(f"limit 3, Redis killed, {'back at once' if not paused_seconds else 'back later'}", dead_letters, capsys)
    assert dead_letters == 0
    assert fleet.shop.handled == dict.fromkeys(range(count), 1)
    assert 0 < fleet.most_at_once <= 3
