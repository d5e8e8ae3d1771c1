"""Every order several times, workers killed at random: each effect once, on every store (I1, D4)."""

import json
import os
import random
from collections import defaultdict
from contextlib import AsyncExitStack

import pytest
from support.shop import Shop, Worker
from support.stores import STORES, Server, opener, server_of, url_of

from worker.idempotency import Done, IdempotencyKey, Mark, fingerprint_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("embedded_aws")]  # where DynamoDB is, too
IS_FULL = os.environ.get("LONGSHORE_DOSE") == "full"
EVENTS = 200 if IS_FULL else 30
KILLS = 20 if IS_FULL else 3
SECONDS = 0.2
"""How long each takes."""


@pytest.fixture(params=STORES[1:])
def server(request: pytest.FixtureRequest) -> Server:
    """What the store of this run needs."""
    return server_of(request.param, request)


async def test_each_effect_happens_once_although_workers_are_killed(shop: Shop, server: Server) -> None:
    """Only an effect that a kill cut off from its mark may happen again; nothing is left in progress or dead-lettered."""
    chance = random.Random(20_261_128)
    url = await url_of(server)
    shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = url
    shop.configure(
        router="once", concurrency=5, wait_time_seconds=1, visibility_timeout_seconds=3, handler_timeout_seconds=30
    )
    for copy in range(4):
        await shop.send(EVENTS if copy == 0 else chance.randint(EVENTS // 3, EVENTS), seconds=SECONDS)
    workers, dead = [await shop.start(), await shop.start()], list[Worker]()
    for kill in range(KILLS):
        wanted = (kill + 1) * EVENTS // (KILLS + 1)
        await shop.until(lambda wanted=wanted: len(shop.started) >= wanted)
        dead.append(workers.pop(chance.randrange(len(workers))))
        await dead[-1].kill()
        workers.append(await shop.start())
    await shop.until(shop.is_drained, seconds=120)
    assert [await worker.terminate() for worker in workers] == [0] * len(workers)
    ended, killed = ends(shop), {worker.process.pid for worker in dead}
    assert set(ended) == set(range(EVENTS))
    for pids in ended.values():
        assert all(pid in killed for pid in pids[:-1]), "a worker that lived did what had been done"
    assert (await shop.dead_letters.depth()).visible == 0
    await assert_all_done(shop, server, url)
    assert all("p@ss" not in worker.output and "p%40ss" not in worker.output for worker in [*workers, *dead])


def ends(shop: Shop) -> dict[int, list[int]]:
    """Return the processes that did each event, in order."""
    pids = defaultdict[int, list[int]](list)
    for line in (shop.folder / "ledger.txt").read_text().splitlines():
        verb, number, pid, _ = line.split()
        if verb == "end":
            pids[int(number)].append(int(pid))
    return pids


async def assert_all_done(shop: Shop, server: Server, url: str) -> None:
    key = IdempotencyKey("n", owner="the shop")
    async with AsyncExitStack() as stack:
        store = await (await opener(server, stack, url))()
        marks = [
            Mark(
                f"{shop.queue}:{key.read({'n': n})}",
                fingerprint_of(json.dumps({"n": n, "seconds": SECONDS})),
                "late",
                1,
            )
            for n in range(EVENTS)
        ]
        assert await store.begin(marks) == [Done()] * EVENTS
