"""`MemorySource`: an SQS queue and its dead-letter queue in memory, as strict as AWS, on any event loop.

It keeps visibility timeouts, receive counts, redrive, long polls, FIFO groups and retention by the clock of the
running loop, so with `virtual_time` an hour passes in a moment. It refuses what AWS refuses.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from worker.errors import EntryError, Fault, SourceError, UsageError
from worker.message import Attribute, Received
from worker.source import Copy, Depth, QueueFacts, ReceiveRequest
from worker.testing import refusals
from worker.testing.faults import Faults, Operation
from worker.testing.memory_order import StandardOrder, State, Stored
from worker.testing.memory_queue import MemoryQueue

__all__ = ["DeadLettered", "MemorySource"]

AWS_RETENTION_SECONDS = 345_600


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A message in the dead-letter queue."""

    id: str
    body: str
    attributes: Mapping[str, Attribute]
    arrived_by: Literal["copy", "redrive", "send"]
    """`copy`: Longshore sent it there; `redrive`: SQS moved it after too many receives; `send`: a test put it there."""
    arrived_at: float
    """Seconds of the event loop's clock."""
    receive_count: int
    group_id: str | None
    deduplication_id: str | None
    trace_header: str | None


class MemorySource:
    """A `Source` over a queue in memory; a name that ends in `.fifo` makes it FIFO.

    `dead_letter` is whether it has a dead-letter queue, or the source that is its dead-letter queue;
    `max_receive_count=None` leaves out the RedrivePolicy. Times are seconds of the running event loop.
    """

    def __init__(
        self,
        queue: str = "orders",
        *,
        visibility_timeout_seconds: int = 30,
        max_receive_count: int | None = 10,
        retention_seconds: int = AWS_RETENTION_SECONDS,
        delay_seconds: int = 0,
        dead_letter: "MemorySource | bool" = True,
    ) -> None:
        self.store = MemoryQueue(queue, retention_seconds, delay_seconds)
        """The queue itself, shared by all sources at it."""
        self.visibility_timeout_seconds = visibility_timeout_seconds
        if dead_letter is True:
            name = queue.removesuffix(".fifo") + "-dlq" + (".fifo" if self.store.is_fifo else "")
            dead_letter = MemorySource(name, retention_seconds=1_209_600, dead_letter=False)
        self._dead_letter = dead_letter or None
        if self._dead_letter is not None:
            self.store.clock = self._dead_letter.store.clock
            if max_receive_count is not None:
                self.store.redrive = (self._dead_letter.store, max_receive_count)
        self._connect()

    def _connect(self) -> None:
        self.faults = Faults(lambda: asyncio.get_running_loop().time())
        self.calls: Counter[str] = Counter()
        """Calls by operation, failed ones too."""
        self._is_closed = False

    def another(self) -> "MemorySource":
        """Return a second source at the same queue, as another process would have, with faults and counters of its own."""
        source = object.__new__(MemorySource)
        source.store = self.store
        source.visibility_timeout_seconds = self.visibility_timeout_seconds
        source._dead_letter = self._dead_letter
        source._connect()
        return source

    # What tests do and look at

    def send(
        self,
        body: str,
        *,
        attributes: Mapping[str, str | bytes | Attribute] | None = None,
        delay_seconds: int = 0,
        group_id: str | None = None,
        deduplication_id: str | None = None,
        trace_header: str | None = None,
    ) -> str:
        """Send a message and return its id; raise `SourceError` for what SQS refuses.

        On a FIFO queue a missing `deduplication_id` means a new one; a known one within five minutes adds nothing.
        """
        if self.store.is_fifo and deduplication_id is None:
            deduplication_id = f"sent-{self.store.sent}"
        typed = {name: _attribute(value) for name, value in (attributes or {}).items()}
        message = Copy(body, MappingProxyType(typed), group_id, deduplication_id, trace_header)
        refusals.check_delay(delay_seconds, is_fifo=self.store.is_fifo)
        refusals.check_message(message, is_fifo=self.store.is_fifo)
        return self.store.put(message, delay_seconds)

    @property
    def exists(self) -> bool:
        """Whether the queue exists; set it to False and every call fails as for a queue that was deleted."""
        return self.store.exists

    @exists.setter
    def exists(self, exists: bool) -> None:
        self.store.exists = exists

    @property
    def visible(self) -> int:
        """Messages that a receive may return, or that wait behind their FIFO group's head."""
        return self.store.count(State.VISIBLE)

    @property
    def in_flight(self) -> int:
        """Messages that were received and are hidden."""
        return self.store.count(State.IN_FLIGHT)

    @property
    def delayed(self) -> int:
        """Messages that were sent with a delay that is not over."""
        return self.store.count(State.DELAYED)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is visible, in flight or delayed."""
        return not self.visible + self.in_flight + self.delayed

    @property
    def max_in_flight(self) -> int:
        """The most messages that were in flight at once."""
        return self.store.max_in_flight

    @property
    def receives(self) -> Mapping[str, Sequence[float]]:
        """When each message id was received, in seconds of the event loop; also when the answer was lost."""
        return self.store.receives

    @property
    def dead_letters(self) -> list[DeadLettered]:
        """What lies in the dead-letter queue, in the order of arrival."""
        return [_dead_lettered(stored) for stored in self.dead_letter_queue.stored()]

    @property
    def dead_letter_queue(self) -> "MemorySource":
        """The dead-letter queue as a source of its own; `UsageError` when there is none."""
        if self._dead_letter is None:
            raise UsageError(f"the queue {self.queue!r} has no dead-letter queue: make it with dead_letter=True")
        return self._dead_letter

    def stored(self) -> list[Stored]:
        """Return every message of the queue, in the order of arrival."""
        self.store.count(State.VISIBLE)
        return list(self.store.messages.values())

    def shuffle(self, seed: int) -> None:
        """Hand out messages of an empty standard queue in a random order from now on, the same for the same seed."""
        if self.store.is_fifo or self.store.messages:
            raise UsageError(f"the queue {self.queue!r} must be standard and empty to be shuffled")
        self.store.order = StandardOrder(seed)

    # The Source protocol

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.store.name

    async def describe(self) -> QueueFacts:
        """Return what SQS would say of the queue."""
        async with self._call("describe"):
            redrive = self.store.redrive
            return QueueFacts(
                is_fifo=self.store.is_fifo,
                visibility_timeout_seconds=self.visibility_timeout_seconds,
                retention_seconds=self.store.retention_seconds,
                max_receive_count=redrive[1] if redrive else None,
                redrive_target=redrive[0].name if redrive else None,
                dead_letter_found=self._dead_letter is not None and self._dead_letter.exists,
            )

    async def receive(self, request: ReceiveRequest) -> list[Received]:
        """Return at most `limit` messages; an empty queue keeps the call for up to `wait_seconds`."""
        async with self._call("receive"):
            refusals.check_receive(request)
            messages = await self.store.receive(request, outlives_caller=self.faults.ghost_polls)
            return messages if self.store.is_fifo else messages + self._doubles(messages, request.limit)

    async def extend(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        """Hide each receipt's message for its number of seconds from now; 0 makes it visible at once."""
        async with self._call("extend"):
            refusals.check_batch(changes)
            return [
                self.faults.entry_error("extend", after=False)
                or self.store.extend(receipt, seconds)
                or self.faults.entry_error("extend", after=True)
                for receipt, seconds in changes
            ]

    def extend_blocking(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        """Do the same without the event loop; faults do not strike it."""
        self.calls["extend"] += 1
        refusals.check_batch(changes)
        return [self.store.extend(receipt, seconds) for receipt, seconds in changes]

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        """Delete the messages of the receipts."""
        async with self._call("delete"):
            refusals.check_batch(receipts)
            return [
                self.faults.entry_error("delete", after=False)
                or self.store.delete(receipt)
                or self.faults.entry_error("delete", after=True)
                for receipt in receipts
            ]

    async def dead_letter(self, copy: Copy) -> None:
        """Send the copy to the dead-letter queue."""
        async with self._call("dead_letter"):
            if self._dead_letter is None or not self._dead_letter.exists:
                raise _missing(f"{self.queue}'s dead-letter queue")
            refusals.check_message(copy, is_fifo=self._dead_letter.store.is_fifo)
            self._dead_letter.store.put(copy, arrived_by="copy")

    async def depth(self) -> Depth:
        """Return the counts, which in memory are exact."""
        async with self._call("depth"):
            dead_letters = None if self._dead_letter is None else self._dead_letter.visible
            return Depth(self.visible, self.in_flight, self.delayed, dead_letters)

    async def check_settlement(self) -> None:
        """Raise `SourceError` when faults keep deletes or visibility changes from the queue."""
        async with self._call("check_settlement"):
            await self.faults.strike("delete", after=False)
            await self.faults.strike("extend", after=False)

    async def close(self) -> None:
        """End this source; the queue and other sources at it stay. Any later call raises `UsageError`."""
        self._is_closed = True

    @asynccontextmanager
    async def _call(self, operation: Operation) -> AsyncIterator[None]:
        """Count the call, give way once as a network would, and let the faults strike before and after."""
        if self._is_closed:
            raise UsageError(f"{operation} was called on the source of {self.queue!r} after it was closed")
        self.calls[operation] += 1
        await asyncio.sleep(0)
        await self.faults.strike(operation, after=False)
        if not self.exists:
            raise _missing(self.queue)
        yield
        await self.faults.strike(operation, after=True)

    def _doubles(self, messages: Sequence[Received], limit: int) -> list[Received]:
        doubles: list[Received] = []
        for message in messages:
            if len(messages) + len(doubles) < limit and self.faults.is_doubled(same_response=True):
                doubles.append(self.store.double(message))
            if self.faults.is_doubled(same_response=False):
                self.store.double_later(message)
        return doubles


def _attribute(value: str | bytes | Attribute) -> Attribute:
    if isinstance(value, Attribute):
        return value
    return Attribute("Binary" if isinstance(value, bytes) else "String", value)


def _dead_lettered(stored: Stored) -> DeadLettered:
    return DeadLettered(
        id=stored.id,
        body=stored.body,
        attributes=stored.attributes,
        arrived_by=stored.arrived_by,
        arrived_at=stored.arrived_at,
        receive_count=stored.receive_count,
        group_id=stored.group_id,
        deduplication_id=stored.deduplication_id,
        trace_header=stored.trace_header,
    )


def _missing(name: str) -> SourceError:
    return SourceError(Fault.MISSING, "AWS.SimpleQueueService.NonExistentQueue", f"the queue {name!r} does not exist")
