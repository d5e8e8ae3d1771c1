"""What every store of idempotency marks does alike (I1)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from support.stores import STORES, OpenAgain, Server, opener, server_of

from worker.idempotency import Begun, Done, Mark, Other, Running, Store

LONG = 60.0


def mark(key: str = "orders:1", owner: str = "a", *, payload: str = "p", seconds: float = LONG) -> Mark:
    return Mark(key, payload, owner, seconds)


@pytest.fixture(params=STORES)
def server(request: pytest.FixtureRequest) -> Server:
    """What the store of this run needs."""
    return server_of(request.param, request)


@pytest.fixture
async def open_again(server: Server) -> AsyncIterator[OpenAgain]:
    """Opens the store of this run once more; all are closed at the end."""
    async with AsyncExitStack() as stack:
        yield await opener(server, stack)


@pytest.fixture
async def store(open_again: OpenAgain) -> Store:
    return await open_again()


async def test_a_free_key_is_begun(store: Store) -> None:
    assert await store.begin([mark()]) == [Begun()]


async def test_a_key_in_progress_belongs_to_its_owner(store: Store) -> None:
    """The owner itself may begin again: its answer may have been lost."""
    await store.begin([mark()])
    (answer,) = await store.begin([mark(owner="b")])
    assert isinstance(answer, Running)
    assert LONG - 30 < answer.seconds <= LONG
    assert await store.begin([mark()]) == [Begun()]


async def test_what_is_finished_is_done_for_everybody(store: Store) -> None:
    await store.begin([mark()])
    await store.finish([mark()])
    assert await store.begin([mark()]) == [Done()]
    assert await store.begin([mark(owner="b")]) == [Done()]


async def test_what_is_released_is_free(store: Store) -> None:
    await store.begin([mark()])
    await store.release([mark()])
    assert await store.begin([mark(owner="b")]) == [Begun()]


async def test_only_its_owner_releases_a_key(store: Store) -> None:
    await store.begin([mark()])
    await store.release([mark(owner="b")])
    assert isinstance((await store.begin([mark(owner="b")]))[0], Running)


async def test_what_is_done_is_not_released(store: Store) -> None:
    await store.begin([mark()])
    await store.finish([mark()])
    await store.release([mark()])
    assert await store.begin([mark()]) == [Done()]


@pytest.mark.parametrize("is_done", [False, True])
async def test_another_payload_is_told(store: Store, is_done: bool) -> None:  # noqa: FBT001 - a parameter of the test
    await store.begin([mark()])
    if is_done:
        await store.finish([mark()])
    assert await store.begin([mark(payload="q")]) == [Other()]
    assert await store.begin([mark(payload="q", owner="b")]) == [Other()]


async def test_a_mark_that_has_ended_is_free_for_any_payload(store: Store) -> None:
    await store.begin([mark(seconds=0.05)])
    await asyncio.sleep(0.2)
    assert await store.begin([mark(owner="b", payload="q")]) == [Begun()]


async def test_what_is_renewed_lasts(store: Store) -> None:
    await store.begin([mark(seconds=1), mark("orders:2", seconds=1)])
    await store.renew([mark(), mark("orders:2")])
    await asyncio.sleep(1.1)
    answers = await store.begin([mark(owner="b"), mark("orders:2", owner="b")])
    assert all(isinstance(answer, Running) and answer.seconds > 1 for answer in answers)


async def test_nobody_renews_what_is_not_theirs(store: Store) -> None:
    """Not another owner's, not what is done, not what is free."""
    await store.begin([mark(seconds=1), mark("orders:2")])
    await store.finish([mark("orders:2")])
    await store.renew([mark(owner="b"), mark("orders:2"), mark("orders:3")])
    await asyncio.sleep(1.1)
    answers = await store.begin([mark(owner="b"), mark("orders:2", owner="b"), mark("orders:3", owner="b")])
    assert answers == [Begun(), Done(), Begun()]


async def test_work_that_outlasted_its_mark_is_done_although_another_has_begun_it(store: Store) -> None:
    """It was done; when the other one ends, well or ill, that stands."""
    await store.begin([mark(seconds=0.05), mark("orders:2", seconds=0.05)])
    await asyncio.sleep(0.2)
    await store.begin([mark("orders:2", owner="b")])
    await store.finish([mark(), mark("orders:2")])
    assert await store.begin([mark(owner="c"), mark("orders:2", owner="c")]) == [Done(), Done()]
    await store.release([mark("orders:2", owner="b")])
    assert await store.begin([mark("orders:2", owner="c")]) == [Done()]


async def test_answers_come_by_position(store: Store) -> None:
    await store.begin([mark("done"), mark("other"), mark("running")])
    await store.finish([mark("done")])
    asked = [mark("free", "b"), mark("running", "b"), mark("done", "b"), mark("other", "b", payload="q")]
    free, running, done, other = await store.begin(asked)
    assert (free, done, other) == (Begun(), Done(), Other())
    assert isinstance(running, Running)


async def test_hundreds_at_once(store: Store) -> None:
    marks = [mark(f"orders:{number}") for number in range(300)]
    assert await store.begin(marks) == [Begun()] * 300
    await store.renew(marks)
    await store.finish(marks[:200])
    await store.release(marks[200:])
    answers = await store.begin([each._replace(owner="b") for each in marks])
    assert answers == [Done()] * 200 + [Begun()] * 100


async def test_nothing_is_asked_for_nothing(store: Store) -> None:
    assert await store.begin([]) == []
    await store.finish([])
    await store.release([])
    await store.renew([])


async def test_of_all_who_begin_at_once_one_has_begun(open_again: OpenAgain) -> None:
    """From connections of their own, with many keys each in an order of their own (I1)."""
    stores = [await open_again() for _ in range(4)]
    keys = [f"orders:{number}" for number in range(40)]

    async def begin(number: int, store: Store) -> list[bool]:
        ordered = keys[number * 10 :] + keys[: number * 10]
        answers = await store.begin([mark(key, owner=f"worker-{number}") for key in ordered])
        begun = {key for key, answer in zip(ordered, answers, strict=True) if isinstance(answer, Begun)}
        return [key in begun for key in keys]

    begun = await asyncio.gather(*(begin(number, store) for number, store in enumerate(stores)))
    assert [sum(of_key) for of_key in zip(*begun, strict=True)] == [1] * len(keys)


async def test_what_one_has_marked_the_others_see(open_again: OpenAgain) -> None:
    one, other = await open_again(), await open_again()
    await one.begin([mark(), mark("orders:2")])
    await one.finish([mark()])
    await one.close()
    done, running = await other.begin([mark(owner="b"), mark("orders:2", owner="b")])
    assert done == Done()
    assert isinstance(running, Running)


async def test_pruning_keeps_what_has_not_ended(store: Store) -> None:
    await store.begin([mark("ended", seconds=0.05), mark("running"), mark("done")])
    await store.finish([mark("done")])
    await asyncio.sleep(0.2)
    assert await store.prune() in {0, 1}  # some stores forget by themselves
    answers = await store.begin([mark("running", "b"), mark("done", "b"), mark("ended", "b")])
    assert isinstance(answers[0], Running)
    assert answers[1:] == [Done(), Begun()]


async def test_opening_again_changes_nothing(store: Store) -> None:
    await store.begin([mark()])
    await store.open()
    assert isinstance((await store.begin([mark(owner="b")]))[0], Running)


async def test_a_store_as_it_is_made_is_not_doubted(store: Store) -> None:
    """It forgets what has ended, and nothing else."""
    assert await store.doubts() == []
