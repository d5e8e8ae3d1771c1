"""FIFO groups, batches, outages, stolen leases, deploys: every message ends, in order, and no innocent is dead-lettered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.lanes_world import LanesBooks, LanesWorld, lanes_queue, lanes_worlds, steal
from support.world import LAST_MISFORTUNE_SECONDS, Queue, misfortunes

from worker.engine.consumer import Consumer
from worker.testing import virtual_time
from worker.testing.fleet import Fleet

LATEST_END_SECONDS = 4 * 3600
SCRAPS_SECONDS = 25
"""A long poll's answer, and then some."""


@asynccontextmanager
async def _living(world: LanesWorld, queue: Queue, books: LanesBooks) -> AsyncIterator[None]:
    """Send the messages and let happen what happens while inside."""

    async def send() -> None:
        for number, tale in books.in_order():
            await asyncio.sleep(tale.sent_at - asyncio.get_running_loop().time())
            group = f"group-{tale.group}" if world.is_fifo else None
            queue.send(str(number), group_id=group, attributes={"event_type": "many" if tale.in_batches else "one"})

    life = [asyncio.create_task(each) for each in (send(), misfortunes(world, queue), steal(world, queue))]
    try:
        yield
    finally:
        await asyncio.gather(*life)


async def _until_all_have_ended(queue: Queue, consumer: Consumer) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(LAST_MISFORTUNE_SECONDS - loop.time())
    while not queue.is_empty or consumer.in_hand:
        assert loop.time() < LATEST_END_SECONDS, f"{queue.visible} visible, {queue.in_flight} in flight for ever"
        await asyncio.sleep(5)


def _check_the_books(world: LanesWorld, queue: Queue, books: LanesBooks) -> None:
    dead = {letter.body for letter in queue.dead_letters}
    assert books.wrongs == []
    assert set(books.done) | dead == {str(number) for number in range(len(world.all_tales))}
    if world.is_fifo:
        assert books.out_of_order(dead) == []
    assert [body for body in dead if books.is_innocent(body)] == []


async def _one_process(world: LanesWorld) -> None:
    queue, books = lanes_queue(world), LanesBooks(world)
    fleet = Fleet(queue, **world.settings)
    async with _living(world, queue, books), fleet.running(books.router(fleet)) as consumer:
        await _until_all_have_ended(queue, consumer)
        assert consumer.slots.taken == 0
    assert consumer.slots.free == consumer.slots.size
    assert consumer.in_hand == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    _check_the_books(world, queue, books)


@settings(max_examples=3 * settings().max_examples)  # few worlds have much to steal
@given(lanes_worlds(thefts=True))
def test_lanes_and_batches_keep_their_order_and_every_message_ends(world: LanesWorld) -> None:
    """Whatever fails, is lost, or is received again: F1-F3, B1, R1, R9, L3, S4, D5."""
    with capture_logs():
        virtual_time.run(_one_process(world))


@given(lanes_worlds(outages=True))
def test_an_outage_dead_letters_nobody_who_is_not_at_fault(world: LanesWorld) -> None:
    """From a few seconds to nearly `max_lease_seconds`, while receives and settlements fail, too: P1, S4, F2."""
    with capture_logs():
        virtual_time.run(_one_process(world))


async def _many_processes(world: LanesWorld, lives: list[tuple[float, float]]) -> None:
    queue, books = lanes_queue(world), LanesBooks(world)

    async def process(lifetimes: list[tuple[float, float]]) -> None:
        """Live several times; each ends with a drain, which may be too short for what still runs."""
        for lived_seconds, drain_seconds in lifetimes:
            fleet = Fleet(queue, **world.settings)
            async with fleet.running(books.router(fleet), drain_seconds=drain_seconds) as consumer:
                await asyncio.sleep(lived_seconds)
            await books.nothing_runs()
            await asyncio.sleep(SCRAPS_SECONDS)
            assert (consumer.in_hand, consumer.slots.taken) == (0, 0)

    async with _living(world, queue, books):
        await asyncio.gather(process(lives[::2]), process(lives[1::2]))
        fleet = Fleet(queue, **world.settings)
        async with fleet.running(books.router(fleet)) as consumer:
            await _until_all_have_ended(queue, consumer)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    _check_the_books(world, queue, books)


_LIFE = st.tuples(st.sampled_from([0.0, 2.0, 15.0, 60.0, 100.0]), st.sampled_from([0.0, 1.0, 10.0, 25.0, 120.0]))


@given(lanes_worlds(misfortunes=False), st.lists(_LIFE, min_size=1, max_size=4))
def test_deploys_keep_the_order_and_dead_letter_no_innocent(
    world: LanesWorld, lives: list[tuple[float, float]]
) -> None:
    """Two processes come and go at one queue, with SQS's net where the topology puts it: D1, S4, S8, F2, B1."""
    with capture_logs():
        virtual_time.run(_many_processes(world, lives))


@given(lanes_worlds(outages=True, misfortunes=False), st.lists(_LIFE, min_size=1, max_size=3))
def test_deploys_in_an_outage_dead_letter_nobody_who_is_not_at_fault(
    world: LanesWorld, lives: list[tuple[float, float]]
) -> None:
    """Whose attempts other processes had is not at fault while nothing succeeds: P1, S4, D1."""
    with capture_logs():
        virtual_time.run(_many_processes(world, lives))
