"""A world for the property tests: handlers that do anything, a queue to which anything happens, and books of what was."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, Protocol

from hypothesis import strategies as st
from support.loop_time import now

from worker.errors import EntryError, Fault, PermanentError, SourceError, TransientError
from worker.message import Lease, Message, Received
from worker.outcome import Ack, DeadLetter, Outcome, Retry
from worker.source import Copy, ReceiveRequest
from worker.testing import MemorySource, Operation

__all__ = [
    "Books",
    "Failing",
    "Misfortune",
    "Queue",
    "Story",
    "World",
    "misfortunes",
    "misfortunes_of",
    "queue_of",
    "worlds",
]

LAST_MISFORTUNE_SECONDS = 300.0
"""When everything works again: from then on every message must end."""

Failing = Literal["raises", "transient", "retries", "hangs", "cancels", "times_out", "nonsense", "clings"]
"""How a run fails; `hangs` and `clings` run until their time limit, and `clings` then ignores its cancellation for long."""
Ending = Literal["done", "permanent", "dead_letter", "never"]


@dataclass(frozen=True)
class Story:
    """What becomes of one message's runs: so many fail first, in this way, then it ends."""

    seconds: float
    failures: int
    failing: Failing
    ending: Ending
    sent_at: float

    @property
    def is_innocent(self) -> bool:
        """Whether no run of its own ever fails."""
        return self.failures == 0 and self.ending == "done"


@dataclass(frozen=True)
class Misfortune:
    """One thing that goes wrong, from a moment on, a few times or for a while."""

    kind: Literal["fail", "lose_answer", "hang", "slow", "entries", "double", "dark"]
    operation: Operation
    at: float
    times: int
    seconds: float
    fault: Fault
    after: bool


@dataclass(frozen=True)
class World:
    """A queue's settings, its messages and its misfortunes."""

    stories: tuple[Story, ...]
    misfortunes: tuple[Misfortune, ...]
    concurrency: int
    visibility_timeout_seconds: int
    attempts: int
    handler_timeout_seconds: float
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """Return the queue's settings; the net behind `attempts` is wide, so that only the engine dead-letters."""
        return {
            "concurrency": self.concurrency,
            "attempts": self.attempts,
            "handler_timeout_seconds": self.handler_timeout_seconds,
            "max_lease_seconds": 240,
            "retry": {"base_seconds": 1, "max_seconds": 20},
            "dead_letter": {"max_receive_count": 1000},
        }


class Queue(MemorySource):
    """A queue that knows what happened although nobody was told."""

    def __init__(
        self, name: str = "orders", *, visibility_timeout_seconds: int, max_receive_count: int, seed: int
    ) -> None:
        super().__init__(
            name, visibility_timeout_seconds=visibility_timeout_seconds, max_receive_count=max_receive_count
        )
        if not self.store.is_fifo:
            self.shuffle(seed)
        self.unsure_copies: set[str] = set()
        """Bodies of copies that may have arrived although their answer was lost."""
        self._answered: Counter[str] = Counter()
        self._bodies: dict[str, str] = {}

    @property
    def unseen_receives(self) -> set[str]:
        """Return bodies that were once handed out to nobody: SQS confirms a delete with an older handle and does nothing."""
        received = Counter({message_id: len(times) for message_id, times in self.receives.items()})
        return {self._bodies[message_id] for message_id in received - self._answered}

    def show(self, message_id: str) -> None:
        """Let a message be visible again although somebody holds it."""
        stored = self.store.messages[message_id]
        stored.due = now()
        self.store._push(stored.due, stored)
        self.store._wake()

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        """Receive, and note what arrived."""
        messages = await super().receive(request)
        self._answered.update(message.id for message in messages)
        self._bodies.update((message_id, stored.body) for message_id, stored in self.store.messages.items())
        return messages

    async def dead_letter(self, copy: Copy) -> None:
        """Copy, and note whose answer was lost."""
        self.unsure_copies.add(copy.body)
        await super().dead_letter(copy)
        self.unsure_copies.discard(copy.body)

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        """Delete; ten at most."""
        assert 1 <= len(set(receipts)) == len(receipts) <= 10
        return await super().delete(receipts)


@dataclass
class Books:
    """What the handlers saw. One handler stands for all: a message's body is the number of its story."""

    world: World
    runs: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    """Runs that ended well by their own account, while nobody had cancelled them."""
    overlaps: list[str] = field(default_factory=list)
    reruns: set[str] = field(default_factory=set)
    """Messages that ran again although they had finished while their lease held."""
    _running: dict[str, list[Lease]] = field(default_factory=dict)

    async def handle(self, message: Message[Any]) -> Outcome | None:
        """Do what the message's story says, and note what must never be."""
        body = message.body
        running = self._running.setdefault(body, [])
        if any(not lease.is_lost for lease in running):
            self.overlaps.append(f"{body} at {now():g} s")
        if body in self.finished:
            self.reruns.add(body)
        self.runs[body] = self.runs.get(body, 0) + 1
        running.append(message.lease)
        try:
            return await self._play(self.world.stories[int(body)], body, message.lease)
        finally:
            running.remove(message.lease)

    async def _play(self, story: Story, body: str, lease: Lease) -> Outcome | None:
        if self.runs[body] <= story.failures:
            return await self._fail(story)
        await asyncio.sleep(story.seconds)
        match story.ending:
            case "permanent":
                raise PermanentError("sold out")
            case "dead_letter":
                return DeadLetter("sold out")
            case "never":
                return await self._fail(story)
            case "done":
                if not lease.is_lost:
                    self.finished[body] = self.finished.get(body, 0) + 1
                return Ack() if int(body) % 2 else None

    async def _fail(self, story: Story) -> Outcome | None:
        await asyncio.sleep(story.seconds / 2)
        match story.failing:
            case "raises":
                raise RuntimeError("broken")
            case "transient":
                raise TransientError("busy", retry_after=3)
            case "retries":
                return Retry(after=0)
            case "cancels":
                raise asyncio.CancelledError
            case "times_out":
                raise TimeoutError
            case "nonsense":
                return "done"  # type: ignore[return-value]
            case "hangs":
                await asyncio.sleep(10_000)
            case "clings":
                try:
                    await asyncio.sleep(10_000)
                except asyncio.CancelledError:
                    await asyncio.sleep(40)
        return None

    async def nothing_runs(self) -> None:
        """Wait until handlers that were left behind have ended too."""
        for _ in count():
            if not any(self._running.values()):
                return
            await asyncio.sleep(1)


