"""The work of an idempotency key is done once, whatever is delivered how often (I1)."""

import asyncio
import json
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from support.kills import killed
from support.loop_time import now

from worker import Ack, Batch, Message, Outcome, PermanentError, Retry, Router, TransientError
from worker.engine.once import OTHER_PAYLOAD
from worker.idempotency import Answer, Mark, MemoryStore
from worker.idempotency.store import Row
from worker.telemetry import declared
from worker.telemetry.cells import Number
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


class Shop:
    """A handler that takes its time and notes what it has done."""

    def __init__(self, *, seconds: float = 1.0, **options: Any) -> None:
        self.seconds = seconds
        self.failures: list[Exception] = []
        self.started: list[str] = []
        self.done: list[str] = []
        self.done_at: list[float] = []
        self.router = Router()
        self.router.on("*", idempotency_key="order_id", **options)(self.handle)

    async def handle(self, message: Message[dict[str, Any]]) -> None:
        self.started.append(message.event["order_id"])
        await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        self.done.append(message.event["order_id"])
        self.done_at.append(now())


def order(number: str, **more: object) -> str:
    fields = "".join(f', "{name}": {value}' for name, value in more.items())
    return f'{{"order_id": "{number}"{fields}}}'


def fleet_at(source: MemorySource, store: MemoryStore, **settings: Any) -> Fleet:
    fleet = Fleet(source, **settings)
    fleet.store = store
    return fleet


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_duplicate_of_done_work_is_acked(source: MemorySource, store: MemoryStore) -> None:
    """Another message with the same key and payload is not run (I1)."""
    shop = Shop()
    source.send(order("1"))
    await fleet_at(source, store).run(shop.router)
    source.send(' { "order_id" : "1" } ')
    fleet = fleet_at(source, store)
    await fleet.run(shop.router)
    assert shop.done == ["1"]
    assert len(store.done) == 1
    assert fleet.consumer is not None
    assert ("longshore_idempotency_duplicates_total", "done", 1) in counted(fleet)


async def test_a_duplicate_of_running_work_waits_and_is_acked(source: MemorySource, store: MemoryStore) -> None:
    """It is no failure, however long the work runs: it spends no attempt and is never dead-lettered (I1)."""
    shop = Shop(seconds=1200)
    for _ in range(5):
        source.send(order("1"))
    await fleet_at(source, store, attempts=1, dead_letter={"max_receive_count": 2}).run(shop.router)
    assert shop.started == shop.done == ["1"]
    assert source.dead_letters == []
    assert store.in_progress == []


async def test_a_duplicate_of_another_process_s_work_waits(source: MemorySource, store: MemoryStore) -> None:
    """Marks are renewed as long as the work runs, also for hours (I1)."""
    shop = Shop(seconds=3000)
    source.send(order("1"))
    source.send(order("1"))
    one, two = fleet_at(source, store, concurrency=1), fleet_at(source.another(), store, concurrency=1)
    await asyncio.gather(one.run(shop.router), two.run(shop.router))
    assert shop.started == shop.done == ["1"]
    assert source.dead_letters == []


async def test_waiting_for_work_that_runs_elsewhere_never_opens_the_breaker(store: MemoryStore) -> None:
    source = MemorySource()
    shop = Shop(seconds=600)
    source.send(order("1"))
    async with fleet_at(source, store).running(shop.router):
        await asyncio.sleep(5)
        second = source.another()
        for _ in range(100):
            second.send(order("1"))
        second.send(order("2"))
        fleet = fleet_at(second, store, concurrency=200)
        async with fleet.running(shop.router) as consumer:
            await asyncio.sleep(590)
            assert "breaker" not in consumer.context.vitals.warnings
    assert set(shop.started) == {"1", "2"}


async def test_work_that_failed_is_free_at_once(source: MemorySource, store: MemoryStore) -> None:
    """The mark of a failed run does not keep the next one waiting (I1)."""
    shop = Shop()
    shop.failures = [TransientError("busy", retry_after=3)]
    source.send(order("1"))
    await fleet_at(source, store).run(shop.router, seconds=10)
    assert shop.started == ["1", "1"]
    assert shop.done == ["1"]


