"""FIFO groups are lanes: in order, one at a time, side by side, and none is dead-lettered for another's failure (F1-F3)."""

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest
from support.loop_time import now

from worker import Batch, Message, Router
from worker.errors import PermanentError, TransientError
from worker.outcome import Ack, Outcome, Retry
from worker.source import ReceiveRequest
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


class Groups:
    """Handles messages called `group-number`, notes what ran when, and that no two of a group ever overlapped.

    `failing` says how often each message fails before it is done.
    """

    def __init__(self, *, seconds: float = 0.1, failing: dict[str, int] | None = None) -> None:
        self.seconds = seconds
        self.failing = failing or {}
        self.done: dict[str, list[int]] = defaultdict(list)
        self.ended_at: dict[str, float] = {}
        self.runs: dict[str, int] = defaultdict(int)
        self.overlaps: list[str] = []
        self.most_at_once = 0
        self._running: set[str] = set()

    async def __call__(self, message: Message[Any]) -> Outcome | None:
        group, number = message.body.split("-")
        if group in self._running:
            self.overlaps.append(message.body)
        self._running.add(group)
        self.most_at_once = max(self.most_at_once, len(self._running))
        self.runs[message.body] += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self._running.discard(group)
        if self.runs[message.body] <= self.failing.get(message.body, 0):
            raise RuntimeError("not yet")
        self.done[group].append(int(number))
        self.ended_at[group] = now()
        return None


def send(source: MemorySource, groups: str, count: int) -> None:
    """Send `count` messages to every group, in turn, as publishers would."""
    for number in range(count):
        for group in groups:
            source.send(f"{group}-{number}", group_id=group)


async def test_groups_keep_their_order_and_run_side_by_side() -> None:
    """One at a time within a group, groups in parallel (F1)."""
    source, groups = MemorySource("orders.fifo"), Groups()
    send(source, "abcdefgh", 20)
    await Fleet(source, concurrency=8).run(groups)
    assert groups.done == {group: list(range(20)) for group in "abcdefgh"}
    assert groups.overlaps == []
    assert groups.most_at_once == 8
    assert source.dead_letters == []


async def test_failing_heads_delay_nobody_else_and_cost_no_receive() -> None:
    """A failed head is retried in place: its lane waits, other groups flow, nobody is received twice (F2, S4)."""
    source = MemorySource("orders.fifo")
    groups = Groups(failing={"a-0": 2, "b-7": 2, "c-19": 2})
    send(source, "abcdefgh", 20)
    await Fleet(source, concurrency=8, attempts=3).run(groups)
    assert groups.done == {group: list(range(20)) for group in "abcdefgh"}
    assert groups.overlaps == []
    assert source.dead_letters == []
    assert {len(times) for times in source.receives.values()} == {1}
    assert max(groups.ended_at[group] for group in "defgh") < 5
    assert groups.ended_at["a"] > 7  # two delays, never under half of 5 and 10 s


async def test_a_head_that_fails_for_good_is_dead_lettered_after_its_attempts_and_its_group_goes_on() -> None:
    """Attempts in place count; those behind it have failed nothing (S4, S5, F2)."""
    source = MemorySource("orders.fifo")
    groups = Groups(failing={"a-1": 99})
    send(source, "ab", 5)
    await Fleet(source, attempts=3).run(groups)
    assert groups.runs["a-1"] == 3
    assert [letter.body for letter in source.dead_letters] == ["a-1"]
    assert groups.done == {"a": [0, 2, 3, 4], "b": [0, 1, 2, 3, 4]}


async def test_a_permanent_failure_lets_its_group_go_on_at_once() -> None:
    source, done = MemorySource("orders.fifo"), []

    async def handle(message: Message[Any]) -> None:
        if message.body == "a-1":
            raise PermanentError("declined")
        done.append(message.body)

    send(source, "a", 4)
    await Fleet(source).run(handle)
    assert done == ["a-0", "a-2", "a-3"]
    assert [letter.body for letter in source.dead_letters] == ["a-1"]


async def test_a_long_delay_gives_the_whole_lane_back_in_order() -> None:
    """Leases and a slot are not kept for minutes: the head first with its delay, those behind it with it (F2)."""
    source, starts = MemorySource("orders.fifo"), []

    async def handle(message: Message[Any]) -> Outcome:
        starts.append((message.body, round(now())))
        return Retry(after=300) if message.body == "a-0" and len(starts) == 1 else Ack()

    send(source, "a", 3)
    async with Fleet(source, concurrency=1).running(handle) as consumer:
        await asyncio.sleep(10)
        assert (consumer.in_hand, consumer.slots.taken) == (0, 0)
        source.send("b-0", group_id="b")
        await asyncio.sleep(400)
    assert [body for body, _ in starts] == ["a-0", "b-0", "a-0", "a-1", "a-2"]
    assert starts[2][1] >= 300


