"""The breaker: an outage of what handlers depend on stops the intake and dead-letters nothing (P1)."""

import asyncio
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from support.loop_time import now

from worker import Batch, Message, Router
from worker.engine.breaker import lies_downstream
from worker.errors import PermanentError, TransientError
from worker.outcome import Outcome, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HOUR = 3600.0
LogLines = list[MutableMapping[str, Any]]


class Downstream:
    """What handlers depend on: down from one moment to another; each call takes a tenth of a second."""

    def __init__(self, *outages: tuple[float, float], error: Callable[[], Exception] = lambda: TransientError("down")) -> None:  # fmt: skip
        self.outages = outages
        self.error = error
        self.poison: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.called_at: list[float] = []
        self.done: list[str] = []

    @property
    def is_down(self) -> bool:
        return any(start <= now() < end for start, end in self.outages)

    async def __call__(self, message: Message[Any]) -> None:
        self.calls[message.body] += 1
        self.called_at.append(now())
        await asyncio.sleep(0.1)
        if self.is_down or message.body in self.poison:
            raise self.error()
        self.done.append(message.body)


def send(source: MemorySource, count: int, *, first: int = 0) -> list[str]:
    bodies = [str(number) for number in range(first, first + count)]
    for body in bodies:
        source.send(body, group_id=body if source.store.is_fifo else None)
    return bodies


def fleet_of(source: MemorySource, **settings: Any) -> Fleet:
    """Return a fleet with SQS's net one receive behind the attempts."""
    return Fleet(source, **{"attempts": 3, "dead_letter": {"max_receive_count": 4}, **settings})


@pytest.fixture(params=["orders", "orders.fifo"])
def source(request: pytest.FixtureRequest) -> MemorySource:
    return MemorySource(request.param, max_receive_count=4)


@pytest.mark.parametrize("seconds", [25.0, HOUR - 60])
@pytest.mark.parametrize("count", [2, 5, 40, 200])
async def test_an_outage_dead_letters_nothing(source: MemorySource, seconds: float, count: int) -> None:
    """Whether it lasts 25 seconds or an hour, few messages wait or many: all are handled after it (P1)."""
    downstream = Downstream((0, seconds))
    bodies = send(source, count)
    await fleet_of(source).run(downstream)
    assert source.dead_letters == []
    assert sorted(downstream.done) == sorted(bodies)
    assert now() < seconds + 120


async def test_an_outage_in_the_middle_of_traffic_dead_letters_nothing() -> None:
    source = MemorySource(max_receive_count=4)
    downstream = Downstream((10, 10 + HOUR / 2))
    async with fleet_of(source).running(downstream):
        for number in range(600):
            send(source, 5, first=number * 5)
            await asyncio.sleep(0.05 if number < 300 else 6)
        while not source.is_empty:  # noqa: ASYNC110 - a queue in memory tells nobody
            await asyncio.sleep(1)
    assert source.dead_letters == []
    assert len(set(downstream.done)) == 3000


async def test_while_it_is_open_one_message_is_tried_after_each_pause() -> None:
    """The downstream is not hammered: once per pause, whatever waits (P1)."""
    source = MemorySource()
    downstream = Downstream((0, 600))
    send(source, 100)
    async with Fleet(source, concurrency=20, breaker={"pause_seconds": 10}).running(downstream):
        await asyncio.sleep(600)
    opened = [at for at in downstream.called_at if at > 2]
    assert 50 <= len([at for at in opened if at < 600]) <= 66
    assert len(source.receives) <= 40


async def test_what_is_held_keeps_its_lease_and_spends_no_receive() -> None:
    """However long it is held and however often it is tried, it is one receive (P1, L2)."""
    source = MemorySource("orders.fifo", visibility_timeout_seconds=6, max_receive_count=4)
    downstream = Downstream((0, 1800))
    send(source, 10)
    fleet = fleet_of(source, visibility_timeout_seconds=6)
    async with fleet.running(downstream) as consumer:
        await asyncio.sleep(60)
        assert (consumer.in_hand, source.in_flight) == (10, 10)
        await asyncio.sleep(1700)
        assert source.in_flight == 10
        while not source.is_empty:  # noqa: ASYNC110 - a queue in memory tells nobody
            await asyncio.sleep(1)
    assert {len(times) for times in source.receives.values()} == {1}
    assert downstream.calls.total() > 300