async def test_work_that_can_never_succeed_may_be_redriven(source: MemorySource, store: MemoryStore) -> None:
    """A dead letter leaves its key free: what is redriven is run."""
    shop = Shop()
    shop.failures = [PermanentError("sold out")]
    source.send(order("1"))
    await fleet_at(source, store).run(shop.router)
    assert reasons(source) == ["sold out"]
    assert store.rows == {}


async def test_a_key_that_is_used_again_with_another_payload_is_a_dead_letter(source: MemorySource, store: MemoryStore) -> None:  # fmt: skip
    """Never a silent skip: somebody has to decide which of the two is meant (I1)."""
    shop = Shop()
    source.send(order("1", amount=10))
    await fleet_at(source, store).run(shop.router)
    source.send(order("1", amount=99))
    await fleet_at(source, store).run(shop.router)
    assert reasons(source) == [OTHER_PAYLOAD]
    assert shop.done == ["1"]


@pytest.mark.parametrize("body", ['{"id": 1}', '{"order_id": null}', '{"order_id": ""}', '{"order_id": {"a": 1}}'])
async def test_an_event_without_its_key_is_a_dead_letter(source: MemorySource, store: MemoryStore, body: str) -> None:
    shop = Shop()
    source.send(body)
    await fleet_at(source, store).run(shop.router)
    (reason,) = reasons(source)
    assert reason.startswith("no idempotency key: the payload's order_id ")
    assert shop.started == []


async def test_a_lost_answer_of_a_delete_does_not_repeat_the_work(source: MemorySource, store: MemoryStore) -> None:
    """First cause of a duplicate: the network fails when the message is to be deleted."""
    shop = Shop()
    source.send(order("1"))
    failing = source.faults.fail("delete", times=None)
    await fleet_at(source, store).run(shop.router, seconds=5)
    failing.stop()
    assert shop.done == ["1"]
    assert not source.is_empty
    await fleet_at(source.another(), store).run(shop.router)
    assert shop.done == ["1"]
    assert source.is_empty


async def test_a_failed_extension_lets_no_two_runs_overlap(source: MemorySource, store: MemoryStore) -> None:
    """Second cause: the lease ends under a handler that ignores it. The next one waits until it has ended."""
    running, overlaps, done = set[str](), list[str](), list[str]()

    async def stubborn(message: Message[dict[str, Any]]) -> None:
        key = message.event["order_id"]
        overlaps.extend(running & {key})
        running.add(key)
        ends_at = now() + 100
        try:
            while (left := ends_at - now()) > 0:
                try:
                    await asyncio.sleep(left)
                except asyncio.CancelledError:
                    continue
            done.append(key)
        finally:
            running.discard(key)

    router = Router()
    router.on("*", idempotency_key="order_id")(stubborn)
    source.send(order("1"))
    one, other = fleet_at(source, store), fleet_at(source.another(), store)
    source.faults.fail("extend", times=None)
    async with one.running(router):
        await asyncio.sleep(5)
        await other.run(router)
    assert overlaps == []
    assert done == ["1", "1"]  # the first was not let finish by its word: it had been told to stop


async def test_a_crash_before_the_delete_does_not_repeat_the_work(source: MemorySource, store: MemoryStore) -> None:
    """Third cause: the process dies when the work is done, but the message not yet deleted."""
    shop = Shop()
    source.send(order("1"))
    source.faults.hang("delete", None, times=None)
    async with killed(fleet_at(source, store), shop.router):
        await asyncio.sleep(5)
    assert shop.done == ["1"]
    await fleet_at(source.another(), store).run(shop.router)
    assert shop.done == ["1"]
    assert source.is_empty