async def test_at_the_last_receive_a_long_delay_is_waited_for_in_place() -> None:
    """Giving it back would make SQS dead-letter it before its attempts are used up (S4)."""
    source, runs = MemorySource("orders.fifo", max_receive_count=3), 0

    async def handle(_: Message[Any]) -> Outcome:
        nonlocal runs
        runs += 1
        return Retry(after=300) if runs < 5 else Ack()

    source.send("a-0", group_id="a")
    await Fleet(source, attempts=6, dead_letter={"max_receive_count": 6}).run(handle)
    assert runs == 5
    assert source.dead_letters == []


async def test_waiting_members_keep_their_leases() -> None:
    """A member that waits for many visibility timeouts behind a slow head is received once (F3, L2)."""
    source = MemorySource("orders.fifo", visibility_timeout_seconds=6)
    groups = Groups(seconds=20)
    send(source, "a", 8)
    await Fleet(source, visibility_timeout_seconds=6).run(groups)
    assert groups.done == {"a": list(range(8))}
    assert {len(times) for times in source.receives.values()} == {1}


async def test_a_receive_asks_for_no_more_messages_than_there_are_free_lanes() -> None:
    """Each message may be of a group of its own, and none shall wait while another worker is idle (F1, I4)."""
    source = MemorySource("orders.fifo")
    other = source.another()
    mine, others = Groups(seconds=10), Groups(seconds=10)
    send(source, "abcde", 1)
    async with Fleet(source, concurrency=2).running(mine), Fleet(other, concurrency=3).running(others):
        await asyncio.sleep(5)
        assert sum(len(groups.runs) for groups in (mine, others)) == 5
    assert mine.most_at_once <= 2


async def test_a_lost_head_takes_its_lane_back_and_nobody_overtakes() -> None:
    """Whoever gets the head next gets the others after it (F2, L3)."""
    source = MemorySource("orders.fifo", visibility_timeout_seconds=6)
    groups = Groups(seconds=3)
    send(source, "a", 5)
    fleet = Fleet(source, visibility_timeout_seconds=6, concurrency=2)
    async with fleet.running(groups):
        await asyncio.sleep(4)  # a-1 runs
        failing = source.faults.fail("extend", times=None)
        await asyncio.sleep(5)
        failing.stop()
        await asyncio.sleep(120)
    assert groups.done["a"] == sorted(groups.done["a"])
    assert sorted(set(groups.done["a"])) == list(range(5))
    assert groups.overlaps == []
    assert source.is_empty
    assert source.dead_letters == []


async def test_an_unconfirmed_delete_holds_the_group_back() -> None:
    """The next message runs only after the one before it is surely gone; done work is not run again (F1, S2)."""
    source = MemorySource("orders.fifo", visibility_timeout_seconds=6)
    groups = Groups()
    send(source, "a", 4)
    source.faults.fail("delete", times=3)
    await Fleet(source, visibility_timeout_seconds=6).run(groups)
    assert groups.done == {"a": [0, 1, 2, 3]}


async def test_a_drain_gives_a_waiting_head_back_with_its_lane() -> None:
    """In order, at once, and nobody is dead-lettered for it (D1, F2, S8)."""
    source = MemorySource("orders.fifo")
    groups = Groups(failing={"a-0": 1})
    send(source, "a", 3)
    started = now()
    async with Fleet(source, retry={"base_seconds": 50, "max_seconds": 50}).running(groups, drain_seconds=22):
        await asyncio.sleep(2)
    assert now() - started < 22 + 3
    assert source.dead_letters == []
    await asyncio.sleep(50)
    received = await source.receive(ReceiveRequest(10, 0, 30))
    assert [message.body for message in received] == ["a-0", "a-1", "a-2"]


async def test_a_drain_lets_a_lane_go_on_while_there_is_time() -> None:
    """What waits in a lane and can be done before the end is done: going back costs a receive (D1, S8)."""
    source, groups = MemorySource("orders.fifo"), Groups(seconds=1)
    send(source, "a", 8)
    async with Fleet(source).running(groups, drain_seconds=22):
        await asyncio.sleep(1.5)
    assert groups.done == {"a": list(range(8))}


async def test_the_end_of_a_drain_gives_a_stuck_heads_lane_back() -> None:
    """A head that ignores its cancellation takes nobody hostage (D1, E3)."""
    source = MemorySource("orders.fifo")

    async def deaf(_: Message[Any]) -> None:
        ends_at = now() + 200
        while now() < ends_at:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    send(source, "a", 3)
    async with Fleet(source).running(deaf, drain_seconds=0):
        await asyncio.sleep(1)
    assert (source.visible, source.in_flight) == (3, 0)
    await asyncio.sleep(300)


