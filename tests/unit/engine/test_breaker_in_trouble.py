"""The breaker when other things happen meanwhile: retention, defects, drains, lost leases (P1, S7, D1)."""

import asyncio
from typing import Any

import pytest

from worker import Message
from worker.errors import TransientError
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


def send(source: MemorySource, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        source.send(str(number), group_id=str(number) if source.store.is_fifo else None)


@pytest.mark.parametrize("queue", ["orders", "orders.fifo"])
async def test_what_is_held_is_dead_lettered_before_its_retention_ends(queue: str) -> None:
    """SQS deletes silently what is held for too long (S7 before P1)."""
    retention = 7200
    source, runs = MemorySource(queue, retention_seconds=retention), 0

    async def handle(_: Message[Any]) -> None:
        nonlocal runs
        runs += 1
        raise TransientError("down")

    send(source, 10)
    fleet = Fleet(source, attempts=50, max_lease_seconds=3 * retention, dead_letter={"max_receive_count": 60})
    async with fleet.running(handle):
        await asyncio.sleep(retention + 60)
    assert len(source.dead_letters) == 10