async def test_a_crash_in_progress_frees_the_key_soon_after_the_lease(source: MemorySource, store: MemoryStore) -> None:
    """The message comes back with its lease, and its key is free within one visibility timeout (I1, D4)."""
    shop = Shop(seconds=100)
    source.send(order("1"))
    async with killed(fleet_at(source, store), shop.router):
        await asyncio.sleep(50)
    shop.seconds = 1
    began = now()
    await fleet_at(source.another(), store).run(shop.router)
    assert shop.done == ["1"]
    assert shop.done_at[0] - began <= 30 + 3


@pytest.mark.parametrize("window_seconds", [None, 8.0])
async def test_a_mark_never_ends_before_its_lease(
    source: MemorySource, store: MemoryStore, window_seconds: float | None
) -> None:
    """Whenever it was begun, for as long as its handler runs: a worker that stands still loses both together (I1)."""
    router = Router()
    if window_seconds is None:
        router.on("*", idempotency_key="order_id")(Shop(seconds=200).handle)
    else:

        @router.on("*", idempotency_key="order_id", batch=Batch(10, window_seconds=window_seconds))
        async def handle(_: Sequence[Message[dict[str, Any]]]) -> None:
            await asyncio.sleep(200)

    async with fleet_at(source, store, concurrency=10).running(router) as consumer:
        looked = 0
        for number in range(120):
            if number % 7 == 0:
                source.send(order(str(number)))
            await asyncio.sleep(1.3)
            leases = [delivery.lease.deadline for delivery in consumer.keeper._table.values()]
            ends = [row.ends_at for row in store.rows.values() if row.owner is not None]
            assert len(ends) == len(leases)
            looked += len(ends)
            for lease, mark in zip(sorted(leases), sorted(ends), strict=True):
                assert lease - 0.1 <= mark <= now() + 30
        assert looked > 500


async def test_a_store_that_is_down_at_the_start_is_named_and_nothing_is_received(source: MemorySource, store: MemoryStore) -> None:  # fmt: skip
    store.is_down = True
    shop = Shop()
    source.send(order("1"))
    async with fleet_at(source, store).running(shop.router) as consumer:
        await asyncio.sleep(100)
        assert consumer.context.vitals.problems == {
            "idempotency": "the idempotency store does not answer: the store in memory is down"
        }
        assert source.receives == {}
        store.is_down = False
        await asyncio.sleep(30)
        assert consumer.context.vitals.problems == {}
        assert shop.done == ["1"]


async def test_a_store_that_goes_down_later_loses_nothing(source: MemorySource, store: MemoryStore) -> None:
    """What is in hand waits with its lease kept; nothing more is received, and neither a receive nor an attempt is spent (I1, P1)."""
    shop = Shop(seconds=0.1)
    settings = {"attempts": 1, "dead_letter": {"max_receive_count": 1}, "concurrency": 10}
    async with fleet_at(source, store, **settings).running(shop.router) as consumer:
        await asyncio.sleep(1)
        store.is_down = True
        for number in range(50):
            source.send(order(str(number)))
        await asyncio.sleep(1000)
        assert consumer.context.vitals.problems == {
            "idempotency": "the idempotency store does not answer: the store in memory is down"
        }
        assert consumer.context.vitals.stuck_loops() == []
        assert len(source.receives) <= 10
        store.is_down = False
        await asyncio.sleep(5)
        assert consumer.context.vitals.problems == {}
        while not source.is_empty:  # noqa: ASYNC110 - a queue in memory tells nobody
            await asyncio.sleep(1)
    assert source.dead_letters == []
    assert sorted(shop.done, key=int) == [str(number) for number in range(50)]