async def test_a_message_that_fails_alone_is_dead_lettered_after_its_attempts() -> None:
    """One that fails while others succeed is at fault itself (P1, S4)."""
    source, downstream = MemorySource(), Downstream()
    downstream.poison = {"3"}
    send(source, 50)
    await Fleet(source, attempts=3).run(downstream)
    assert downstream.calls["3"] == 3
    assert [letter.body for letter in source.dead_letters] == ["3"]


async def test_one_message_alone_in_its_queue_is_dead_lettered_after_its_attempts() -> None:
    """Nothing tells that its downstream is at fault: it is the only one that fails (S4)."""
    source, downstream = MemorySource(), Downstream()
    downstream.poison = {"0"}
    send(source, 1)
    await Fleet(source, attempts=3).run(downstream)
    assert downstream.calls["0"] == 3
    assert len(source.dead_letters) == 1
    assert now() < 60


async def test_bad_messages_at_the_end_of_a_queue_are_dead_lettered_after_their_attempts() -> None:
    """Nothing comes after them that could succeed; what did so in the same breath tells enough (P1, S4)."""
    source, downstream = MemorySource(), Downstream()
    downstream.poison = {"20", "21", "22"}
    send(source, 23)
    await Fleet(source, concurrency=1, attempts=3).run(downstream)
    assert len(source.dead_letters) == 3
    assert now() < 60


async def test_errors_of_a_handlers_own_never_open_it() -> None:
    """A bug is not an outage: twenty messages that raise are twenty dead letters (P1)."""
    source, downstream = MemorySource(), Downstream((0, HOUR), error=lambda: KeyError("amount"))
    send(source, 20)
    await Fleet(source, attempts=3).run(downstream)
    assert len(source.dead_letters) == 20
    assert now() < 120


async def test_what_fails_after_others_succeeded_is_dead_lettered() -> None:
    """Held through an outage, tried again after it, and still failing: then it is the message (P1)."""
    source, downstream = MemorySource(), Downstream((0, 60))
    downstream.poison = {"0", "1"}
    send(source, 30)
    await Fleet(source, attempts=3).run(downstream)
    assert sorted(letter.body for letter in source.dead_letters) == ["0", "1"]
    assert len(downstream.done) == 28
    assert now() < 240


async def test_messages_that_all_fail_for_ever_end_at_last() -> None:
    """After `max_lease_seconds` the usual rules hold again: an outage without end is none (P1)."""
    source, downstream = MemorySource(), Downstream((0, 1000 * HOUR))
    send(source, 12)
    await Fleet(source, attempts=3, max_lease_seconds=600).run(downstream)
    assert len(source.dead_letters) == 12
    assert 600 < now() < 4 * HOUR


async def test_new_messages_find_out_that_it_works_again_although_two_poison_ones_do_not() -> None:
    """Each fifth try is a newly received message (P1)."""
    source, downstream = MemorySource(), Downstream()
    downstream.poison = {"0", "1"}
    send(source, 2)
    async with Fleet(source, attempts=3).running(downstream) as consumer:
        await asyncio.sleep(60)
        assert consumer.context.metrics.snapshot()["breaker_open"]
        send(source, 10, first=2)
        await asyncio.sleep(60)
        assert not consumer.context.metrics.snapshot()["breaker_open"]
        await asyncio.sleep(60)
    assert sorted(letter.body for letter in source.dead_letters) == ["0", "1"]
    assert len(downstream.done) == 10


async def test_time_limits_open_it() -> None:
    """A downstream that does not answer is down (P1)."""
    source, started = MemorySource(), []

    async def handle(_: Message[Any]) -> None:
        started.append(now())
        if now() < 300:
            await asyncio.sleep(HOUR)

    send(source, 30)
    await Fleet(source, attempts=3, handler_timeout_seconds=2).run(handle)
    assert source.dead_letters == []


