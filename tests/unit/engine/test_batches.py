"""Batch handlers: many messages in one call, each with its own lease and its own outcome (B1)."""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import pytest
from support.loop_time import now

from worker import Ack, Batch, CallNext, DeadLetter, Message, Outcome, Retry, Router
from worker.engine.calls import STUCK_SECONDS
from worker.errors import PermanentError, TransientError
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

LogLines = list[MutableMapping[str, Any]]
Verdict = Callable[[Sequence[Message[Any]]], Mapping[str, Outcome] | None]


class Batches:
    """A router with one batch handler; notes the bodies of every call and when it began."""

    def __init__(self, batch: Batch, verdict: Verdict = lambda _: None, *, seconds: float = 0.1, **options: Any) -> None:  # fmt: skip
        self.calls: list[list[str]] = []
        self.began: list[float] = []
        self.most_at_once = 0
        self.running = 0
        self.verdict = verdict
        self.router = Router()

        @self.router.on("*", batch=batch, **options)
        async def handle(messages: Sequence[Message[Any]]) -> Mapping[str, Outcome] | None:
            self.calls.append([message.body for message in messages])
            self.began.append(now())
            self.running += 1
            self.most_at_once = max(self.most_at_once, self.running)
            try:
                await asyncio.sleep(seconds)
                return self.verdict(messages)
            finally:
                self.running -= 1

    @property
    def sizes(self) -> list[int]:
        return [len(call) for call in self.calls]

    def calls_of(self, body: str) -> int:
        return sum(body in call for call in self.calls)


