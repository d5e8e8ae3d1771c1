"""Any handlers, any outages: every message ends, no two runs overlap, all slots come back, nothing leaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.world import LAST_MISFORTUNE_SECONDS, Books, Queue, World, misfortunes, queue_of, worlds

from worker.engine.consumer import Consumer
from worker.testing import virtual_time
from worker.testing.fleet import Fleet

LATEST_END_SECONDS = 4 * 3600
SCRAPS_SECONDS = 25
"""A long poll's answer, and then some."""


@asynccontextmanager
async def _living(world: World, queue: Queue) -> AsyncIterator[None]:
    """Send the messages and let the misfortunes happen while inside."""

    async def send() -> None:
        for number, story in sorted(enumerate(world.stories), key=lambda pair: pair[1].sent_at):
            await asyncio.sleep(story.sent_at - asyncio.get_running_loop().time())
            queue.send(str(number))

    life = [asyncio.create_task(send()), asyncio.create_task(misfortunes(world, queue))]
    try:
        yield
    finally:
        await asyncio.gather(*life)


async def _until_all_have_ended(queue: Queue, *consumers: Consumer) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(LAST_MISFORTUNE_SECONDS - loop.time())
    while not queue.is_empty or any(consumer.in_hand for consumer in consumers):
        assert loop.time() < LATEST_END_SECONDS, f"{queue.visible} visible, {queue.in_flight} in flight for ever"
        await asyncio.sleep(5)


def _check_the_books(world: World, queue: Queue, books: Books) -> None:
    dead = [letter.body for letter in queue.dead_letters]
    assert {letter.arrived_by for letter in queue.dead_letters} <= {"copy"}
    assert set(books.finished) | set(dead) == {str(number) for number in range(len(world.stories))}
    assert [body for body in dead if world.stories[int(body)].is_innocent] == []
    assert books.overlaps == []


async def _one_process(world: World) -> None:
    queue, books = queue_of(world), Books(world)
    fleet = Fleet(queue, **world.settings)
    async with _living(world, queue), fleet.running(books.handle) as consumer:
        await _until_all_have_ended(queue, consumer)
        assert consumer.slots.taken == 0
    assert consumer.slots.free == consumer.slots.size
    assert consumer.in_hand == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    _check_the_books(world, queue, books)
    assert books.reruns <= queue.unseen_receives
    twice = set(books.finished) & {letter.body for letter in queue.dead_letters}
    assert twice <= queue.unsure_copies | queue.unseen_receives


@given(worlds(doubles=True))
def test_every_message_ends_in_exactly_one_way(world: World) -> None:
    """Handled or dead-lettered, never both, and finished work never runs again; lost answers are the one excuse.

    E1, S1, S2, S5, S6, R9: two runs of one message never overlap, all slots come back, no task is left, and what never
    failed is never dead-lettered.
    """
    with capture_logs():
        virtual_time.run(_one_process(world))


async def _many_processes(world: World, lives: list[tuple[float, float]]) -> None:
    queue, books = queue_of(world), Books(world)

    async def process(lifetimes: list[tuple[float, float]]) -> None:
        """Live several times; each ends with a drain, which may be too short for what still runs."""
        for lived_seconds, drain_seconds in lifetimes:
            async with Fleet(queue, **world.settings).running(books.handle, drain_seconds=drain_seconds) as consumer:
                await asyncio.sleep(lived_seconds)
            await books.nothing_runs()
            await asyncio.sleep(SCRAPS_SECONDS)
            assert (consumer.in_hand, consumer.slots.taken) == (0, 0)

    async with _living(world, queue):
        await asyncio.gather(process(lives[::2]), process(lives[1::2]))
        async with Fleet(queue, **world.settings).running(books.handle) as consumer:
            await _until_all_have_ended(queue, consumer)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    _check_the_books(world, queue, books)


_LIFE = st.tuples(st.sampled_from([0.0, 2.0, 15.0, 60.0, 100.0]), st.sampled_from([0.0, 1.0, 10.0, 25.0, 120.0]))


@given(worlds(doubles=False), st.lists(_LIFE, min_size=1, max_size=6))
def test_restarts_lose_nothing_and_dead_letter_no_innocent(world: World, lives: list[tuple[float, float]]) -> None:
    """Two processes come and go at one queue: nothing is lost, no lease is held twice, drains are no failures.

    S4, S8, L2, D1, D5. What SQS itself hands to two processes at once, no worker can tell.
    """
    with capture_logs():
        virtual_time.run(_many_processes(world, lives))
