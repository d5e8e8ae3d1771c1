"""Workers that are told to stop, or killed: nothing is lost, nothing is left hidden."""

import asyncio
import os
import random
import signal
import time

import pytest
from support.shop import Shop

from worker.source import ReceiveRequest

pytestmark = pytest.mark.integration

IS_FULL = os.environ.get("LONGSHORE_DOSE") == "full"


async def test_sigterm_during_work_ends_with_0_and_leaves_nothing_hidden(shop: Shop) -> None:
    """What is in hand is finished within the drain, the rest is visible for the next worker (D1)."""
    shop.configure(process="drain_seconds: 8", concurrency=8, wait_time_seconds=1, visibility_timeout_seconds=30)
    await shop.send(60, seconds=0.5)
    worker = await shop.start()
    await shop.until(lambda: len(shop.handled) >= 8)
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began <= 8
    depth = await shop.depth()
    assert depth.in_flight == 0
    assert depth.visible == 60 - len(shop.handled)
    assert shop.started == shop.handled
    await shop.start()
    await shop.until(shop.is_drained)
    assert shop.handled == dict.fromkeys(range(60), 1)


async def test_a_handler_that_outlasts_the_drain_is_cancelled_and_given_back(shop: Shop) -> None:
    """At `drain_seconds - 3` handlers are cancelled and their messages are visible at once, not after their lease (D1)."""
    shop.configure(process="drain_seconds: 6", concurrency=4, wait_time_seconds=1, visibility_timeout_seconds=600)
    await shop.send(4, seconds=300)
    worker = await shop.start()
    await shop.until(lambda: len(shop.started) == 4)
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began <= 6
    depth = await shop.depth()
    assert (depth.visible, depth.in_flight, depth.dead_letters) == (4, 0, 0)


async def test_a_second_signal_cuts_the_drain_short(shop: Shop) -> None:
    """Who presses Ctrl-C twice does not want to wait (D1)."""
    shop.configure(process="drain_seconds: 60", concurrency=1, wait_time_seconds=1, visibility_timeout_seconds=600)
    await shop.send(1, seconds=300)
    worker = await shop.start()
    await shop.until(lambda: len(shop.started) == 1)
    worker.process.terminate()
    await shop.until(lambda: "draining" in worker.output)
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 20
    assert (await shop.depth()).visible == 1


async def test_kill_9_at_random_loses_nothing(shop: Shop) -> None:
    """Everything that was unsettled comes back after its lease; nothing is dead-lettered for it (D4)."""
    count, kills = (5000, 12) if IS_FULL else (800, 4)
    # A message that was alone in two killed workers and has no attempt left would rightly be a suspected crasher.
    shop.configure(concurrency=32, wait_time_seconds=1, visibility_timeout_seconds=4, attempts=kills + 2)
    await shop.send(count, seconds=0.02)
    chance = random.Random(3)
    for _ in range(kills):
        worker = await shop.start()
        await asyncio.sleep(chance.uniform(0.1, 1.2))
        await worker.kill()
    await shop.start()
    await shop.until(shop.is_drained, seconds=240)
    assert set(shop.handled) == set(range(count))
    assert (await shop.depth()).dead_letters == 0


async def test_a_handler_of_five_timeouts_is_the_only_one_to_see_its_message(shop: Shop) -> None:
    """The lease is extended for as long as the handler runs, while another worker waits for the message (L2)."""
    shop.configure(concurrency=2, wait_time_seconds=1, visibility_timeout_seconds=2)
    await shop.send(1, seconds=10)
    await shop.start()
    await shop.start()
    await shop.until(shop.is_drained)
    assert shop.started == {0: 1}
    assert shop.handled == {0: 1}


async def test_concurrency_1_receives_each_message_once(shop: Shop) -> None:
    """Many waiting messages, one slot: none is received before it can run (R1)."""
    shop.configure(concurrency=1, wait_time_seconds=1, visibility_timeout_seconds=5, attempts=1)
    await shop.send(200, seconds=0.01)
    await shop.start()
    most = 0
    async with asyncio.timeout(60):
        while not await shop.is_drained():
            most = max(most, (await shop.depth()).in_flight)
            await asyncio.sleep(0.05)
    assert most <= 1
    assert shop.started == dict.fromkeys(range(200), 1)
    assert (await shop.depth()).dead_letters == 0


async def test_a_permanent_error_is_in_the_dead_letter_queue_with_its_reason(shop: Shop) -> None:
    """One receive, one run, then the copy: body and own attributes unchanged, the reason beside them (S5)."""
    shop.configure(concurrency=1, wait_time_seconds=1, visibility_timeout_seconds=30)
    await shop.send(1, fail="permanent")
    await shop.start()
    letters = await shop.dead_letters.receive(ReceiveRequest(1, 20, 30))
    assert len(letters) == 1
    assert letters[0].body == '{"n": 0, "fail": "permanent"}'
    reason = letters[0].attributes["longshore.dead_letter"].value
    assert isinstance(reason, str)
    for part in (
        '"reason": "sold out"',
        '"error": "PermanentError"',
        '"handler": "shop_handlers.handle"',
        '"attempts": 1',
    ):
        assert part in reason
    await shop.until(shop.is_drained)


async def test_sigusr1_logs_where_everything_stands(shop: Shop) -> None:
    """A worker that seems to hang tells what it waits for, and goes on (D3)."""
    shop.configure(concurrency=1, wait_time_seconds=1, visibility_timeout_seconds=30)
    await shop.send(1, seconds=3)
    worker = await shop.start()
    await shop.until(lambda: len(shop.started) == 1)
    worker.process.send_signal(signal.SIGUSR1)
    await shop.until(lambda: "shop_handlers.py" in worker.output)
    await shop.until(shop.is_drained)
    assert shop.handled == {0: 1}
