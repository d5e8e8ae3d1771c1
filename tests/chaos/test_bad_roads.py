"""Workers whose way to AWS fails: calls are repeated, nothing is lost, nothing is dead-lettered for it."""

import asyncio
import os

import pytest
from support.proxy import BadRoad
from support.shop import Shop

from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration

IS_FULL = os.environ.get("LONGSHORE_DOSE") == "full"


async def test_throttles_errors_resets_and_partial_failures_lose_nothing(shop: Shop, embedded_aws: EmbeddedAws) -> None:
    """5 % of each trouble on every call, before and after its effect: all handled and deleted, none dead-lettered (R6, S1)."""
    count = 1000 if IS_FULL else 300
    async with BadRoad(embedded_aws.endpoint_url, share=0.05) as road:
        shop.environment["AWS_ENDPOINT_URL"] = road.url
        shop.configure(concurrency=16, wait_time_seconds=1, visibility_timeout_seconds=5, attempts=3)
        await shop.send(count)
        worker = await shop.start()
        await shop.until(shop.is_drained, seconds=120)
        assert worker.process.returncode is None
        assert await worker.terminate() == 0
    assert set(shop.handled) == set(range(count))
    assert (await shop.depth()).dead_letters == 0
    assert road.troubles.keys() >= {"throttle", "500 before", "500 after", "reset before", "reset after", "partial"}


async def test_an_outage_costs_a_few_calls_and_ends_by_itself(shop: Shop, embedded_aws: EmbeddedAws) -> None:
    """While AWS is dark a loop makes a few calls only; it consumes again within 30 s of its return (R6)."""
    dark_seconds = 20 if IS_FULL else 8
    async with BadRoad(embedded_aws.endpoint_url) as road:
        shop.environment["AWS_ENDPOINT_URL"] = road.url
        shop.configure(concurrency=4, wait_time_seconds=1, visibility_timeout_seconds=5)
        await shop.send(10)
        worker = await shop.start()
        await shop.until(shop.is_drained)
        road.go_dark()
        await asyncio.sleep(dark_seconds)
        assert road.calls["ReceiveMessage"] <= 12
        road.is_dark = False
        await shop.send(20)
        await shop.until(shop.is_drained, seconds=30)
        assert worker.process.returncode is None
        assert await worker.terminate() == 0
    assert set(shop.handled) == set(range(20))
    assert worker.output.count("receive fails") <= 3