@pytest.mark.parametrize("trouble", ["hangs", "raises what it must not"])
async def test_a_store_that_misbehaves_is_a_store_that_is_down(source: MemorySource, trouble: str) -> None:
    """One that does not answer within five seconds, or has a defect, costs no message (I1)."""

    class Misbehaving(MemoryStore):
        is_bad = True

        async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
            if self.is_bad and trouble == "hangs":
                await asyncio.sleep(1e6)
            if self.is_bad:
                raise KeyError("a defect")
            return await super().begin(marks)

    store, shop = Misbehaving(), Shop()
    for number in range(5):
        source.send(order(str(number)))
    async with fleet_at(source, store, attempts=2).running(shop.router) as consumer:
        await asyncio.sleep(60)
        assert "idempotency" in consumer.context.vitals.problems
        assert shop.started == []
        store.is_bad = False
        while not source.is_empty:  # noqa: ASYNC110 - a queue in memory tells nobody
            await asyncio.sleep(1)
    assert len(shop.done) == 5
    assert source.dead_letters == []


async def test_what_is_done_waits_for_its_mark(source: MemorySource, store: MemoryStore) -> None:
    """It is not deleted before the store has it, however long that was away: a duplicate that comes then is not run (I1)."""
    shop = Shop(seconds=1)
    source.send(order("1"))
    async with fleet_at(source, store).running(shop.router):
        await asyncio.sleep(0.5)
        store.is_down = True
        await asyncio.sleep(200)
        assert source.calls["delete"] == 0
        source.send(order("1"))
        store.is_down = False
        await asyncio.sleep(5)
        assert source.is_empty
    assert shop.done == ["1"]
    assert len(store.done) == 1


async def test_work_whose_mark_cannot_be_written_is_acked_at_the_end_of_a_drain(source: MemorySource, store: MemoryStore) -> None:  # fmt: skip
    shop = Shop(seconds=1)
    source.send(order("1"))
    fleet = fleet_at(source, store)
    async with fleet.running(shop.router):
        await asyncio.sleep(0.5)
        store.is_down = True
        await asyncio.sleep(3)
    assert source.is_empty
    failed = {call for name, call, times in counted(fleet) if name == "longshore_idempotency_errors_total" and times}
    assert failed == {"finish", "open"}
    assert shop.done == ["1"]


async def test_work_that_another_one_has_begun_while_the_store_was_away_is_cancelled(
    source: MemorySource, store: MemoryStore, lines: list[MutableMapping[str, Any]]
) -> None:
    """Our mark has ended, its new owner's stands: the message is given back, and finds the work done (I1)."""
    shop, other = Shop(seconds=300), Mark("orders:x", "", "another", 30)
    source.send(order("1"))
    async with fleet_at(source, store).running(shop.router):
        await asyncio.sleep(1)
        ((key, row),) = store.rows.items()
        store.is_down = True
        await asyncio.sleep(60)
        assert shop.started == ["1"]
        store.rows[key] = Row(row.fingerprint, "another", now() + 30)
        store.is_down = False
        await asyncio.sleep(10)
        assert shop.done == []
        assert [line["event"] for line in lines].count("another one has begun this work while the store was away") == 1
        await store.finish([other._replace(key=key, fingerprint=row.fingerprint)])
        await asyncio.sleep(60)
        assert source.is_empty
    assert shop.started == ["1"]


async def test_work_that_runs_is_marked_anew_before_anything_is_received(source: MemorySource, store: MemoryStore) -> None:  # fmt: skip
    """Its mark has ended while the store was away, and nobody has begun it: a duplicate waits for it (I1)."""
    shop = Shop(seconds=120)
    source.send(order("1"))
    async with (
        fleet_at(source, store).running(shop.router),
        fleet_at(source, store).running(shop.router),
    ):
        await asyncio.sleep(1)
        store.is_down = True
        source.send(order("1"))
        await asyncio.sleep(100)
        assert store.in_progress == []
        store.is_down = False
        while not source.is_empty:  # noqa: ASYNC110 - a queue in memory tells nobody
            await asyncio.sleep(1)
    assert shop.started == ["1"]
    assert shop.done == ["1"]


async def test_the_same_key_at_two_consumers_is_two_pieces_of_work(store: MemoryStore) -> None:
    """Each queue does its own work for an order, unless they are told to share it (`consumer`)."""
    shop = Shop()
    for name, settings in (
        ("stock", {}),
        ("mail", {}),
        ("shop-a", {"consumer": "shop"}),
        ("shop-b", {"consumer": "shop"}),
    ):
        source = MemorySource(name)
        source.send(order("1"))
        await fleet_at(source, store, **settings).run(shop.router)
    assert shop.done == ["1", "1", "1"]


