"""A limit that one process keeps: what is given at once, and that nobody is overtaken by that."""

import asyncio

from worker.limits import LocalLimiter, granted
from worker.settings import LimitSettings


async def test_a_free_permit_is_given_at_once() -> None:
    limit = LocalLimiter("crm", LimitSettings(concurrency=2))
    first, second = limit.at_once(), limit.at_once()
    assert first is not None
    assert second is not None
    assert limit.at_once() is None
    first.release()
    assert limit.at_once() is not None


async def test_who_comes_later_does_not_overtake_who_waits() -> None:
    """What is given back is the next one's in line from that moment on."""
    limit = LocalLimiter("crm", LimitSettings(concurrency=1))
    permit = limit.at_once()
    assert permit is not None
    waiting = asyncio.create_task(granted(limit.take(1)))
    await asyncio.sleep(0)
    permit.release()
    assert limit.at_once() is None
    (its,) = await waiting
    assert limit.at_once() is None
    its.release()
    assert limit.at_once() is not None


async def test_a_rate_counts_what_starts_at_once() -> None:
    """A moment that is not there is not taken either."""
    limit = LocalLimiter("crm", LimitSettings(per_second=1, concurrency=5))
    assert limit.at_once() is not None
    assert limit.at_once() is None
    assert not await limit.start(0.9)
    await asyncio.sleep(1)
    permit = limit.at_once()
    assert permit is not None
    permit.release()


async def test_a_rate_alone_gives_permits_without_number() -> None:
    limit = LocalLimiter("crm", LimitSettings(per_second=1000))
    for _ in range(3):
        permit = limit.at_once()
        assert permit is not None
        permit.release()
        permit.release()
        await asyncio.sleep(0.001)
