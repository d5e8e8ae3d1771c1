"""Lanes when things go wrong at once: lost members, newer receives, suspects, last receives (F1-F3, R9, S4, E4)."""

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

from support.loop_time import now

from worker import Ack, Batch, CallNext, Message, Router
from worker.engine.journal import Suspects
from worker.engine.room import most_in_hand
from worker.outcome import Outcome, Retry
from worker.source import ReceiveRequest
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

LogLines = list[MutableMapping[str, Any]]


def send(source: MemorySource, group: str, count: int) -> None:
    for number in range(count):
        source.send(f"{group}-{number}", group_id=group)


def batch_router(size: int, *, seconds: float = 1) -> tuple[Router, list[list[str]]]:
    router, calls = Router(), []

    @router.on("*", batch=Batch(size))
    async def handle(messages: Sequence[Message[Any]]) -> None:
        calls.append([message.body for message in messages])
        await asyncio.sleep(seconds)

    return router, calls


async def test_many_groups_and_batches_never_have_more_in_hand_than_the_room() -> None:
    """Each lane may be of ten messages, whatever the handler's batch size (R1, B1)."""
    source, (router, _) = MemorySource("orders.fifo"), batch_router(10)
    for number in range(40):
        send(source, f"g{number}", 10)
    fleet = Fleet(source, concurrency=2)
    most = 0
    async with fleet.running(router) as consumer:
        while not source.is_empty:
            await asyncio.sleep(0.25)
            most = max(most, consumer.in_hand)
    assert 100 < most <= most_in_hand(fleet.settings, router) == 200


async def test_a_batch_ends_before_a_member_that_is_lost() -> None:
    """What comes behind a member whose lease is lost is not handled before it (F1, L3)."""
    source, router, calls = MemorySource("orders.fifo", visibility_timeout_seconds=6), Router(), []

    @router.on("*", batch=Batch(3))
    async def handle(messages: Sequence[Message[Any]]) -> None:
        calls.append([message.body for message in messages])
        await asyncio.sleep(10 if len(calls) == 1 else 1)

    send(source, "a", 5)
    async with Fleet(source, visibility_timeout_seconds=6).running(router):
        await asyncio.sleep(1)
        assert calls == [["a-0", "a-1", "a-2"]]
        next(stored for stored in source.stored() if stored.body == "a-4").handle += 1
        next(stored for stored in source.stored() if stored.body == "a-1").handle += 1
        await asyncio.sleep(120)
    done: list[str] = []
    for call in calls[1:]:
        done.extend(body for body in call if body not in done)
    assert done == [f"a-{n}" for n in range(5)]
    assert source.is_empty


async def test_a_suspect_is_not_handled_behind_others() -> None:
    """While it is suspected of having killed a process it is handled alone, also after a careful start (E4)."""
    source, (router, calls) = MemorySource("orders.fifo"), batch_router(5)
    send(source, "a", 4)
    fleet = Fleet(source, concurrency=4)
    fleet.suspects = Suspects({source.stored()[2].id: 1})
    await source.receive(ReceiveRequest(1, 0, 60))  # another worker keeps the group for longer than that lasts
    await fleet.run(router)
    assert calls == [["a-0", "a-1"], ["a-2"], ["a-3"]]


async def test_a_member_that_is_received_again_is_in_no_batch_twice(lines: LogLines) -> None:
    """Its old receive ends first, and takes what is behind it back, up to the new one (R9, F2)."""
    source, router, calls = MemorySource("orders.fifo", visibility_timeout_seconds=6), Router(), []

    @router.on("slow")
    async def slow(message: Message[Any]) -> None:
        calls.append([message.body])
        await asyncio.sleep(9)

    @router.on("*", batch=Batch(10))
    async def handle(messages: Sequence[Message[Any]]) -> None:
        calls.append([message.body for message in messages])
        await asyncio.sleep(1)

    for number in range(3):
        source.send(f"a-{number}", group_id="a", attributes={"event_type": "quick" if number else "slow"})
    async with Fleet(source, visibility_timeout_seconds=6).running(router):
        await asyncio.sleep(1)
        for stored in source.stored()[1:]:
            stored.handle += 1  # SQS knows nothing of their receipts any more
        source.faults.slow("delete", 0.5, times=1, after=True)
        await asyncio.sleep(60)
    assert calls == [["a-0"], ["a-1", "a-2"]]
    assert source.is_empty
    assert not [line for line in lines if "defect" in line["event"]]