async def test_members_of_a_batch_are_marked_together(source: MemorySource, store: MemoryStore) -> None:
    """Each is judged by itself, and all of them share the calls to the store (I1, B1)."""
    seen: list[list[str]] = []
    router = Router()

    @router.on("*", batch=Batch(10, window_seconds=1), idempotency_key="order_id")
    async def handle(messages: Sequence[Message[dict[str, Any]]]) -> dict[str, Outcome]:
        seen.append([message.event["order_id"] for message in messages])
        return {message.id: Ack() for message in messages}

    for number in (1, 2, 3, 4, 1, 2):
        source.send(order(str(number)))
    await fleet_at(source, store).run(router)
    assert [sorted(batch) for batch in seen] == [["1", "2", "3", "4"]]
    assert store.calls.count("begin") <= 3
    assert store.calls.count("finish") == 1
    assert source.is_empty


@pytest.mark.parametrize("batch", [None, Batch(3)])
async def test_a_group_keeps_its_order_around_duplicates(store: MemoryStore, batch: Batch | None) -> None:
    """In a FIFO group a duplicate of done work is passed over, one of running work is waited for (I1, F1)."""
    source = MemorySource("orders.fifo")
    done: list[str] = []
    router = Router()
    if batch is None:

        @router.on("*", idempotency_key="order_id")
        async def handle(message: Message[dict[str, Any]]) -> None:
            done.append(message.event["order_id"])

    else:

        @router.on("*", idempotency_key="order_id", batch=batch)
        async def handle_many(messages: Sequence[Message[dict[str, Any]]]) -> None:
            done.extend(message.event["order_id"] for message in messages)

    for place, number in enumerate((1, 2, 1, 1, 3, 2, 4)):
        source.send(order(str(number)), group_id="g", deduplication_id=str(place))
    await fleet_at(source, store, attempts=1, dead_letter={"max_receive_count": 1}).run(router)
    assert done == ["1", "2", "3", "4"]
    assert source.is_empty
    assert source.dead_letters == []


async def test_behind_the_first_failure_of_a_group_nothing_is_marked_as_done(store: MemoryStore) -> None:
    """What a batch handler says of messages behind it does not count: they are handled again, and no mark says that they were (I1, B1)."""
    source = MemorySource("orders.fifo")
    effects: list[str] = []
    failing = ["2"]
    router = Router()

    @router.on("*", idempotency_key="order_id", batch=Batch(10))
    async def handle_many(messages: Sequence[Message[dict[str, Any]]]) -> dict[str, Outcome]:
        for message in messages:
            if message.event["order_id"] in failing:
                failing.remove(message.event["order_id"])
                return {message.id: Retry(after=1)}  # and stop there
            effects.append(message.event["order_id"])
        return {}

    for number in range(1, 5):
        source.send(order(str(number)), group_id="g", deduplication_id=str(number))
    await fleet_at(source, store).run(router)
    assert effects == ["1", "2", "3", "4"]
    assert source.is_empty
    assert source.dead_letters == []
    assert len(store.done) == 4


def reasons(source: MemorySource) -> list[str]:
    return [json.loads(letter.attributes["longshore.dead_letter"].value)["reason"] for letter in source.dead_letters]


def counted(fleet: Fleet) -> set[tuple[str, str, float]]:
    """Return the counters of idempotency: name, label and value."""
    assert fleet.consumer is not None
    sheet = fleet.consumer.context.metrics.sheet
    return {
        (metric.name, labels[label], cell.value)
        for metric, label in ((declared.IDEMPOTENCY_DUPLICATES, "of"), (declared.IDEMPOTENCY_ERRORS, "call"))
        for labels, cell in sheet.series(metric)
        if isinstance(cell, Number)
    }
