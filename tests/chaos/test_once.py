"""Every event one to four times, workers killed at random: each effect once, on every store and through the inbox (I1, I2, D4).

The full dose is `make proof`: 20,000 events for each store.
"""

import asyncio
import os
import random
import time
from collections import Counter
from typing import Final

import pytest
from support.postgres import Postgres
from support.proof import HANDLERS, Feed, Ledger, Runs
from support.shop import Shop, Worker
from support.stores import STORES, Server, marks_at, server_of, url_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("embedded_aws")]  # where DynamoDB is, too

IS_FULL: Final = os.environ.get("LONGSHORE_DOSE") == "full"
EVENTS: Final = 20_000 if IS_FULL else 200
KILLS: Final = 12 if IS_FULL else 3
WORKERS: Final = 3
CONCURRENCY: Final = 20 if IS_FULL else 5
VISIBILITY_SECONDS: Final = 10 if IS_FULL else 3
SECONDS: Final = 0.02
"""How long an event takes before its effect, and after it."""
MOST_SECONDS: Final = 1800
"""Only ends a broken test."""

SQL_STORES: Final = STORES[1:3]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """What the store of this run needs."""
    return server_of(request.param, request)


class Proof:
    """Three workers on the shop's queue, of which one is killed and replaced again and again."""

    def __init__(self, shop: Shop, router: str, ledger: Ledger) -> None:
        self.shop = shop
        self.ledger = ledger
        self.runs = Runs(shop.folder / "runs.txt")
        self.chance = random.Random(20_261_128)
        self.feed = Feed(shop, EVENTS, SECONDS, self.chance)
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.effects = 0
        shop.environment["LEDGER"] = ledger.url
        shop.configure(
            router=router,
            concurrency=CONCURRENCY,
            wait_time_seconds=1,
            visibility_timeout_seconds=VISIBILITY_SECONDS,
            handler_timeout_seconds=30,
        )
        (shop.folder / "shop_handlers.py").write_text(HANDLERS)

    async def run(self) -> float:
        """Feed, kill, and wait until everything is settled; return how many seconds that took."""
        began = time.monotonic()
        await self.ledger.open()
        self.workers = list(await asyncio.gather(*(self.shop.start() for _ in range(WORKERS))))
        feeding = asyncio.create_task(self.feed.send())
        for progress in sorted(self.chance.sample(range(EVENTS // 20, EVENTS * 19 // 20), KILLS)):
            await self.shop.until(lambda progress=progress: self.runs.look() >= progress, seconds=MOST_SECONDS)
            self.dead.append(self.workers.pop(self.chance.randrange(WORKERS)))
            await self.dead[-1].kill()
            self.workers.append(await self.shop.start())
        await feeding
        await self.shop.until(self.shop.is_drained, seconds=MOST_SECONDS)
        took = time.monotonic() - began
        assert [await worker.terminate() for worker in self.workers] == [0] * WORKERS
        self.runs.look()
        return took

    async def assert_once(self) -> None:
        """Every event has one effect, and none was given up."""
        assert await self.ledger.numbers() == list(range(EVENTS))
        self.effects = await self.ledger.counter()
        assert self.effects == EVENTS
        assert (await self.shop.dead_letters.depth()).visible == 0

    def repeated(self) -> str:
        """Say what ran again, which is only what a killed worker had in hand."""
        again, killed = self.runs.repeated(), {worker.process.pid for worker in self.dead}
        in_hand = Counter(pid for _, pid in again)
        assert set(in_hand) <= killed, "a worker that lived began what was begun again"
        assert all(number <= CONCURRENCY for number in in_hand.values())
        unmarked = sum(run in self.runs.ended for run in again)
        return f"{len(again)} cut by a kill and run again, {unmarked} of them between effect and mark"

    def say(self, name: str, took: float, marks: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the figures, for a person who runs the full dose."""
        if IS_FULL:
            with capsys.disabled():
                print(  # noqa: T201
                    f"\n{name}: {EVENTS:,} events, {len(self.feed):,} deliveries, {len(self.dead)} workers killed, "
                    f"{self.runs.total:,} runs, counter {self.effects:,}, {marks}; {took:.0f} s"
                )


@pytest.mark.parametrize("server", STORES[1:], indirect=True)
async def test_each_effect_happens_once_although_workers_are_killed(
    shop: Shop, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what a kill cut off from its mark is run again; nothing is left in progress or dead-lettered (I1)."""
    url = await url_of(server)
    shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = url
    proof = Proof(shop, "keyed", Ledger(await ledger_beside(server, shop), is_unique=True))
    took = await proof.run()
    await proof.assert_once()
    repeated = proof.repeated()
    in_progress, done = await marks_at(server, url)
    assert (in_progress, done) == (0, EVENTS)
    assert all("p@ss" not in each.output and "p%40ss" not in each.output for each in [*proof.workers, *proof.dead])
    marks = f"{done:,} marks done, {in_progress} in progress; {repeated}"
    proof.say(f"key in {url.partition(':')[0]}", took, marks, capsys)


@pytest.mark.parametrize("server", SQL_STORES, indirect=True)
async def test_each_effect_is_committed_once_with_its_mark(
    shop: Shop, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger takes whatever comes: only the mark in the same transaction stands before a second effect (I2)."""
    proof = Proof(shop, "inbox", Ledger(await ledger_beside(server, shop), is_unique=False))
    took = await proof.run()
    await proof.assert_once()
    handled = await proof.ledger.inbox()
    assert handled == EVENTS
    proof.say(f"inbox in {proof.ledger.url.partition(':')[0]}", took, f"{handled:,} marks", capsys)


async def ledger_beside(server: Server, shop: Shop) -> str:
    """Return the address of an empty database: where the store is if that is a PostgreSQL, else a file."""
    return (
        await server.make_database() if isinstance(server, Postgres) else f"sqlite:///{shop.folder / 'ledger.sqlite'}"
    )