def send(source: MemorySource, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        source.send(str(number))


def settled(fleet: Fleet) -> dict[str, int]:
    assert fleet.consumer is not None
    return {fate: count for fate, count in fleet.consumer.context.metrics.snapshot()["settled"].items() if count}


def told(messages: Sequence[Message[Any]], **outcomes: Outcome) -> dict[str, Outcome]:
    """Return a mapping of ids for outcomes that are given by body: `_7=Retry()`."""
    return {message.id: outcomes[f"_{message.body}"] for message in messages if f"_{message.body}" in outcomes}


class TestWhenABatchBegins:
    async def test_it_begins_when_it_is_large_enough(self) -> None:
        """Larger than SQS's ten: it is collected from many receives (B1)."""
        source, batches = MemorySource(), Batches(Batch(200, window_seconds=60))
        send(source, 400)
        await Fleet(source, concurrency=1).run(batches.router)
        assert batches.sizes == [200, 200]
        assert batches.began[0] < 5
        assert source.is_empty

    async def test_it_begins_when_its_first_member_has_waited_for_the_window(self) -> None:
        source, batches = MemorySource(), Batches(Batch(200, window_seconds=5))
        async with Fleet(source, concurrency=1).running(batches.router):
            for number in range(8):
                send(source, 1, first=number)
                await asyncio.sleep(1)
            await asyncio.sleep(20)
        assert batches.sizes == [5, 3]
        assert batches.began == pytest.approx([5, 10], abs=0.3)

    async def test_it_begins_when_the_room_is_used_up(self) -> None:
        """Another handler's messages hold the rest: waiting for the window would gain nothing (B1)."""
        source, batches = MemorySource(), Batches(Batch(10, window_seconds=60))

        @batches.router.on("slow")
        async def slow(_: Message[Any]) -> None:
            await asyncio.sleep(30)

        for number in range(17):
            source.send(str(number), attributes={"event_type": "slow" if number < 12 else "quick"})
        async with Fleet(source, concurrency=2).running(batches.router):
            await asyncio.sleep(25)
            assert batches.sizes == []
            send(source, 3, first=17)
            await asyncio.sleep(2)
            assert batches.sizes == []  # both slots are taken
            await asyncio.sleep(600)
        assert sum(batches.sizes) == 8

    async def test_it_begins_when_the_worker_drains(self) -> None:
        """Open batches are flushed, and what still arrives does not wait (B1, D1)."""
        source, batches = MemorySource(), Batches(Batch(200, window_seconds=3000))
        send(source, 7)
        async with Fleet(source).running(batches.router, drain_seconds=25):
            await asyncio.sleep(2)
            assert batches.sizes == []
        assert batches.sizes == [7]
        assert source.is_empty

    async def test_it_grows_while_it_waits_for_its_turn(self) -> None:
        """The busier the handler, the larger its batches."""
        source, batches = MemorySource(), Batches(Batch(100, window_seconds=0), seconds=5)
        async with Fleet(source, concurrency=1).running(batches.router):
            for number in range(10):
                send(source, 1, first=number)
                await asyncio.sleep(0.2)
            await asyncio.sleep(30)
        assert batches.sizes == [1, 9]
        assert batches.most_at_once == 1

    async def test_concurrency_counts_calls_and_room_counts_messages(self) -> None:
        """Waiting members hold room and no slot: concurrency times the largest batch is all that is in hand (B1, R1)."""
        source, batches = MemorySource(), Batches(Batch(20), seconds=50)
        send(source, 500)
        async with Fleet(source, concurrency=3).running(batches.router, drain_seconds=100) as consumer:
            await asyncio.sleep(40)
            assert (batches.most_at_once, consumer.in_hand) == (3, 60)
        assert source.max_in_flight == 60

    async def test_the_process_wide_cap_counts_a_batch_once(self) -> None:
        source, batches = MemorySource(), Batches(Batch(10), seconds=5)
        send(source, 100)
        fleet = Fleet(source, concurrency=5)
        fleet.cap = asyncio.Semaphore(2)
        await fleet.run(batches.router)
        assert batches.most_at_once == 2
        assert sum(batches.sizes) == 100


class TestOutcomes:
    async def test_three_bad_members_of_two_hundred_are_settled_on_their_own(self) -> None:
        """197 are acked; one is retried, one dead-lettered, one retried with its own delay (B1)."""
        source = MemorySource()
        batches = Batches(Batch(200), lambda m: told(m, _3=Retry(), _77=DeadLetter("sold out"), _199=Retry(after=500)))
        send(source, 200)
        fleet = Fleet(source, concurrency=1)
        async with fleet.running(batches.router):
            await asyncio.sleep(2)
            assert settled(fleet) == {"ack": 197, "retry": 2, "dead_letter": 1}
            assert [letter.body for letter in source.dead_letters] == ["77"]
            assert source.in_flight == 2
            batches.verdict = lambda _: None
            await asyncio.sleep(520)
        assert (batches.calls_of("3"), batches.calls_of("199"), batches.calls_of("5")) == (2, 2, 1)
        assert source.is_empty

    async def test_a_member_that_fails_for_ever_is_dead_lettered_after_its_attempts(self) -> None:
        source, batches = MemorySource(), Batches(Batch(50), lambda m: told(m, _3=Retry(reason="bad")))
        send(source, 50)
        await Fleet(source, attempts=3).run(batches.router)
        assert [letter.body for letter in source.dead_letters] == ["3"]
        assert batches.calls_of("3") == 3
        assert max(batches.calls_of(str(n)) for n in range(50) if n != 3) == 1

    async def test_raising_fails_the_whole_batch(self) -> None:
        def verdict(_: Sequence[Message[Any]]) -> None:
            if len(batches.calls) == 1:
                raise TransientError("busy", retry_after=7)

        source, batches = MemorySource(), Batches(Batch(50), verdict)
        send(source, 50)
        fleet = Fleet(source)
        await fleet.run(batches.router)
        assert settled(fleet) == {"ack": 50, "retry": 50}
        assert batches.began[1] == pytest.approx(batches.began[0] + 7.1, abs=2)

    async def test_a_permanent_error_dead_letters_the_whole_batch(self) -> None:
        def verdict(_: Sequence[Message[Any]]) -> None:
            raise PermanentError("the table is gone")

        source, batches = MemorySource(), Batches(Batch(5), verdict)
        send(source, 5)
        await Fleet(source).run(batches.router)
        assert len(source.dead_letters) == 5

    async def test_split_isolates_the_bad_member(self) -> None:
        """A batch that raises is handled again member by member, at once: 197 acked, three settled on their own (B1)."""
        bad = {"3", "77", "199"}

        def verdict(messages: Sequence[Message[Any]]) -> None:
            if any(message.body in bad for message in messages):
                raise ValueError("bad")

        source, batches = MemorySource(), Batches(Batch(200, on_error="split"), verdict)
        send(source, 200)
        fleet = Fleet(source, concurrency=4, attempts=2)
        async with fleet.running(batches.router):
            await asyncio.sleep(8)
            assert settled(fleet)["ack"] == 197
            await asyncio.sleep(120)
        assert {letter.body for letter in source.dead_letters} == bad
        assert batches.calls_of("5") == 2
        assert batches.most_at_once <= 4

    @pytest.mark.parametrize("answer", ["done", 7, ["id"], {"somebody-elses": Ack()}], ids=repr)
    async def test_nonsense_is_loud_and_never_success(self, answer: Any, lines: LogLines) -> None:
        """A contract error: the whole batch is retried (E1)."""
        source = MemorySource()
        batches = Batches(Batch(3), lambda _: answer if len(batches.calls) == 1 else None)
        send(source, 3)
        fleet = Fleet(source)
        await fleet.run(batches.router)
        assert settled(fleet) == {"retry": 3, "ack": 3}
        assert any("ContractError" in str(line.get("reason")) for line in lines)

    async def test_nonsense_about_one_member_fails_that_one_only(self) -> None:
        source = MemorySource()
        batches = Batches(Batch(5), lambda m: told(m, _2="yes") if len(batches.calls) == 1 else None)  # type: ignore[arg-type]
        send(source, 5)
        fleet = Fleet(source)
        await fleet.run(batches.router)
        assert settled(fleet) == {"ack": 5, "retry": 1}
        assert batches.calls_of("2") == 2

    async def test_a_payload_that_does_not_fit_never_joins(self) -> None:
        """It is dead-lettered by itself; its neighbours are handled (B1, E1)."""
        source, router = MemorySource(), Router()
        seen: list[Any] = []

        @router.on("*", batch=Batch(10))
        async def handle(messages: list[Message[dict[str, int]]]) -> None:
            seen.extend(message.event["n"] for message in messages)

        for body in ('{"n": 1}', '{"n": "many"}', "<n>", '{"n": 2}'):
            source.send(body)
        await Fleet(source).run(router)
        assert sorted(seen) == [1, 2]
        assert len(source.dead_letters) == 2

    async def test_a_sync_handler_runs_too(self) -> None:
        source, router = MemorySource(), Router()
        seen: list[Any] = []

        @router.on("*", batch=Batch(10))
        def handle(messages: Sequence[Message[str]]) -> dict[str, Outcome]:
            seen.extend(message.event for message in messages)
            return {}

        send(source, 10)
        await Fleet(source).run(router)
        assert len(seen) == 10

    async def test_middleware_sees_each_member_and_its_outcome(self) -> None:
        """It may answer for a member, which then never joins (B1)."""
        outcomes: dict[str, Outcome] = {}

        async def note(message: Message[Any], call_next: CallNext) -> Outcome:
            if message.body == "4":
                return DeadLetter("not for us")
            outcomes[message.body] = await call_next(message)
            return outcomes[message.body]

        source, router = MemorySource(), Router(middleware=[note])

        @router.on("*", batch=Batch(5))
        async def handle(messages: Sequence[Message[Any]]) -> Mapping[str, Outcome]:
            return told(messages, _2=DeadLetter("bad"))

        send(source, 5)
        await Fleet(source).run(router)
        assert outcomes == {"0": Ack(), "1": Ack(), "2": DeadLetter("bad"), "3": Ack()}
        assert sorted(letter.body for letter in source.dead_letters) == ["2", "4"]


class TestLeases:
    async def test_members_keep_their_leases_while_they_wait_and_while_they_are_handled(self) -> None:
        """Through a window and a call of many visibility timeouts each is received once (B1, L2)."""
        source = MemorySource(visibility_timeout_seconds=6)
        batches = Batches(Batch(100, window_seconds=60), seconds=60)
        send(source, 50)
        await Fleet(source, visibility_timeout_seconds=6).run(batches.router)
        assert batches.sizes == [50]
        assert {len(times) for times in source.receives.values()} == {1}

    async def test_a_lost_lease_ends_the_call_and_the_others_are_handled_again_at_once(self) -> None:
        """Nobody runs a message that may be someone else's; its neighbours have failed nothing (L3, B1)."""
        source = MemorySource(visibility_timeout_seconds=6)
        batches = Batches(Batch(10), seconds=20)
        send(source, 10)
        fleet = Fleet(source, visibility_timeout_seconds=6, concurrency=2, attempts=1)
        async with fleet.running(batches.router):
            await asyncio.sleep(5)
            stolen = next(stored for stored in source.stored() if stored.body == "4")
            stolen.handle += 1  # somebody else has received it
            await asyncio.sleep(8)
            assert len(batches.calls) >= 2
            assert "4" not in batches.calls[1]
            assert len(batches.calls[1]) == 9
            await asyncio.sleep(90)
        assert source.dead_letters == []
        assert settled(fleet)["ack"] == 10

    async def test_a_member_whose_lease_is_lost_while_it_waits_does_not_join(self) -> None:
        source = MemorySource(visibility_timeout_seconds=6)
        batches = Batches(Batch(100, window_seconds=15))
        send(source, 5)
        async with Fleet(source, visibility_timeout_seconds=6).running(batches.router):
            await asyncio.sleep(1)
            next(stored for stored in source.stored() if stored.body == "2").handle += 1
            await asyncio.sleep(60)
            stolen = [received for message_id, received in source.receives.items() if len(received) == 2]
        assert len(stolen) == 1
        assert batches.calls_of("2") == 1
        assert source.is_empty

    async def test_the_time_limit_counts_from_the_call_and_fails_every_member(self) -> None:
        source, batches = MemorySource(), Batches(Batch(10, window_seconds=30), seconds=100, timeout=5)
        send(source, 4)
        fleet = Fleet(source, attempts=1)
        await fleet.run(batches.router)
        assert settled(fleet) == {"dead_letter": 4}
        assert batches.began == pytest.approx([30], abs=0.5)

    async def test_the_end_of_a_drain_gives_every_member_back(self) -> None:
        source, batches = MemorySource(), Batches(Batch(10), seconds=1000)
        send(source, 10)
        async with Fleet(source).running(batches.router, drain_seconds=5) as consumer:
            await asyncio.sleep(3)
        assert (source.visible, source.in_flight, consumer.in_hand, consumer.slots.taken) == (10, 0, 0, 0)
        assert batches.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_call_that_ends_as_the_drain_does_is_done(self) -> None:
        """Finished work never goes back (S8)."""
        source, batches = MemorySource(), Batches(Batch(10, window_seconds=0), seconds=5)
        async with Fleet(source).running(batches.router) as consumer:
            send(source, 10)
            while not batches.running:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
            await asyncio.sleep(batches.began[0] + 5 - now())
            await consumer.cut_short()
        assert source.is_empty

    async def test_a_call_that_ignores_its_cancellation_is_stuck_once(self, lines: LogLines) -> None:
        """Two hundred members are one stuck call, and it keeps its slot until it ends (E3)."""
        source, router = MemorySource(), Router()

        @router.on("*", batch=Batch(50), timeout=5)
        async def handle(_: Sequence[Message[Any]]) -> None:
            ends_at = now() + 60
            while now() < ends_at:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue

        send(source, 50)
        fleet = Fleet(source, concurrency=4)
        async with fleet.running(router) as consumer:
            await asyncio.sleep(8 + STUCK_SECONDS)
            assert consumer.context.vitals.stuck == 1
            assert source.in_flight == 50
            assert [line["event"] for line in lines].count("a handler ignores its cancellation") == 1
            await asyncio.sleep(60)
            assert consumer.context.vitals.stuck == 0
            assert settled(fleet) == {"retry": 50}
            consumer.quiet(now())
            await consumer.cut_short()
        assert fleet.fatal == []

    async def test_a_stuck_call_is_left_behind_at_the_end_of_a_drain(self) -> None:
        source, router = MemorySource(), Router()

        @router.on("*", batch=Batch(10))
        async def handle(_: Sequence[Message[Any]]) -> None:
            ends_at = now() + 60
            while now() < ends_at:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue

        send(source, 10)
        async with Fleet(source).running(router, drain_seconds=1):
            await asyncio.sleep(3)
        assert (source.visible, source.in_flight) == (10, 0)
        await asyncio.sleep(100)


async def test_two_batch_handlers_of_one_queue_do_not_mix() -> None:
    source, router, calls = MemorySource(), Router(), []

    @router.on("a", batch=Batch(10))
    async def handle_a(messages: Sequence[Message[Any]]) -> None:
        calls.append({message.event_type for message in messages})

    @router.on("b", batch=Batch(20))
    async def handle_b(messages: Sequence[Message[Any]]) -> None:
        calls.append({message.event_type for message in messages})

    for number in range(40):
        source.send("{}", attributes={"event_type": "ab"[number % 2]})
    await Fleet(source).run(router)
    assert all(len(types) == 1 for types in calls)
    assert source.is_empty
