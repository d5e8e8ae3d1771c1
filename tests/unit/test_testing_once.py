"""`run` and `run_batch` do the work of an idempotency key once where they are given a store, as the engine does (I1)."""

import asyncio

import pytest

from worker import Ack, Batch, DeadLetter, Message, Outcome, PermanentError, Retry, Router
from worker.testing import MemoryStore, run, run_batch

seen: list[object] = []
router = Router()


@router.on("order.created", idempotency_key="order_id")
async def reserve(message: Message[dict[str, object]]) -> None:
    seen.append(message.event["order_id"])
    if message.event.get("fails"):
        raise PermanentError("sold out")


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


async def created(store: MemoryStore | None, queue: str = "orders", **event: object) -> Ack | Retry | DeadLetter:
    return await run(router, event, event_type="order.created", store=store, queue=queue)


async def test_a_key_that_comes_again_is_done_before() -> None:
    store = MemoryStore()
    assert await created(store, order_id="a") == Ack()
    assert await created(store, order_id="a") == Ack("done before")
    assert await created(store, order_id="b") == Ack()
    assert await created(store, queue="mail", order_id="a") == Ack()  # marks belong to a consumer
    assert seen == ["a", "b", "a"]


async def test_a_key_with_another_payload_is_a_dead_letter() -> None:
    store = MemoryStore()
    assert await created(store, order_id="a", quantity=1) == Ack()
    outcome = await created(store, order_id="a", quantity=2)
    assert outcome == DeadLetter("the idempotency key was used before, with another payload")
    assert seen == ["a"]


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["no store", "a store"])
async def test_an_event_without_its_key_is_a_dead_letter(store: MemoryStore | None) -> None:
    outcome = await created(store, quantity=1)
    assert outcome == DeadLetter("no idempotency key: the payload's order_id is missing")
    assert seen == []


async def test_what_failed_is_not_done() -> None:
    store = MemoryStore()
    for _ in range(2):
        assert await created(store, order_id="a", fails=True) == DeadLetter("sold out")
    assert seen == ["a", "a"]
    assert store.rows == {}


async def test_without_a_store_every_run_runs() -> None:
    for _ in range(2):
        assert await created(None, order_id="a") == Ack()
    assert seen == ["a", "a"]


async def test_what_raises_frees_its_key_and_what_runs_is_waited_for() -> None:
    slow, entered, store = Router(), asyncio.Event(), MemoryStore()

    @slow.on("*", idempotency_key="id")
    async def stand(_: Message[dict[str, object]]) -> None:
        entered.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(run(slow, {"id": "a"}, store=store))
    await entered.wait()
    outcome = await run(slow, {"id": "a"}, store=store)
    assert isinstance(outcome, Retry)
    assert not outcome.is_downstream
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert store.rows == {}


async def test_members_of_a_batch_that_were_done_before_are_left_out() -> None:
    batches, calls, store = Router(), list[list[object]](), MemoryStore()

    @batches.on("*", idempotency_key="id", batch=Batch(10))
    async def take(messages: list[Message[dict[str, object]]]) -> dict[str, Outcome]:
        calls.append([message.event["id"] for message in messages])
        return {message.id: DeadLetter("bad") for message in messages if message.event.get("bad")}

    first = await run_batch(batches, [{"id": "a"}, {"id": "b", "bad": True}, {"nothing": 1}], store=store)
    assert first == [Ack(), DeadLetter("bad"), DeadLetter("no idempotency key: the payload's id is missing")]
    second = await run_batch(batches, [{"id": "a"}, {"id": "b", "bad": True}, {"id": "a", "other": 1}], store=store)
    assert second == [
        Ack("done before"),
        DeadLetter("bad"),
        DeadLetter("the idempotency key was used before, with another payload"),
    ]
    assert await run_batch(batches, [{"id": "a"}], store=store) == [Ack("done before")]
    assert calls == [["a", "b"], ["b"]]


async def test_of_two_members_with_one_key_one_waits() -> None:
    batches, store = Router(), MemoryStore()

    @batches.on("*", idempotency_key="id", batch=Batch(10))
    async def take(messages: list[Message[dict[str, object]]]) -> None:
        assert len(messages) == 1

    one, other = await run_batch(batches, [{"id": "a"}, {"id": "a"}], store=store)
    assert one == Ack()
    assert isinstance(other, Retry)