async def test_half_of_the_last_calls_must_fail() -> None:
    """A third of them failing is no outage, and each message counts once, however often it fails (P1)."""
    source, downstream = MemorySource(), Downstream()
    downstream.poison = {str(number) for number in range(0, 100, 3)}
    send(source, 100)
    async with Fleet(source, concurrency=1, attempts=99, dead_letter={"max_receive_count": 200}, breaker={"failure_ratio": 0.75}).running(downstream) as consumer:  # fmt: skip
        await asyncio.sleep(9)
        assert not consumer.context.metrics.snapshot()["breaker_open"]


async def test_it_can_be_turned_off() -> None:
    source, downstream = MemorySource(max_receive_count=4), Downstream((0, HOUR))
    send(source, 30)
    await fleet_of(source, breaker="none").run(downstream)
    assert len(source.dead_letters) == 30


async def test_its_state_is_told(lines: LogLines) -> None:
    """In metrics, in what `/readyz` says although the queue is ready, and in two lines of the log (P1)."""
    source, downstream = MemorySource(), Downstream((0, 100))
    send(source, 30)
    async with Fleet(source).running(downstream) as consumer:
        vitals, metrics = consumer.context.vitals, consumer.context.metrics
        await asyncio.sleep(50)
        assert "the breaker is open" in vitals.warnings["breaker"]
        assert vitals.problems == {}
        snapshot = metrics.snapshot()
        assert snapshot["breaker_open"]
        assert 1 <= snapshot["held"] <= consumer.in_hand
        await asyncio.sleep(60)
        assert vitals.warnings == {}
        snapshot = metrics.snapshot()
        assert (snapshot["breaker_open"], snapshot["held"]) == (False, 0)
        assert source.is_empty
    events = [line["event"] for line in lines if line["event"].startswith("the breaker")]
    assert events == [
        "the breaker opens: nothing is received until a handler succeeds",
        "the breaker closes: a handler has succeeded",
    ]


async def test_a_paused_queue_is_alive() -> None:
    """For an hour and more no slot is given back: knowingly (D3)."""
    source, downstream = MemorySource(), Downstream((0, 3 * HOUR))
    send(source, 30)
    fleet = Fleet(source, max_lease_seconds=10_000, handler_timeout_seconds=5)
    async with fleet.running(downstream, drain_seconds=0) as consumer:
        for _ in range(100):
            await asyncio.sleep(90)
            assert consumer.context.vitals.stuck_loops() == []


async def test_a_drain_gives_back_what_is_held_at_once() -> None:
    """Waiting in place would use up the drain; nobody is dead-lettered for it (D1, S8)."""
    source, downstream = MemorySource(max_receive_count=4), Downstream((0, HOUR))
    send(source, 30)
    started = 0.0
    async with fleet_of(source).running(downstream):
        await asyncio.sleep(40)
        started = now()
    assert now() - started <= 21  # the last poll
    await asyncio.sleep(6)  # the breaker's pause
    assert source.in_flight == 0
    assert source.dead_letters == []


async def test_a_fleet_that_is_rolled_in_an_outage_dead_letters_nothing() -> None:
    """Held messages go from worker to worker, and are handled in the end (S4, P1)."""
    source, downstream = MemorySource(max_receive_count=10), Downstream((0, 300))
    bodies = send(source, 30)
    for _ in range(5):
        async with Fleet(source, attempts=3).running(downstream):
            await asyncio.sleep(40)
    await Fleet(source, attempts=3).run(downstream)
    assert source.dead_letters == []
    assert sorted(downstream.done) == sorted(bodies)


async def test_a_lease_that_is_lost_while_held_is_let_go() -> None:
    """Nobody settles it with a stale receipt, and it comes again (L3, P1)."""
    source, downstream = MemorySource(visibility_timeout_seconds=6, max_receive_count=10), Downstream((0, 60))
    bodies = send(source, 12)
    async with Fleet(source, visibility_timeout_seconds=6).running(downstream) as consumer:
        await asyncio.sleep(10)
        source.faults.fail("extend", times=None)
        await asyncio.sleep(20)
        source.faults.clear()
        await asyncio.sleep(120)
        assert (consumer.in_hand, consumer.slots.taken) == (0, 0)
    assert source.is_empty
    assert set(downstream.done) == set(bodies)


