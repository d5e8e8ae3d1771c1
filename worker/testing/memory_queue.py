"""The server's side of `MemorySource`: one SQS queue in memory, on the clock of whichever event loop runs."""

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Literal
from zlib import crc32

from worker.errors import EntryError, Fault, SourceError
from worker.message import Received
from worker.source import Copy, ReceiveRequest
from worker.testing.memory_clock import Clock
from worker.testing.memory_order import FifoOrder, Order, StandardOrder, State, Stored

__all__ = ["MemoryQueue"]

DEDUPLICATION_SECONDS = 300
IN_FLIGHT_LIMIT = 120_000
MAX_VISIBILITY_SECONDS = 43_200
FIRST_SEQUENCE_NUMBER = 18_850_000_000_000_000_000
TIMERS_KEPT = 64
TIMERS_PER_MESSAGE = 4


@dataclass(slots=True, eq=False)
class _Poll:
    """A receive that waits at an empty queue."""

    request: ReceiveRequest
    answer: asyncio.Future[list[Received]]


class MemoryQueue:
    """One queue: its messages, their timers and the receives that are parked at it."""

    def __init__(self, name: str, retention_seconds: int, delay_seconds: int = 0, clock: Clock | None = None) -> None:
        self.name = name
        self.is_fifo = name.endswith(".fifo")
        self.retention_seconds = retention_seconds
        self.delay_seconds = delay_seconds
        self.redrive: tuple[MemoryQueue, int] | None = None
        """The dead-letter queue and the receives after which a message moves there."""
        self.in_flight_limit = IN_FLIGHT_LIMIT
        self.exists = True
        self.clock = clock or Clock()
        self.messages: dict[str, Stored] = {}
        self.max_in_flight = 0
        self.receives: dict[str, list[float]] = {}
        self.order: Order = FifoOrder() if self.is_fifo else StandardOrder()
        self._counts = [0] * len(State)
        self._timers: list[tuple[float, int, Stored]] = []
        self._pushed = 0
        self._numbers = 0
        self._entered = 0
        self._deduplicated: dict[str, tuple[float, str]] = {}
        self._attempts: dict[str, tuple[float, list[Received]]] = {}
        self._doubles: deque[Stored] = deque()
        self._parked: dict[_Poll, None] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._serving: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def sent(self) -> int:
        """How many messages were ever sent or copied here."""
        return self._numbers

    def count(self, state: State) -> int:
        """Return how many messages are in the state now."""
        self._advance(self.clock.now())
        return self._counts[state]

    def put(self, message: Copy, delay_seconds: int = 0, arrived_by: Literal["send", "copy"] = "send") -> str:
        """Take a message in and return its id; a deduplication id seen within five minutes returns the first one's."""
        now = self.clock.now()
        self._advance(now)
        if (first := self._deduplicated.get(message.deduplication_id or "")) is not None:
            return first[1]
        self._numbers += 1
        stored = Stored(
            id=f"{crc32(self.name.encode()):08x}-0000-4000-8000-{self._numbers:012x}",  # a redrive keeps it
            body=message.body,
            attributes=message.attributes,
            group_id=message.group_id,
            deduplication_id=message.deduplication_id,
            trace_header=message.trace_header,
            arrived_by=arrived_by,
            sent_at=self.clock.unix_time(),
        )
        if message.deduplication_id is not None:
            self._deduplicated[message.deduplication_id] = (now, stored.id)
        self._enter(stored, now, delay_seconds or self.delay_seconds)
        return stored.id

    async def receive(self, request: ReceiveRequest, *, outlives_caller: bool = False) -> list[Received]:
        """Return messages at once, or park until there are some or the wait is over.

        A poll that outlives its caller takes the next messages although nobody is there to have them.
        """
        now = self.clock.now()
        self._advance(now)
        self._serve()  # who has waited longer comes first
        if self.is_fifo and request.attempt_id is not None and (again := self._replay(request, now)):
            return again
        if messages := self._take(request, now):
            return messages
        if not request.wait_seconds:
            if not self.is_fifo and self._counts[State.IN_FLIGHT] >= self.in_flight_limit:
                raise SourceError(Fault.THROTTLED, "OverLimit", f"{self.in_flight_limit} messages are in flight")
            return []
        return await self._park(request, outlives_caller=outlives_caller)

    def extend(self, receipt: str, seconds: int) -> EntryError | None:
        """Hide the message for `seconds` from now; 0 makes it visible."""
        now = self.clock.now()
        self._advance(now)
        if (stored := self._find(receipt)) is None:
            return _handle_invalid()
        if not 0 <= seconds <= MAX_VISIBILITY_SECONDS:
            return EntryError(Fault.INVALID, "InvalidParameterValue", f"visibility timeout {seconds} is out of range")
        if stored.state is State.GONE:
            return EntryError(Fault.LOST, "InvalidParameterValue", "message does not exist or is not available")
        if stored.state is not State.IN_FLIGHT or not _is_newest(receipt, stored):
            return EntryError(Fault.LOST, "MessageNotInflight", "the message is not in flight with this handle")
        if now + seconds - stored.received_at > MAX_VISIBILITY_SECONDS:
            return EntryError(Fault.INVALID, "InvalidParameterValue", "total visibility timeout is beyond 43200 s")
        if seconds:
            self._set_due(stored, now + seconds)
        else:
            self._move(stored, State.VISIBLE)
        self._wake()
        return None

    def delete(self, receipt: str) -> EntryError | None:
        """Delete the receipt's message; a stale handle is answered with success and deletes nothing (FIFO: refused)."""
        self._advance(self.clock.now())
        if (stored := self._find(receipt)) is None:
            return _handle_invalid()
        if stored.state is State.GONE:
            return None
        if self.is_fifo and (stored.state is not State.IN_FLIGHT or not _is_newest(receipt, stored)):
            return EntryError(Fault.LOST, "InvalidParameterValue", "the receipt handle has expired")
        if _is_newest(receipt, stored):
            self._move(stored, State.GONE)
            self._wake()
        return None

    def double(self, message: Received) -> Received:
        """Receive the message a second time with a handle of its own, as SQS sometimes does on a standard queue."""
        stored = self.messages[message.id]
        return self._hand_out(stored, stored.due - self.clock.now(), self.clock.now())

    def double_later(self, message: Received) -> None:
        """Let the next receive return the message again although it is in flight."""
        self._doubles.append(self.messages[message.id])
        self._wake()

    # The states of a message

    def _enter(self, stored: Stored, now: float, delay_seconds: int) -> None:
        """Add a message that was sent, copied or redriven here; a redrive keeps the age it has."""
        self._entered += 1
        stored.sequence = FIRST_SEQUENCE_NUMBER + self._entered
        stored.arrived_at = now
        self.messages[stored.id] = stored
        stored.expires_at = now + self.retention_seconds - (self.clock.unix_time() - stored.sent_at)
        self._push(stored.expires_at, stored)
        if delay_seconds:
            self._move(stored, State.DELAYED)
            self._set_due(stored, now + delay_seconds)
        else:
            self._move(stored, State.VISIBLE)
        self._wake()

    def _move(self, stored: Stored, state: State) -> None:
        """Change the message's state: the one place that keeps the counts and the order true."""
        was, stored.state = stored.state, state
        self._counts[was] -= 1
        self._counts[state] += 1
        if was is State.IN_FLIGHT:
            self.order.released(stored)
        if state is State.VISIBLE:
            self.order.add(stored)
        elif state is State.IN_FLIGHT:
            self.order.taken(stored)
            self.max_in_flight = max(self.max_in_flight, self._counts[state])
        elif state is State.GONE:
            del self.messages[stored.id]

    def _take(self, request: ReceiveRequest, now: float) -> list[Received]:
        """Hand out what is visible, and redrive what was received too often."""
        self._advance(now)
        room = min(request.limit, self.in_flight_limit - self._counts[State.IN_FLIGHT])
        taken: list[Received] = []
        seconds = request.visibility_timeout_seconds
        while self._doubles and len(taken) < room:
            if (double := self._doubles.popleft()).state is State.IN_FLIGHT:
                taken.append(self._hand_out(double, seconds, now))
        if len(taken) < room:
            for stored in self.order.ready():
                if self.redrive is not None and stored.receive_count >= self.redrive[1]:
                    self._redrive_to(self.redrive[0], stored)
                    continue
                taken.append(self._hand_out(stored, seconds, now))
                if len(taken) >= room:
                    break
        if taken and request.attempt_id is not None:
            self._attempts[request.attempt_id] = (now, taken)
        return taken

    def _hand_out(self, stored: Stored, visibility_seconds: float, now: float) -> Received:
        if stored.state is not State.IN_FLIGHT:
            self._move(stored, State.IN_FLIGHT)
        stored.receive_count += 1
        stored.handle += 1
        stored.received_at = now
        self._set_due(stored, now + visibility_seconds)
        self.receives.setdefault(stored.id, []).append(now)
        return Received(
            id=stored.id,
            receipt=f"{self.name}:{stored.id}:{stored.handle}",
            body=stored.body,
            attributes=stored.attributes,
            receive_count=stored.receive_count,
            sent_at=stored.sent_at,
            group_id=stored.group_id,
            deduplication_id=stored.deduplication_id,
            sequence_number=str(stored.sequence) if self.is_fifo else None,
            trace_header=stored.trace_header,
        )

    def _redrive_to(self, target: "MemoryQueue", stored: Stored) -> None:
        self._move(stored, State.GONE)
        target._enter(replace(stored, arrived_by="redrive"), target.clock.now(), 0)  # noqa: SLF001 - the same class

    def _replay(self, request: ReceiveRequest, now: float) -> list[Received]:
        """Return what an earlier receive with the same attempt id was given and still holds, hidden anew."""
        again = []
        for message in self._attempts.get(request.attempt_id or "", (now, []))[1]:
            stored = self.messages.get(message.id)
            if stored is not None and stored.state is State.IN_FLIGHT and _is_newest(message.receipt, stored):
                self._set_due(stored, now + request.visibility_timeout_seconds)
                again.append(message)
        return again

    def _find(self, receipt: str) -> Stored | None:
        """Return the receipt's message, a `GONE` one when it was deleted, `None` for what is no receipt of this queue."""
        queue, _, rest = receipt.partition(":")
        message_id, _, number = rest.partition(":")
        if queue != self.name or not number.isdecimal():
            return None
        return self.messages.get(message_id, _GONE)

    # Timers

    def _set_due(self, stored: Stored, due: float) -> None:
        stored.due = due
        self._push(due, stored)

    def _push(self, due: float, stored: Stored) -> None:
        self._pushed += 1
        heappush(self._timers, (due, self._pushed, stored))
        if len(self._timers) > TIMERS_KEPT + TIMERS_PER_MESSAGE * len(self.messages):
            self._timers = [timer for timer in self._timers if _is_due(timer[0], timer[2])]
            heapify(self._timers)

    def _advance(self, now: float) -> None:
        """Let everything happen that was due by now."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            due, _, stored = heappop(timers)
            if _is_due(due, stored):
                self._move(stored, State.GONE if due == stored.expires_at else State.VISIBLE)
        for remembered in (self._deduplicated, self._attempts):
            while remembered and (oldest := next(iter(remembered.items())))[1][0] <= now - DEDUPLICATION_SECONDS:
                del remembered[oldest[0]]

    # Parked receives

    async def _park(self, request: ReceiveRequest, *, outlives_caller: bool) -> list[Received]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was parked on another loop ended with it
            self._loop, self._alarm, self._serving = loop, None, None
            self._parked.clear()
        poll = _Poll(request, loop.create_future())
        self._parked[poll] = None
        end = loop.call_later(request.wait_seconds, self._give_up, poll)
        self._set_alarm()
        if outlives_caller:
            return await asyncio.shield(poll.answer)
        try:
            return await poll.answer
        finally:
            end.cancel()
            self._parked.pop(poll, None)

    def _give_up(self, poll: _Poll) -> None:
        self._serve()
        if not poll.answer.done():
            poll.answer.set_result([])
        self._parked.pop(poll, None)

    def _wake(self) -> None:
        """Serve the parked receives once the caller has let go, so that what is sent together arrives together."""
        if self._parked and self._serving is None:
            self._serving = asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        """Give what is visible to the receives that have waited longest."""
        self._serving = None
        while self._parked:
            poll = next(iter(self._parked))
            if poll.answer.done():
                del self._parked[poll]
                continue
            if not (messages := self._take(poll.request, self.clock.now())):
                break
            del self._parked[poll]
            poll.answer.set_result(messages)
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Come back when the next timer is due, if anyone waits for it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._parked and self._timers:
            wait = max(0.0, self._timers[0][0] - self.clock.now())
            self._alarm = asyncio.get_running_loop().call_later(wait, self._serve)


_GONE = Stored("", "", {})


def _is_newest(receipt: str, stored: Stored) -> bool:
    return receipt.endswith(f":{stored.handle}")


def _is_due(due: float, stored: Stored) -> bool:
    """Whether the timer still means the message as it is now."""
    if stored.state is State.GONE:
        return False
    return due == stored.expires_at or (due == stored.due and stored.state is not State.VISIBLE)


def _handle_invalid() -> EntryError:
    return EntryError(Fault.LOST, "ReceiptHandleIsInvalid", "the input receipt handle is invalid")
