"""A second world for the property tests: FIFO groups, batches, an outage of what all handlers depend on, stolen leases."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from hypothesis import strategies as st
from support.loop_time import now
from support.world import Misfortune, Queue, misfortunes_of

from worker import Batch, Message, Router
from worker.engine.room import most_in_hand
from worker.errors import PermanentError, TransientError
from worker.outcome import DeadLetter, Outcome, Retry
from worker.testing.fleet import Fleet

__all__ = ["LanesBooks", "LanesWorld", "Tale", "lanes_queue", "lanes_worlds", "steal"]

MAX_LEASE_SECONDS = 900
TIME_LIMIT_SECONDS = 60.0
WITNESSES = 3
"""Messages that come with the outage: one that fails alone is at fault as far as anybody can tell."""

Failing = Literal["raises", "transient", "retries", "hangs", "clings", "spoils"]
"""How a run fails; `hangs` and `clings` run into their time limit; `spoils` raises for its whole batch."""


@dataclass(frozen=True)
class Tale:
    """What becomes of one message's runs: so many fail first, in this way, then it ends."""

    group: int
    in_batches: bool
    seconds: float
    failures: int
    failing: Failing
    ending: Literal["done", "permanent", "never"]
    sent_at: float

    def fails(self, run: int) -> bool:
        """Whether its run, counted from 1, fails for a reason of its own."""
        return run <= self.failures or self.ending == "never"


@dataclass(frozen=True)
class LanesWorld:
    """A queue's settings, its messages, its misfortunes and the outage."""

    is_fifo: bool
    tales: tuple[Tale, ...]
    misfortunes: tuple[Misfortune, ...]
    thefts: tuple[float, ...]
    """When SQS shows a message again that somebody holds."""
    outage: tuple[float, float] | None
    batch: Batch
    concurrency: int
    visibility_timeout_seconds: int
    attempts: int
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """Return the queue's settings, with SQS's net where the topology puts it."""
        return {
            "concurrency": self.concurrency,
            "attempts": self.attempts,
            "handler_timeout_seconds": TIME_LIMIT_SECONDS,
            "max_lease_seconds": MAX_LEASE_SECONDS,
            "retry": {"base_seconds": 2, "max_seconds": 100},
            "dead_letter": {"max_receive_count": self.attempts + 7},
        }

    @property
    def all_tales(self) -> tuple[Tale, ...]:
        """Return the messages, and those that come with the outage."""
        if self.outage is None:
            return self.tales
        begins, _ = self.outage
        witness = Tale(9, False, 0.1, 0, "raises", "done", begins)
        return self.tales + tuple(
            Tale(9 + number, number == 1, 0.1, 0, witness.failing, "done", begins) for number in range(WITNESSES)
        )

    def is_down(self) -> bool:
        """Whether what all handlers depend on is down now."""
        return self.outage is not None and self.outage[0] <= now() < self.outage[1]