class TestBatches:
    async def test_a_batch_that_fails_is_one_failure(self) -> None:
        """Two hundred messages in one call are no outage."""
        source, router, calls = MemorySource(), Router(), []

        @router.on("*", batch=Batch(200))
        async def handle(messages: list[Message[Any]]) -> None:
            calls.append(len(messages))
            if len(calls) == 1:
                raise TransientError("busy")

        send(source, 200)
        async with Fleet(source, concurrency=1).running(router) as consumer:
            await asyncio.sleep(3)
            assert not consumer.context.metrics.snapshot()["breaker_open"]
            await asyncio.sleep(30)
        assert source.is_empty

    async def test_bad_members_are_at_fault_themselves_also_when_nothing_else_is_left(self) -> None:
        """Their batch has shown that what the handler depends on works (B1, P1)."""
        source, router = MemorySource(), Router()

        @router.on("*", batch=Batch(200))
        async def handle(messages: list[Message[Any]]) -> dict[str, Outcome]:
            await asyncio.sleep(5)
            return {message.id: Retry() for message in messages if int(message.body) < 3}

        send(source, 200)
        await Fleet(source, attempts=3).run(router)
        assert len(source.dead_letters) == 3
        assert now() < 90

    async def test_an_outage_dead_letters_no_member(self) -> None:
        source, router = MemorySource(max_receive_count=4), Router()
        handled: list[str] = []

        @router.on("*", batch=Batch(20))
        async def handle(messages: list[Message[Any]]) -> None:
            if now() < HOUR / 2:
                raise TransientError("down")
            handled.extend(message.body for message in messages)

        bodies = send(source, 100)
        await fleet_of(source, concurrency=2).run(router)
        assert source.dead_letters == []
        assert sorted(handled) == sorted(bodies)


def chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_downstream"),
    [
        (None, True),
        (TransientError("busy"), True),
        (TransientError("its hour has not come", is_downstream=False), False),
        (chained(TransientError("its hour has not come", is_downstream=False), ConnectionResetError()), False),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (OSError(28, "No space left on device"), True),
        (chained(RuntimeError("client"), ConnectionResetError()), True),
        (ExceptionGroup("several", [ValueError(), TransientError("busy")]), True),
        (FileNotFoundError(), False),
        (KeyError("amount"), False),
        (ExceptionGroup("several", [ValueError(), KeyError()]), False),
    ],
    ids=repr,
)
def test_what_may_lie_downstream(error: Exception | None, *, is_downstream: bool) -> None:
    assert lies_downstream(Retry(error=error)) is is_downstream


async def test_a_retry_may_say_that_it_is_the_messages_own() -> None:
    assert not lies_downstream(Retry(after=60, is_downstream=False))
    source, waiting = MemorySource(), True

    async def handle(_: Message[Any]) -> Outcome | None:
        return Retry(after=60, is_downstream=False) if waiting else None

    send(source, 50)
    async with Fleet(source, attempts=10).running(handle) as consumer:
        await asyncio.sleep(100)
        assert not consumer.context.metrics.snapshot()["breaker_open"]
        waiting = False
        await asyncio.sleep(100)
        assert source.is_empty


async def test_messages_that_wait_for_others_do_not_lock_them_out() -> None:
    """All room is held by what can only succeed after others that were not received yet: they come in all the same."""
    source, there = MemorySource(), set[str]()

    async def handle(message: Message[Any]) -> None:
        kind, number = message.body.split("-")
        if kind == "change" and number not in there:
            raise TransientError("its order is not there yet")
        there.add(number)

    for number in range(20):
        source.send(f"change-{number}")
    for number in range(20):
        source.send(f"order-{number}")
    await Fleet(source, concurrency=4, attempts=5).run(handle)
    assert source.dead_letters == []
    assert now() < 600


async def test_permanent_failures_are_none_of_its_business() -> None:
    source = MemorySource()

    async def handle(_: Message[Any]) -> Outcome:
        raise PermanentError("sold out")

    send(source, 50)
    async with Fleet(source).running(handle) as consumer:
        await asyncio.sleep(5)
        assert not consumer.context.metrics.snapshot()["breaker_open"]
    assert len(source.dead_letters) == 50
