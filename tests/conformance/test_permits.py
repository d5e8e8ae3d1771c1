"""Every store of permits passes this: in memory in virtual time, Redis on the real clock (`-m redis`)."""

import asyncio
import math
import uuid
from itertools import count

import pytest
from support.redis import Redis

from worker.limits import Answer, Claim, PermitStore, StoreError
from worker.limits.redis import RedisPermits


class Owner:
    """A process as the store sees it."""

    def __init__(self, store: PermitStore, places: int | None = 3, lease_seconds: float = 60) -> None:
        self.name = uuid.uuid4().hex
        self.held = 0
        self._store = store
        self._places = places
        self._lease_seconds = lease_seconds
        self._numbers = count(1)

    async def claim(
        self, wanted: int = 0, *, held: int | None = None, is_leaving: bool = False, is_returning: bool = False
    ) -> Answer:
        if held is not None:
            self.held = held
        number = next(self._numbers)
        answer = await self._store.claim(
            Claim(self.name, number, self.held, wanted, self._places, self._lease_seconds, is_leaving, is_returning)
        )
        self.held = answer.kept + answer.granted
        return answer


async def test_no_more_are_given_than_there_are(permits: PermitStore) -> None:
    first, second = Owner(permits), Owner(permits)
    assert (await first.claim(2)).granted == 2
    assert (await second.claim(5)).granted == 1
    answer = await first.claim(1)
    assert (answer.kept, answer.granted, answer.owners) == (2, 0, 2)


async def test_what_is_given_back_is_free(permits: PermitStore) -> None:
    first, second = Owner(permits), Owner(permits)
    await first.claim(3)
    assert (await second.claim(3)).granted == 0
    await first.claim(held=1)
    assert (await second.claim(3)).granted == 2


async def test_an_answer_that_was_lost_is_put_right_by_the_next_claim(permits: PermitStore) -> None:
    """The owner never heard that it was given two: its next claim says that it has none."""
    first, second = Owner(permits), Owner(permits)
    await first.claim(3)
    await first.claim(held=0)
    assert (await second.claim(3)).granted == 3


async def test_a_claim_that_arrives_after_a_later_one_is_refused(permits: PermitStore) -> None:
    owner = Owner(permits)
    await owner.claim(1)
    await owner.claim()
    with pytest.raises(StoreError, match="later claim"):
        await permits.claim(Claim(owner.name, 1, 0, 3, 3, 60))
    assert (await Owner(permits).claim(3)).granted == 2


async def test_who_waits_is_served_in_turn(permits: PermitStore) -> None:
    """Who asks again does not overtake, and each of many who wait gets one before any gets two."""
    busy, first, second = Owner(permits), Owner(permits), Owner(permits)
    await busy.claim(3)
    assert (await first.claim(3)).others_wait == 0
    assert (await second.claim(3)).others_wait == 1
    assert (await busy.claim(1, held=2)).granted == 0
    assert (await second.claim(3)).granted == 0
    assert (await first.claim(3)).granted == 1
    await busy.claim(held=0)
    assert (await first.claim(3)).granted == 1  # one of two is left for the second
    assert (await second.claim(3)).granted == 1


async def test_who_waits_is_woken(permits: PermitStore) -> None:
    busy, waiting = Owner(permits, 1), Owner(permits, 1)
    await busy.claim(1)
    await waiting.claim(1)
    woken = asyncio.create_task(permits.until_woken(waiting.name, 30))
    await asyncio.sleep(0.1)
    assert not woken.done()
    await busy.claim(held=0)
    async with asyncio.timeout(20):
        await woken
    assert (await waiting.claim(1)).granted == 1


async def test_who_wants_none_any_more_leaves_the_line(permits: PermitStore) -> None:
    busy, first, second = Owner(permits, 1), Owner(permits, 1), Owner(permits, 1)
    await busy.claim(1)
    await first.claim(1)
    await second.claim(1)
    await first.claim()
    await busy.claim(held=0)
    assert (await second.claim(1)).granted == 1


async def test_permits_end_with_the_lease_of_their_owner(permits: PermitStore) -> None:
    """A process that died holds nothing after its lease; who waits is told when that is."""
    dead, alive = Owner(permits, lease_seconds=1), Owner(permits)
    await dead.claim(3)
    answer = await alive.claim(3)
    assert (answer.granted, answer.look_again_seconds <= 1.1) == (0, True)
    await asyncio.sleep(answer.look_again_seconds + 0.1)
    assert (await alive.claim(3)).granted == 3
    assert (await dead.claim()).kept == 0


async def test_a_late_owner_keeps_what_nobody_else_has(permits: PermitStore) -> None:
    """It was silent for too long, but only some of its permits are another's."""
    late, other = Owner(permits, lease_seconds=1), Owner(permits)
    await late.claim(3)
    await asyncio.sleep(1.2)
    assert (await other.claim(1)).granted == 1
    assert (await late.claim()).kept == 2


async def test_a_store_that_has_lost_its_data_hears_everybody_before_it_gives(permits: PermitStore) -> None:
    """Who should be known and is not keeps what it holds; for half a lease nobody gets what may be another's (P3)."""
    first, second, new = (Owner(permits, lease_seconds=2) for _ in range(3))
    assert (await first.claim(1, held=1, is_returning=True))[:2] == (1, 0)
    answer = await new.claim(3)
    assert (answer.granted, answer.look_again_seconds <= 1.1) == (0, True)
    assert (await second.claim(held=1, is_returning=True)).kept == 1
    await asyncio.sleep(answer.look_again_seconds + 0.1)
    assert (await first.claim(1)).granted == 1
    assert (await new.claim(3)).granted == 0


async def test_who_leaves_gives_everything_back(permits: PermitStore) -> None:
    leaving, other = Owner(permits), Owner(permits)
    await leaving.claim(3)
    await leaving.claim(held=0, is_leaving=True)
    answer = await other.claim(3)
    assert (answer.granted, answer.owners, answer.look_again_seconds) == (3, 1, math.inf)


async def test_a_limit_of_rates_alone_gives_no_permits(permits: PermitStore) -> None:
    answer = await Owner(permits, places=None).claim()
    assert (answer.kept, answer.granted, answer.owners) == (0, 0, 1)


async def test_starts_are_spaced_evenly(permits: PermitStore) -> None:
    """A tenth of a call a second: the first starts now, the others ten seconds after one another."""
    waits = [await permits.reserve(0.1, math.inf) for _ in range(3)]
    assert waits == [pytest.approx(0, abs=3), pytest.approx(10, abs=3), pytest.approx(20, abs=3)]


async def test_a_start_that_is_too_far_away_takes_no_moment(permits: PermitStore) -> None:
    await permits.reserve(0.1, 0)
    assert await permits.reserve(0.1, 5) is None
    assert await permits.reserve(0.1, 15) == pytest.approx(10, abs=3)


@pytest.mark.redis
async def test_two_limits_of_one_store_do_not_know_each_other(redis_server: Redis) -> None:
    stores = [RedisPermits(redis_server.url, service, "crm") for service in ("orders", "payments")]
    for each in stores:
        assert (await Owner(each).claim(3)).granted == 3
        await each.close()