async def test_messages_behind_unknown_ones_are_not_dead_lettered_for_them() -> None:
    """Each unknown head goes back a few times, and takes its lane along: never so often that SQS gives the others up (S4, F2, E5)."""
    source, router, done = MemorySource("orders.fifo", max_receive_count=10), Router(), []

    @router.on("known")
    async def handle(message: Message[Any]) -> None:
        done.append(message.body)

    for number in range(6):
        source.send(f"u-{number}", group_id="a", attributes={"event_type": "unknown"})
    for number in range(3):
        source.send(f"k-{number}", group_id="a", attributes={"event_type": "known"})
    await Fleet(source, attempts=3).run(router)
    assert done == ["k-0", "k-1", "k-2"]
    assert [letter.body for letter in source.dead_letters] == [f"u-{n}" for n in range(6)]


async def test_messages_behind_heads_with_long_delays_are_not_dead_lettered_for_them() -> None:
    """A lane with a message at its last receive stays in place (S4, F2)."""
    source, done = MemorySource("orders.fifo", max_receive_count=10), []

    async def handle(message: Message[Any]) -> Outcome | None:
        if message.body < "a-6":
            return Retry(after=100)
        done.append(message.body)
        return None

    send(source, "a", 8)
    await Fleet(source, attempts=3).run(handle)
    assert done == ["a-6", "a-7"]
    assert len(source.dead_letters) == 6


async def test_a_batch_that_waits_for_its_turn_ends_before_a_member_that_is_lost() -> None:
    """Those behind it are handled after it, by whoever gets it next (F1, L3)."""
    source, (router, calls) = MemorySource("orders.fifo", visibility_timeout_seconds=6), batch_router(5, seconds=9)
    send(source, "a", 1)
    send(source, "b", 4)
    async with Fleet(source, visibility_timeout_seconds=6, concurrency=1).running(router):
        await asyncio.sleep(1)
        next(stored for stored in source.stored() if stored.body == "b-1").handle += 1
        await asyncio.sleep(120)
    assert calls == [["a-0"], ["b-0"], ["b-1", "b-2", "b-3"]]
    assert source.is_empty


async def test_a_batch_ends_before_a_member_whose_middleware_failed() -> None:
    """Nobody overtakes a failed one, but one that is done without being handled is in nobody's way (F1, B1)."""
    source, calls = MemorySource("orders.fifo"), []
    failed: list[str] = []

    async def fail_once(message: Message[Any], call_next: CallNext) -> Outcome:
        if message.body == "a-1":
            return Ack()
        if message.body == "a-3" and not failed:
            failed.append(message.body)
            raise RuntimeError("not yet")
        return await call_next(message)

    router = Router(middleware=[fail_once])

    @router.on("*", batch=Batch(6))
    async def handle(messages: Sequence[Message[Any]]) -> None:
        calls.append([message.body for message in messages])

    send(source, "a", 6)
    await Fleet(source, concurrency=1).run(router)
    assert calls == [["a-0", "a-2"], ["a-3", "a-4", "a-5"]]


async def test_a_lane_that_is_received_again_is_in_the_order_of_its_newest_receives() -> None:
    """SQS says of some members that they are lost; of others nobody knows yet when all come again (F1, F2, R9)."""
    source, done = MemorySource("orders.fifo", visibility_timeout_seconds=6), []

    def show(*numbers: int) -> None:
        for stored in [stored for stored in source.stored() if int(stored.body[2:]) in numbers]:
            stored.due = now()
            source.store._push(stored.due, stored)

    async def handle(message: Message[Any]) -> None:
        await asyncio.sleep(9)
        done.append(message.body)

    send(source, "a", 5)
    async with Fleet(source, visibility_timeout_seconds=6).running(handle):
        await asyncio.sleep(1)
        show(1, 4)
        await asyncio.sleep(7.8)
        show(2, 3)
        source.faults.slow("delete", 0.2, times=1, after=True)
        await asyncio.sleep(120)
    assert done == [f"a-{number}" for number in range(5)]
