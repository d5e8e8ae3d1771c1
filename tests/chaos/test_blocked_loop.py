"""A handler that blocks the event loop: its lease, and those of its neighbours, are kept by a thread (L6)."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from support.shop import Shop

pytestmark = pytest.mark.integration


def lines(output: str, event: str) -> list[dict[str, Any]]:
    """Return the log lines of an event."""
    found: Iterable[dict[str, Any]] = map(json.loads, output.splitlines())
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_handler_that_blocks_for_three_timeouts_is_the_only_one_to_see_its_message(
    shop: Shop, loop: str
) -> None:
    """Another worker waits for it in vain; the neighbours in hand keep their leases, too, and the log names the line."""
    shop.configure(concurrency=5, wait_time_seconds=1, visibility_timeout_seconds=4, handler_timeout_seconds=60)
    shop.has_uvloop = loop == "uvloop"
    for number in range(1, 4):
        await shop.send(1, n=number, seconds=3)
    await shop.send(1, n=0, blocks=12)
    blocked = await shop.start()
    await shop.until(lambda: 0 in shop.started)
    await shop.start()
    await shop.until(shop.is_drained)
    assert shop.started == dict.fromkeys(range(4), 1)
    assert shop.handled == dict.fromkeys(range(4), 1)
    assert (await shop.depth()).dead_letters == 0
    reports = lines(blocked.output, "the event loop is blocked")
    assert len(reports) == 1
    assert reports[0]["stands_in"][-1].endswith(" handle")
    assert "shop_handlers.py" in reports[0]["stands_in"][-1]
    assert lines(blocked.output, "lease lost") == []


async def test_a_handler_that_hangs_for_good_loses_its_lease(shop: Shop) -> None:
    """After twice the timeout the watchdog lets go: another worker gets the message (L6)."""
    shop.configure(concurrency=1, wait_time_seconds=1, visibility_timeout_seconds=3)
    await shop.send(1, blocks=20)
    hung = await shop.start()
    await shop.until(lambda: shop.started == {0: 1})
    second = await shop.start()
    await shop.until(lambda: shop.started == {0: 2})
    await hung.kill()
    await second.kill()
