"""Events that come due together share a call; a lone event waits for nobody."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import structlog

from worker.errors import EntryError, Fault, SourceError
from worker.publisher.composer import Composed
from worker.publisher.errors import GIVEN_UP
from worker.publisher.topic import Publication
from worker.source import MAX_BATCH
from worker.telemetry.logged_state import LoggedState

__all__ = ["Answer", "Batches", "Limits"]

Answer: TypeAlias = asyncio.Future[str | EntryError]
"""Done with the message id, or with why there is none; it never holds an exception."""
Publish: TypeAlias = Callable[[Sequence[Publication]], Awaitable[list[str | EntryError]]]

GATHER_SECONDS: Final = 0.02
"""How long fewer than ten events wait for more while another call is on the wire anyway."""

_BASE_SECONDS: Final = 0.1
_CAP_SECONDS: Final = 5.0

log = structlog.get_logger("publisher")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a publisher."""

    max_bytes: int
    """Of all messages of a call together."""
    in_flight: int
    """Calls on the wire at once; twice as many batches are in hand, then callers wait."""
    patience_seconds: float
    """How long an event is tried while SNS takes none."""


@dataclass(slots=True, eq=False)
class _Waiting:
    composed: Composed
    answer: Answer
    since: float


class Batches:
    """Turns single events into calls of at most ten.

    1. Every event gets an answer of its own, whatever becomes of its call.
    2. What may pass is tried again with full jitter, for `patience_seconds` since it came or since SNS last took one.
    3. A call that SNS refuses as a whole is split, never repeated as it was.
    4. Calls that fail are logged when it begins and when it ends, not one by one.
    5. Calls start in the order of the events; with `in_flight=1`, one has ended before the next begins.
    """

    def __init__(self, publish: Publish, limits: Limits, topic: str) -> None:
        self._publish = publish
        self._limits = limits
        self._room = asyncio.Semaphore(2 * limits.in_flight * MAX_BATCH)
        self._pending: deque[_Waiting] = deque()
        self._pending_bytes = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._is_closed = False
        self._state = LoggedState(log, f"publishing to {topic}")
        self._taken_at = float("-inf")
        self._complaint: EntryError | None = None
        """What SNS answers while it takes nothing."""

    async def enqueue(self, composed: Composed) -> Answer:
        """Accept an event as soon as there is room for it, and return its answer to come.

        An answer that is cancelled before its event was sent takes the event back.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        await self._room.acquire()
        waiting = _Waiting(composed, loop.create_future(), since)
        if self._is_closed:
            self._settle(waiting, GIVEN_UP)
            return waiting.answer
        self._pending.append(waiting)
        self._pending_bytes += composed.size_bytes
        self._send_full()
        if self._pending and self._timer is None:
            if self._calls:
                self._timer = loop.call_later(GATHER_SECONDS, self._send_all)
            else:  # whoever else publishes in this turn of the loop comes along
                self._timer = loop.call_soon(self._send_all)
        return waiting.answer

    async def close(self) -> None:
        """Return when every event has its answer; when cancelled, give up those that have none."""
        try:
            while self._pending or self._calls:  # who waits for room gets it from a call that ends, before we go on
                self._send_all()
                if self._calls:
                    await asyncio.wait(self._calls)
        finally:
            self._is_closed = True
            self._forget_timer()
            while self._pending:
                self._settle(self._pending.popleft(), GIVEN_UP)
            while self._calls:
                for call in self._calls:
                    call.cancel()
                await asyncio.wait(self._calls)

    def _send_full(self) -> None:
        while self._is_free and (len(self._pending) >= MAX_BATCH or self._pending_bytes > self._limits.max_bytes):
            self._start(self._cut())

    def _send_all(self) -> None:
        self._forget_timer()
        while self._is_free and self._pending:
            self._start(self._cut())

    @property
    def _is_free(self) -> bool:
        return len(self._calls) < self._limits.in_flight

    def _cut(self) -> list[_Waiting]:
        """Take the next batch: at most ten events that fit into one call."""
        batch: list[_Waiting] = []
        room = self._limits.max_bytes
        while self._pending and len(batch) < MAX_BATCH:
            if (room := room - self._pending[0].composed.size_bytes) < 0:
                break
            waiting = self._pending.popleft()
            self._pending_bytes -= waiting.composed.size_bytes
            if waiting.answer.done():  # its caller has given up
                self._settle(waiting, GIVEN_UP)
            else:
                batch.append(waiting)
        return batch

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        call = asyncio.create_task(self._carry(batch), name="publish")
        self._calls.add(call)
        call.add_done_callback(partial(self._ended, batch))

    def _ended(self, batch: Sequence[_Waiting], call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        for waiting in batch:
            self._settle(waiting, GIVEN_UP)  # no more than its room, unless the call was cancelled
        if self._timer is None or not self._calls:
            self._send_all()
        else:
            self._send_full()

    def _settle(self, waiting: _Waiting, result: str | EntryError) -> None:
        """Let go of an event: it gets the result if it has none yet, and its room is free."""
        _reply(waiting, result)
        self._room.release()

    async def _carry(self, batch: Sequence[_Waiting]) -> None:
        """Publish the batch, and again what SNS does not take for now, until the time is up."""
        clock = asyncio.get_running_loop().time
        ends_at = max(batch[0].since, self._taken_at) + self._limits.patience_seconds
        if self._complaint is not None and clock() >= ends_at:  # others have tried all that time
            for waiting in batch:
                _reply(waiting, self._complaint)
            return
        failures = 0
        while again := await self._try(batch):
            failures += 1
            delay = random.uniform(0, min(_CAP_SECONDS, _BASE_SECONDS * 2 ** min(failures, 10)))
            if clock() + delay >= ends_at:
                for waiting, error in again:
                    _reply(waiting, error)
                return
            await asyncio.sleep(delay)
            batch = [waiting for waiting, _ in again if not waiting.answer.done()]  # the others' callers have given up
            if not batch:
                return

    async def _try(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, EntryError]]:
        """Make one call, answer all that are settled by it, and return the others with their errors."""
        again: list[tuple[_Waiting, EntryError]] = []
        try:
            results = await self._ask([waiting.composed.publication for waiting in batch])
        except SourceError as error:
            if error.fault is Fault.INVALID and len(batch) > 1:
                for waiting in batch:
                    again += await self._try([waiting])
                return again
            if error.fault.may_pass:  # else its callers are told at once
                self._state.failed(error.code, error.detail)
            self._complaint = EntryError(error.fault, error.code, error.detail)
            results = [self._complaint] * len(batch)
        except Exception as error:  # a defect of a topic must not leave its callers waiting
            log.exception("a topic raised what it must not raise")
            results = [EntryError(Fault.UNAVAILABLE, type(error).__name__)] * len(batch)
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, EntryError) and result.fault.may_pass:
                again.append((waiting, result))
            else:
                _reply(waiting, result)
        return again

    async def _ask(self, publications: Sequence[Publication]) -> Sequence[str | EntryError]:
        results = await self._publish(publications)
        if len(results) != len(publications):
            raise ValueError(f"{len(results)} answers to {len(publications)} events")
        if any(isinstance(result, str) for result in results):
            self._taken_at, self._complaint = asyncio.get_running_loop().time(), None
            self._state.recovered()
        return results


def _reply(waiting: _Waiting, result: str | EntryError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(result)