class HasMisfortunes(Protocol):
    """What a world tells of its misfortunes."""

    @property
    def misfortunes(self) -> tuple[Misfortune, ...]: ...
    @property
    def visibility_timeout_seconds(self) -> int: ...
    @property
    def seed(self) -> int: ...


async def misfortunes(world: HasMisfortunes, source: MemorySource) -> None:
    """Let happen what happens, until everything works again."""
    source.faults.seed(world.seed)
    for each in sorted(world.misfortunes, key=lambda misfortune: misfortune.at):
        await asyncio.sleep(each.at - now())
        _strike(each, source, world)
    await asyncio.sleep(LAST_MISFORTUNE_SECONDS - now())
    source.faults.clear()


def _strike(each: Misfortune, source: MemorySource, world: HasMisfortunes) -> None:
    error = SourceError(each.fault, each.fault.value)
    match each.kind:
        case "fail":
            source.faults.fail(each.operation, error, times=each.times, after=each.after)
        case "lose_answer":
            source.faults.lose_answer(each.operation, times=each.times)
        case "hang":
            source.faults.hang(each.operation, 10, times=each.times, after=each.after)
        case "slow":
            seconds = each.seconds / 10
            if (
                each.operation == "receive"
            ):  # nobody sees how late an answer is: two thirds of the timeout are survived (L1)
                seconds = min(seconds, world.visibility_timeout_seconds / 12)
            source.faults.slow(each.operation, seconds, times=each.times, after=each.after)
        case "entries":
            source.faults.fail_entries("delete" if each.after else "extend", error, times=each.times)
        case "double":
            source.faults.double(times=each.times, same_response=each.after)
        case "dark":
            source.faults.dark(now(), now() + each.seconds)


_PASSING = [Fault.THROTTLED, Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.EXPIRED]
_OPERATIONS: list[Operation] = ["receive", "extend", "delete", "delete", "dead_letter", "dead_letter", "describe"]


def _stories() -> st.SearchStrategy[Story]:
    return st.builds(
        Story,
        seconds=st.sampled_from([0.0, 0.0, 0.2, 1.0, 3.0, 20.0, 45.0]),
        failures=st.integers(0, 4),
        failing=st.sampled_from(
            ["raises", "transient", "retries", "hangs", "cancels", "times_out", "nonsense", "clings"]
        ),
        ending=st.sampled_from(["done", "done", "done", "permanent", "dead_letter", "never"]),
        sent_at=st.sampled_from([0.0, 0.0, 0.0, 7.0, 30.0, 120.0]),
    ) | st.builds(
        Story,
        seconds=st.sampled_from([0.0, 0.5, 5.0, 45.0]),
        failures=st.just(0),
        failing=st.just("raises"),
        ending=st.just("done"),
        sent_at=st.sampled_from([0.0, 10.0]),
    )


def misfortunes_of(kinds: Sequence[str]) -> st.SearchStrategy[Misfortune]:
    """Return a strategy for misfortunes of these kinds."""
    return st.builds(
        Misfortune,
        kind=st.sampled_from(kinds),
        operation=st.sampled_from(_OPERATIONS),
        at=st.just(0.0) | st.floats(0, 150).map(lambda at: round(at, 1)),
        times=st.integers(1, 6),
        seconds=st.sampled_from([1.0, 8.0, 25.0, 60.0, 100.0]),
        fault=st.sampled_from([*_PASSING, Fault.DENIED, Fault.MISSING, Fault.INVALID]),
        after=st.booleans(),
    )


def worlds(*, doubles: bool) -> st.SearchStrategy[World]:
    """Return a strategy for worlds, in which SQS delivers messages twice while they are held, or does not."""
    kinds = ["fail", "lose_answer", "hang", "slow", "entries", "dark"] + ["double"] * doubles
    return st.builds(
        World,
        stories=st.lists(_stories(), min_size=1, max_size=16).map(tuple),
        misfortunes=st.lists(misfortunes_of(kinds), max_size=6).map(tuple),
        concurrency=st.integers(1, 12),
        visibility_timeout_seconds=st.sampled_from([2, 6, 30]),
        attempts=st.integers(1, 4),
        handler_timeout_seconds=st.just(60.0),
        seed=st.integers(0, 2**16),
    )


def queue_of(world: World) -> Queue:
    """Return the world's queue; the net behind `attempts` is wide, so that only the engine dead-letters."""
    return Queue(visibility_timeout_seconds=world.visibility_timeout_seconds, max_receive_count=1000, seed=world.seed)
