"""One lease: a deadline that good beats push back. The deadline decides who owns a message, never a timer or an answer."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.errors import EntryError, Fault, SourceError
from worker.message import Received

if TYPE_CHECKING:
    from worker.engine.clock import Clock

__all__ = ["HeldLease", "LeaseTerms"]

SQS_LIMIT_SECONDS = 43_200
"""SQS keeps a message hidden for at most twelve hours from its receive, extensions included (SQS quotas)."""
SETTLING_SECONDS = 60
"""Kept of the twelve hours between the latest cap of a lease and its end."""
ANSWERING_SECONDS = 15
"""Kept of the twelve hours because SQS counts them from before its answer was read."""

Change = Callable[[str, int], Awaitable[EntryError | None]]
"""Change the visibility of one receipt's message."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What all leases of one queue have in common."""

    timeout_seconds: int
    """The visibility timeout that each receive and each beat asks for."""
    max_seconds: float
    """The lease's cap: from then on it is not extended any more."""
    clock: "Clock"
    change: Change

    @property
    def margin_seconds(self) -> float:
        """Taken off every deadline: the message may be visible again a little before our clock says so."""
        return min(1.0, self.timeout_seconds * 0.05)

    @property
    def beat_patience_seconds(self) -> float:
        """How long a visibility change waits for the beat of its own message (L4)."""
        return min(5.0, self.timeout_seconds / 6)


class HeldLease:
    """The lease of one receive of one message; handlers know it as `message.lease`."""

    __slots__ = ("_terms", "beat", "beat_at", "beat_failures", "cap_at", "deadline", "is_being_deleted", "is_capped", "is_resting", "is_settled", "is_surrendered", "limit_at", "on_beat_end", "on_extended", "receipt", "watch")  # fmt: skip

    def __init__(self, terms: LeaseTerms, received: Received, since: float) -> None:
        self._terms = terms
        self.is_capped = False
        """The cap was reached: it runs out."""
        self.is_resting = False
        """No more automatic beats: its message is being given back."""
        self.is_surrendered = False
        """SQS said that the receipt is not ours any more, or the deadline was seen to pass."""
        self.is_being_deleted = False
        """A delete is on the wire, whose answer judges."""
        self.is_settled = False
        """Its message is deleted or given back: nothing is held any more."""
        self.beat: asyncio.Future[None] | None = None
        """The beat that is on the wire."""
        self.watch: Future[None] | None = None
        """The watchdog's beat that is on the wire; set and taken away in its thread."""
        self.beat_failures = 0
        self.on_beat_end: Callable[[], None] = _nobody
        self.on_extended: Callable[[], None] = _nobody
        """Told on the event loop when SQS has extended it."""
        self.renew(received, since)

    def renew(self, received: Received, since: float) -> None:
        """Hold a newer receive of the same message instead (R9)."""
        self.receipt = received.receipt
        self.cap_at = since + min(self._terms.max_seconds, SQS_LIMIT_SECONDS - SETTLING_SECONDS)
        self.limit_at = since + SQS_LIMIT_SECONDS - ANSWERING_SECONDS
        self.deadline = -math.inf
        self.push_back(since, self._terms.timeout_seconds)

    @property
    def is_lost(self) -> bool:
        """Whether someone else may hold the message by now; while the watchdog's beat has no answer, it is still ours."""
        return self.is_surrendered or (self._terms.clock.now() >= self.deadline and self.watch is None)

    def is_refused_by(self, error: EntryError) -> bool:
        """Whether SQS says that the receipt is someone else's; while our own delete is on the wire it may not know it for that."""
        return error.fault is Fault.LOST and not self.is_being_deleted

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the lease ends unless it is extended; 0 when it is lost."""
        return 0.0 if self.is_surrendered else max(0.0, self.deadline - self._terms.clock.now())

    @property
    def wants_beats(self) -> bool:
        """Whether the table extends it by itself."""
        return not (self.is_resting or self.is_capped or self.is_surrendered or self.is_settled or self._is_at_limit)

    @property
    def beat_seconds(self) -> int:
        """What a beat asks for: the visibility timeout, or what is left of the twelve hours."""
        return min(self._terms.timeout_seconds, self.longest_extension_seconds())

    def longest_extension_seconds(self) -> int:
        """Seconds that SQS would still grant from now on."""
        return max(0, math.floor(self.limit_at - self._terms.clock.now()))

    def push_back(self, sent: float, seconds: float) -> None:
        """Move the deadline to `seconds` after a successful call was *sent*; it never moves forward in time.

        The next beat is due when two thirds of the timeout are left, so two beats may be missed.
        """
        self.deadline = max(self.deadline, sent + seconds - self._terms.margin_seconds)
        self.beat_at = self.deadline - self._terms.timeout_seconds * 2 / 3
        self.beat_failures = 0

    async def rest(self) -> None:
        """Stop beating and wait for the beat on the wire: a late beat must not overwrite a retry delay."""
        self.is_resting = True
        if on_wire := self._on_wire():
            await asyncio.wait(on_wire, timeout=self._terms.beat_patience_seconds)

    async def extend(self, seconds: float) -> None:
        """Hide the message for at least `seconds` from now, up to the queue's `max_lease_seconds`.

        Automatic beats never shorten it. Raises `SourceError` when SQS refuses or the message is no longer held.
        """
        while True:
            while on_wire := self._on_wire():  # it would shorten the extension if it arrived later
                await asyncio.wait(on_wire)
            self._refuse_unless_held()
            sent, receipt = self._terms.clock.now(), self.receipt
            wanted = math.ceil(min(seconds, self.cap_at - sent))
            if wanted <= self.deadline - sent:
                return
            self.beat = asyncio.get_running_loop().create_future()  # the table sends no beat of its own meanwhile
            try:
                error = await self._terms.change(receipt, wanted)
            finally:
                self.end_beat()
            if receipt == self.receipt:  # else a newer receive has replaced it meanwhile
                break
        if error is not None:
            raise SourceError(error.fault, error.code, error.detail)
        self._refuse_unless_held()  # an answer that comes after the deadline proves nothing
        self.push_back(sent, wanted)

    def end_beat(self) -> None:
        """Wake whoever waits for the beat on the wire."""
        beat, self.beat = self.beat, None
        if beat is not None and not beat.done():
            beat.set_result(None)
        self.on_beat_end()

    def _on_wire(self) -> set[asyncio.Future[None]]:
        """Return the beats that have no answer yet: ours, and the watchdog's."""
        beats = set() if self.beat is None else {self.beat}
        watch = self.watch
        return beats if watch is None else {*beats, asyncio.wrap_future(watch)}

    @property
    def _is_at_limit(self) -> bool:
        """Whether SQS grants no later deadline; extensions are whole seconds."""
        return self.deadline > self.limit_at - 1 - self._terms.margin_seconds

    def _refuse_unless_held(self) -> None:
        if self.is_lost or self.is_resting or self.is_settled:
            raise SourceError(Fault.LOST, "LeaseLost", "the message is no longer held and may be someone else's by now")


def _nobody() -> None:
    pass