async def test_drains_in_a_row_dead_letter_no_successor() -> None:
    """Members that went back behind a slow head have failed nothing, however often (S4, S8)."""
    source = MemorySource("orders.fifo", max_receive_count=10)
    send(source, "a", 5)
    for _ in range(6):
        slow = Groups(seconds=100)
        async with Fleet(source, attempts=3).running(slow, drain_seconds=0):
            await asyncio.sleep(1)
    groups = Groups()
    await Fleet(source, attempts=3, dead_letter={"max_receive_count": 10}).run(groups)
    assert groups.done == {"a": list(range(5))}
    assert source.dead_letters == []


async def test_an_unknown_event_goes_back_so_that_a_newer_release_may_take_it() -> None:
    """In place this process would only fail again (E5)."""
    source, router = MemorySource("orders.fifo"), Router()

    @router.on("known")
    async def handle(_: Message[Any]) -> None: ...

    source.send("{}", group_id="a", attributes={"event_type": "unknown"})
    await Fleet(source, attempts=3).run(router)
    assert {len(times) for times in source.receives.values()} == {3}
    assert len(source.dead_letters) == 1


class TestBatches:
    """A FIFO batch is the first messages of one lane."""

    @staticmethod
    def router(size: int = 5, **batch: Any) -> tuple[Router, list[list[str]], dict[str, Outcome]]:
        router = Router()
        calls: list[list[str]] = []
        verdicts: dict[str, Outcome] = {}

        @router.on("*", batch=Batch(size, **batch))
        async def handle(messages: list[Message[Any]]) -> dict[str, Outcome]:
            calls.append([message.body for message in messages])
            await asyncio.sleep(0.1)
            if any(verdicts.get(message.body) == Retry(reason="raise") for message in messages):
                raise TransientError("busy")
            return {message.id: verdicts[message.body] for message in messages if message.body in verdicts}

        return router, calls, verdicts

    async def test_a_batch_is_of_one_group_and_in_order(self) -> None:
        """No window is waited for (B1)."""
        source, (router, calls, _) = MemorySource("orders.fifo"), self.router()
        send(source, "ab", 10)
        await Fleet(source, concurrency=2).run(router)
        assert all(len({body[0] for body in call}) == 1 for call in calls)
        for group in "ab":
            assert [body for call in calls for body in call if body[0] == group] == [f"{group}-{n}" for n in range(10)]
        assert max(map(len, calls)) == 5

    async def test_nothing_is_acked_after_its_groups_first_failure(self) -> None:
        """The handler's word on those behind it does not count: they are handled again, after it (B1, F2)."""
        source, (router, calls, verdicts) = MemorySource("orders.fifo"), self.router()
        send(source, "a", 5)
        verdicts["a-2"] = Retry(after=3)
        async with Fleet(source, attempts=9).running(router):
            await asyncio.sleep(1)
            assert [stored.body for stored in source.stored()] == ["a-2", "a-3", "a-4"]
            del verdicts["a-2"]
            await asyncio.sleep(5)
        assert calls == [["a-0", "a-1", "a-2", "a-3", "a-4"], ["a-2", "a-3", "a-4"]]
        assert source.is_empty

    async def test_a_batch_that_raises_is_handled_member_by_member(self) -> None:
        """`on_error="split"` keeps the order: one after the other (B1)."""
        source, (router, calls, verdicts) = MemorySource("orders.fifo"), self.router(on_error="split")
        send(source, "a", 4)
        verdicts["a-1"] = Retry(reason="raise")
        async with Fleet(source, attempts=9).running(router):
            await asyncio.sleep(1)
            del verdicts["a-1"]
            await asyncio.sleep(10)
        assert calls == [["a-0", "a-1", "a-2", "a-3"], ["a-0"], ["a-1"], ["a-1"], ["a-2"], ["a-3"]]
        assert source.is_empty
        assert source.dead_letters == []


@pytest.mark.parametrize("seed", range(20))
async def test_any_failures_keep_every_group_in_order(seed: int) -> None:
    """Whatever fails how often, what is done is done in order, and only what failed `attempts` times is dead-lettered."""
    chance = random.Random(seed)
    source = MemorySource("orders.fifo", visibility_timeout_seconds=6)
    failing = {
        f"{group}-{n}": chance.choice([1, 2, 2, 5]) for group in "abcd" for n in range(8) if chance.random() < 0.2
    }
    groups = Groups(seconds=chance.choice([0.01, 1, 7]), failing=failing)
    send(source, "abcd", 8)
    await Fleet(source, concurrency=chance.choice([1, 3, 10]), attempts=3).run(groups)
    dead = {letter.body for letter in source.dead_letters}
    assert dead == {body for body, times in failing.items() if times >= 3}
    for group in "abcd":
        assert groups.done[group] == [n for n in range(8) if f"{group}-{n}" not in dead]
    assert groups.overlaps == []
