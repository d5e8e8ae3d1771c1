"""Bounded room: reserved before a receive, taken by a message, given back exactly once."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from worker.engine.slots import LINGER_SECONDS, SOON_SECONDS, Reservation, Slot, Slots


def now() -> float:
    return asyncio.get_running_loop().time()


async def take(slots: Slots, count: int) -> list[Slot]:
    with await slots.reserve(count) as room:
        return [room.take() for _ in range(count)]


async def take_long_ago(slots: Slots, count: int) -> list[Slot]:
    taken = await take(slots, count)
    await asyncio.sleep(SOON_SECONDS)
    return taken


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    """Four slots, all of which must be free again at the end."""
    slots = Slots(4)
    yield slots
    assert (slots.free, slots.taken, len(slots._waiters)) == (4, 0, 0)


async def test_a_reservation_is_as_large_as_the_room(slots: Slots) -> None:
    """A receive may ask for `min(limit, room)` messages (R1)."""
    with await slots.reserve(3) as first, await slots.reserve(3) as second:
        assert (first.size, second.size, slots.free) == (3, 1, 0)


async def test_a_full_queue_waits_until_a_slot_is_given_back(slots: Slots) -> None:
    """Without room nothing is reserved, however long it takes (R1)."""
    held = await take(slots, 4)
    asyncio.get_running_loop().call_later(3600, held[0].release)
    with await slots.reserve(10) as room:
        assert room.size == 1
        assert now() == pytest.approx(3600)
    for slot in held:
        slot.release()


async def test_what_a_receive_did_not_use_goes_back(slots: Slots) -> None:
    """Places that no message took are free as soon as the receive is over (R1)."""
    with await slots.reserve(4) as room:
        slot = room.take()
    assert slots.free == 3
    slot.release()


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_receive_that_fails_leaks_no_room(slots: Slots, error: type[BaseException]) -> None:
    """Whatever ends a receive, its places come back (R1)."""
    with pytest.raises(error), await slots.reserve(4):
        raise error
    assert slots.free == 4


async def test_a_slot_is_given_back_exactly_once(slots: Slots) -> None:
    """However often a slot is released, its place is counted once (R1)."""
    first, second = await take(slots, 2)
    for _ in range(3):
        first.release()
    assert slots.free == 3
    second.release()


async def test_slots_that_free_one_by_one_are_gathered(slots: Slots) -> None:
    """A receive waits up to 50 ms for more room than the first slot that frees (R2)."""
    for index, slot in enumerate(await take(slots, 4)):
        asyncio.get_running_loop().call_later(0.1 + index * 0.02, slot.release)
    with await slots.reserve(10) as room:
        assert room.size == 3
        assert now() == pytest.approx(0.1 + LINGER_SECONDS, abs=0.001)
    await asyncio.sleep(1)


async def test_half_the_room_is_enough(slots: Slots) -> None:
    """A receive that can ask for half of what it could ever ask for does not wait for the rest (R2, R3)."""
    held = await take(slots, 2)
    with await slots.reserve(10) as room:
        assert (room.size, now()) == (2, 0)
    for slot in held:
        slot.release()


async def test_gathering_ends_when_nothing_more_can_come(slots: Slots) -> None:
    """With all slots back there is nothing left to wait for (R2)."""
    for index, slot in enumerate(await take(slots, 4)):
        asyncio.get_running_loop().call_later(0.1 + index * 0.01, slot.release)
    with await slots.reserve(10) as room:
        assert room.size == 4
        assert now() == pytest.approx(0.13, abs=0.001)


async def test_room_of_parked_receives_is_not_waited_for(slots: Slots) -> None:
    """What another receive has reserved may stay reserved for its whole long poll: no 50 ms are spent on it (R2)."""
    with await slots.reserve(2), await slots.reserve(10) as room:
        assert (room.size, now()) == (2, 0)


async def test_a_slow_handler_is_not_waited_for(slots: Slots) -> None:
    """A slot that is held for long costs the next receive no delay (R3)."""
    (slow,) = await take_long_ago(slots, 1)
    started = now()
    for _ in range(10):
        with await slots.reserve(10) as room:
            assert (room.size, now()) == (3, started)
    slow.release()


async def test_gathering_waits_for_the_fast_among_the_slow(slots: Slots) -> None:
    """Slots that were taken lately are gathered, those held for long are left out (R2, R3)."""
    slow = await take_long_ago(slots, 1)
    started = now()
    for index, slot in enumerate(await take(slots, 3)):
        asyncio.get_running_loop().call_later(0.01 + index * 0.01, slot.release)
    with await slots.reserve(10) as room:
        assert room.size == 3
        assert now() - started == pytest.approx(0.03, abs=0.001)
    for slot in slow:
        slot.release()


async def test_messages_that_came_unasked_take_their_place_off_later_room(slots: Slots) -> None:
    """Should SQS answer with more than it was asked for, none is lost and nothing more is received until they are settled (R1)."""
    with await slots.reserve(4) as room:
        held = [room.take() for _ in range(6)]
    assert (slots.free, slots.taken) == (0, 6)
    for slot in held[:3]:
        slot.release()
    assert slots.free == 1
    for slot in held[3:]:
        slot.release()


async def test_a_pause_holds_back_all_room(slots: Slots) -> None:
    """While paused nothing is reserved, also not by who is gathering already; what is taken is not touched (S6)."""
    held = await take(slots, 3)
    gathering = asyncio.create_task(slots.reserve(10))
    await asyncio.sleep(LINGER_SECONDS / 2)
    slots.bound("gate", 0)
    for slot in held:
        slot.release()
    await asyncio.sleep(600)
    assert not gathering.done()
    slots.bound("gate", None)
    with await gathering as room:
        assert room.size == 4


async def test_closing_ends_all_waiting() -> None:
    """Once closed every reservation is empty, for those that wait and for those that come later (D1)."""
    slots = Slots(4)
    held = await take(slots, 4)
    waiting = [asyncio.create_task(slots.reserve(10)) for _ in range(3)]
    await asyncio.sleep(0.1)
    held[0].release()
    await asyncio.sleep(LINGER_SECONDS / 2)
    slots.close()
    rooms = [*await asyncio.gather(*waiting), await slots.reserve(1)]
    assert [room.size for room in rooms] == [0, 0, 0, 0]
    for slot in held:
        slot.release()
    assert (slots.free, slots.is_closed) == (4, True)


async def test_closing_ends_a_pause() -> None:
    """A paused queue drains like any other (D1)."""
    slots = Slots(2)
    slots.bound("gate", 0)
    waiting = asyncio.create_task(slots.reserve(1))
    await asyncio.sleep(1)
    slots.close()
    assert not await waiting


async def test_ten_thousand_interleavings_lose_no_slot() -> None:
    """Reserving, cancelling, taking and releasing in any order ends with all room free and nobody waiting (R1, A9)."""
    chance = random.Random(20_261_121)
    slots = Slots(7)

    async def receive() -> None:
        room: Reservation
        with await slots.reserve(chance.randint(1, 10)) as room:
            assert 1 <= room.size <= 7
            assert slots.free >= 0
            await asyncio.sleep(chance.choice((0, 0, 0.01, 0.06)))
            taken = [room.take() for _ in range(chance.randint(0, room.size))]
        for slot in taken:
            asyncio.get_running_loop().call_later(chance.choice((0, 0.001, 0.06, 0.7)), slot.release)

    loop = asyncio.get_running_loop()
    on_wire: set[asyncio.Task[None]] = set()
    ends: set[object] = set()
    for turn in range(10_000):
        if len(on_wire) < 16:
            on_wire.add(asyncio.create_task(receive()))
        if chance.random() < 0.3:
            chance.choice(list(on_wire)).cancel()
        if chance.random() < 0.1:
            slots.bound("gate", 0)
            loop.call_later(chance.choice((0, 0.03)), slots.bound, "gate", None)
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.02)))
        ended = {task for task in on_wire if task.done()}
        on_wire -= ended
        ends |= {task.cancelled() or task.exception() for task in ended}
        assert 0 <= slots.free + slots.taken <= 7, turn
    await asyncio.gather(*on_wire)
    await asyncio.sleep(1)
    assert ends == {None, True}
    assert (slots.free, slots.taken, len(slots._waiters)) == (7, 0, 0)
    with await slots.reserve(7) as room:
        assert room.size == 7