@dataclass
class LanesBooks:
    """What the handlers saw: a message's body is the number of its tale."""

    world: LanesWorld
    runs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    done: dict[str, float] = field(default_factory=dict)
    """When each message was first done, as a number in one order of all."""
    failed: set[str] = field(default_factory=set)
    """Those that a run failed for, whoever was at fault; not counted is what failed in the outage."""
    alone: set[str] = field(default_factory=set)
    """Those that may be at fault: they failed last while nobody else in their process had failed since somebody was done, and
    had used up their attempts in that process, or had seen others done."""
    wrongs: list[str] = field(default_factory=list)
    """What must never be."""
    _calls: dict[int, Sequence[Message[Any]]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def router(self, fleet: Fleet) -> Router:
        """Return the handlers of one process."""
        router = Router()
        running = 0
        in_trouble: set[str] = set()
        failures: Counter[str] = Counter()
        last_done_at = -1.0

        @contextmanager
        def call(messages: Sequence[Message[Any]]) -> Iterator[None]:
            nonlocal running, in_trouble, last_done_at
            running += 1
            assert fleet.consumer is not None
            if running > self.world.concurrency:
                self.wrongs.append(f"{running} calls at once at {now():g} s")
            if fleet.consumer.in_hand > most_in_hand(fleet.settings, router):
                self.wrongs.append(f"{fleet.consumer.in_hand} messages in hand at {now():g} s")
            try:
                with self._call(messages):
                    yield
                in_trouble.clear()
                last_done_at = now()
            except TransientError:
                bodies = {message.body for message in messages}
                in_trouble |= bodies
                failures.update(bodies)
                suspects = {
                    body
                    for body in bodies
                    if failures[body] >= self.world.attempts or last_done_at > self.world.all_tales[int(body)].sent_at
                }
                self.alone = self.alone - bodies | (suspects if len(in_trouble) == 1 else set())
                raise
            finally:
                running -= 1

        @router.on("one")
        async def one(message: Message[Any]) -> Outcome | None:
            with call([message]):
                await asyncio.sleep(self._tale(message).seconds)
                outcome = await self._play(message)
                self._note([message], {} if outcome is None else {message.id: outcome})
                return outcome

        @router.on("many", batch=self.world.batch)
        async def many(messages: Sequence[Message[Any]]) -> Mapping[str, Outcome]:
            with call(messages):
                outcomes: dict[str, Outcome] = {}
                await asyncio.sleep(max(self._tale(message).seconds for message in messages))
                for message in messages:
                    outcome = await self._play(message, company=messages)
                    if outcome is not None:
                        outcomes[message.id] = outcome
                self._note(messages, outcomes)
                return outcomes

        return router

    def _tale(self, message: Message[Any]) -> Tale:
        return self.world.all_tales[int(message.body)]

    def is_innocent(self, body: str) -> bool:
        """Whether it is to be done, and no run failed because of it or of one in its batch, as far as anybody can tell."""
        return body not in self.failed | self.alone and self.world.all_tales[int(body)].ending == "done"

    def out_of_order(self, dead: set[str]) -> list[str]:
        """Return the groups in which a message was done before one that was sent before it, unless that is dead."""
        groups: dict[int, list[float]] = defaultdict(list)
        for number, tale in self.in_order():
            if str(number) in self.done and str(number) not in dead:
                groups[tale.group].append(self.done[str(number)])
        return [f"group {group}" for group, order in groups.items() if order != sorted(order)]

    def in_order(self) -> list[tuple[int, Tale]]:
        """Return the messages in the order in which they are sent."""
        return sorted(enumerate(self.world.all_tales), key=lambda pair: pair[1].sent_at)

    async def nothing_runs(self) -> None:
        """Wait until handlers that were left behind have ended too."""
        while self._calls:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(1)

    @contextmanager
    def _call(self, messages: Sequence[Message[Any]]) -> Iterator[None]:
        """Note that nothing else runs the same messages, or any of the same group, with a lease that holds."""
        for other in self._calls.values():
            for held in other:
                for message in messages:
                    is_same = held.group_id == message.group_id if self.world.is_fifo else held.id == message.id
                    if is_same and not (held.lease.is_lost or message.lease.is_lost):
                        self.wrongs.append(f"{message.body} beside {held.body} at {now():g} s")
        if len({message.id for message in messages}) < len(messages):
            self.wrongs.append(f"a message twice in one call at {now():g} s")
        call = next(self._numbers)
        self._calls[call] = messages
        for message in messages:
            self.runs[message.body] += 1
        try:
            yield
        finally:
            del self._calls[call]

    def _note(self, messages: Sequence[Message[Any]], outcomes: Mapping[str, Outcome]) -> None:
        """Note who is done; in a FIFO group only those before the first that is not."""
        for message in messages:
            if message.id not in outcomes:
                self.done.setdefault(message.body, next(self._numbers))
            elif self.world.is_fifo:
                return

    async def _play(self, message: Message[Any], company: Sequence[Message[Any]] = ()) -> Outcome | None:
        tale = self._tale(message)
        if self.world.is_down():
            raise TransientError("down")
        if tale.fails(self.runs[message.body]):
            return await self._fail(message, tale, company)
        if tale.ending == "permanent":
            self.failed.add(message.body)
            if company:
                return DeadLetter("sold out")
            raise PermanentError("sold out")
        return None

    async def _fail(self, message: Message[Any], tale: Tale, company: Sequence[Message[Any]]) -> Outcome:
        self.failed.add(message.body)
        if tale.failing == "retries" or (company and tale.failing in ("raises", "transient")):
            return Retry(after=3 if tale.failing == "retries" else None)
        self.failed.update(
            each.body for each in company
        )  # in a batch all fail for one, or are handled again one by one
        match tale.failing:
            case "transient":
                raise TransientError("busy", retry_after=3)
            case "hangs":
                await asyncio.sleep(10_000)
            case "clings":
                try:
                    await asyncio.sleep(10_000)
                except asyncio.CancelledError:
                    await asyncio.sleep(15)
        raise RuntimeError("broken")


def lanes_queue(world: LanesWorld) -> Queue:
    """Return the world's queue."""
    return Queue(
        "orders.fifo" if world.is_fifo else "orders",
        visibility_timeout_seconds=world.visibility_timeout_seconds,
        max_receive_count=world.attempts + 7,
        seed=world.seed,
    )


async def steal(world: LanesWorld, queue: Queue) -> None:
    """Let SQS show messages again that somebody holds: what happens when a lease ends without anybody's fault."""
    for number, at in enumerate(sorted(world.thefts)):
        await asyncio.sleep(at - now())
        held = [stored for stored in queue.stored() if stored.due > now()]
        if held:
            queue.show(held[(world.seed + number) % len(held)].id)


def _tales() -> st.SearchStrategy[Tale]:
    return st.builds(
        Tale,
        group=st.sampled_from([0, 0, 0, 1, 1, 2]),
        in_batches=st.sampled_from([False, True, True]),
        seconds=st.sampled_from([0.0, 0.2, 1.0, 3.0, 7.0]),
        failures=st.sampled_from([0, 0, 0, 0, 1, 2, 4]),
        failing=st.sampled_from(["raises", "transient", "retries", "hangs", "clings", "spoils"]),
        ending=st.sampled_from(["done"] * 8 + ["permanent", "never"]),
        sent_at=st.sampled_from([0.0, 0.0, 0.0, 5.0, 30.0, 120.0]),
    )


def lanes_worlds(
    *, outages: bool = False, thefts: bool = False, misfortunes: bool = True
) -> st.SearchStrategy[LanesWorld]:
    """Return a strategy for worlds, with or without an outage, and with or without leases that end too early."""
    kinds = ["fail", "lose_answer", "hang", "slow", "entries", "dark"]
    return st.builds(
        LanesWorld,
        is_fifo=st.sampled_from([True, True, False]),
        tales=(st.lists(_tales(), min_size=1, max_size=8) | st.lists(_tales(), min_size=9, max_size=24)).map(tuple),
        misfortunes=st.lists(misfortunes_of(kinds), max_size=2).map(tuple) if misfortunes else st.just(()),
        thefts=st.lists(st.integers(5, 300).map(lambda tenth: tenth / 10), max_size=10).map(tuple)
        if thefts
        else st.just(()),
        outage=st.tuples(
            st.sampled_from([0.0, 3.0, 31.0]), st.sampled_from([20.0, 90.0, 300.0, MAX_LEASE_SECONDS - 100.0])
        ).map(lambda pair: (pair[0], sum(pair)))
        if outages
        else st.none(),
        batch=st.builds(
            Batch,
            size=st.sampled_from([1, 2, 3, 5, 10]),
            window_seconds=st.sampled_from([0.0, 0.5, 5.0]),
            on_error=st.sampled_from(["fail", "split"]),
        ),
        concurrency=st.sampled_from([1, 2, 3, 8]),
        visibility_timeout_seconds=st.sampled_from([6, 30]),
        attempts=st.integers(2, 4),
        seed=st.integers(0, 2**16),
    )
