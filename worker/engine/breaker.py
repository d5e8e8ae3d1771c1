"""The breaker: while the handlers' downstream is down, nothing is received, and what is in hand waits in place."""

import asyncio
import math
import random
from collections import Counter, OrderedDict, deque
from enum import Enum
from typing import NamedTuple

import structlog

from worker.engine.context import QueueContext
from worker.engine.delivery import Company, Delivery
from worker.engine.happened import leaves
from worker.engine.slots import Slots
from worker.engine.vitals import LoopPulse
from worker.errors import TransientError
from worker.outcome import Retry

__all__ = ["Blame", "Breaker", "lies_downstream"]

TRIES_EACH = 5
"""How often one message is tried while the breaker is open before another one may take its place."""
NEW_ONES = 3
"""Each so-many-th try is a message that is newly received: those that are held may all be unable to succeed."""
ITS_OWN = -1
SAME_BREATH_SECONDS = 1.0
"""What fails for the first time so soon after a success of another message is at fault itself, like what fails before one."""
REMEMBERED = 10_000
PROBE_GRACE_SECONDS = 30.0
OF_THIS_MACHINE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of the operating system that say nothing of a downstream."""

log = structlog.get_logger("breaker")


class Blame(Enum):
    """What a failure at a last attempt is put down to."""

    MESSAGE = 1
    DOWNSTREAM = 2
    NOBODY = 3
    """Nothing tells, and its earlier attempts were elsewhere: it comes again, and others meanwhile."""


class _Failure(NamedTuple):
    at: float
    call: int
    """Which of all calls it was."""
    of: object
    """The message, or the batch, that failed."""


class _Trouble(NamedTuple):
    since: int
    """How many successes there had been when the message first failed here; `ITS_OWN` when it is known to be at fault."""
    failures: int
    """How often it has failed here."""


class Breaker:
    """Tells failures of messages from those of what their handlers depend on.

    1. It opens when so many of the last handler calls failed for a reason that may pass, each message counted once; and
       when a message fails at its last attempt while nothing at all has succeeded since it first failed, and another
       message has failed, too: then no message is known to be at fault.
    2. While it is open nothing is received, and what fails for such a reason is held: its lease is kept, no receive and no
       attempt is spent. After each pause one message is tried: a held one, each third time a newly received one. Where all room
       is held and others wait, one that has been tried five times gives its place away, if it has receives to spare.
    3. The first that succeeds closes it, and all that is held is run again.
    4. An outage of up to `max_lease_seconds` dead-letters nothing, but what SQS would delete within an hour for its age;
       after that the usual rules hold again.
    """

    def __init__(self, context: QueueContext, slots: Slots) -> None:
        self._context = context
        self._slots = slots
        settings = context.settings.breaker
        self._is_off = settings == "none"
        self._needed, self._calls_kept, self._pause_seconds = (
            (0, 0, 0.0) if settings == "none" else (settings.failures, settings.calls, settings.pause_seconds)
        )
        self.is_open = False
        self._calls = 0
        """Handler calls so far; several failures of one message are one."""
        self._successes = 0
        self._last_success_at = -math.inf
        self._last_company: Company | None = None
        self._failures: deque[_Failure] = deque()
        """Those of the last calls, the oldest first."""
        self._streak: set[object] = set()
        """Messages, or batches, that have failed since the last success."""
        self._streak_since = 0
        self._troubles: OrderedDict[str, _Trouble] = OrderedDict()
        """The messages that have failed here, and have not succeeded since."""
        self._held: deque[Delivery] = deque()
        self._probe: Delivery | None = None
        self._tries: Counter[Delivery] = Counter()
        """How often each held message has been tried in vain."""
        self._turns = 0
        self._wants_a_new_one = False
        self._opened = asyncio.Event()
        self._opened_at = 0.0

    @property
    def holds(self) -> bool:
        """Whether what fails for a passing reason is kept in place."""
        now = self._context.clock.now()
        return self.is_open and now - self._opened_at < self._context.settings.max_lease_seconds

    @property
    def pause_seconds(self) -> float:
        """How long it is between two tries while it is open."""
        return self._pause_seconds

    def keeps(self, delivery: Delivery) -> bool:
        """Whether the message has to wait before it is run."""
        return self.is_open and self._probe is not delivery

    def succeeded(self, delivery: Delivery) -> None:
        """A handler has done its work: what it depends on works."""
        if delivery.company is None or delivery.company is not self._last_company:
            self._last_company = delivery.company
            self._calls += 1
            self._successes += 1
            self._last_success_at = self._context.clock.now()
        if self._troubles:
            self._troubles.pop(delivery.received.id, None)
        if self._probe is delivery:
            self._close()

    def failed(self, delivery: Delivery) -> None:
        """A handler call failed for a reason that may lie downstream."""
        if self._is_off:
            return
        self._note(delivery)
        if self._probe is delivery:
            self._probe = None
            self._tries[delivery] += 1
        elif not self.is_open and len(self._failures) >= self._needed:
            self._open(f"{len(self._failures)} of the last {self._calls_kept} handler calls failed")

    def failed_alone(self, delivery: Delivery) -> None:
        """A message failed while others in the same call were done: it is at fault itself, also when it fails again."""
        self._trouble(delivery.received.id, ITS_OWN)

    def passed(self, delivery: Delivery) -> None:
        """A message came to an end that says nothing of what its handler depends on."""
        if self._probe is delivery:
            self._probe = None

    async def blame(self, delivery: Delivery) -> Blame:
        """Return what is at fault when a message fails at its last attempt; it opens the breaker for a downstream.

        Where other messages are being handled, it waits in place for a pause: how they end tells.
        """
        if self._is_off or self.is_open:
            return Blame.DOWNSTREAM if self.holds else Blame.MESSAGE
        since, failures = self._troubles[delivery.received.id]
        if since == self._successes and self._is_only_one_to_fail and self._slots.taken > 1:
            await delivery.wait(self._pause_seconds)
        if self.holds:  # opened by others meanwhile
            return Blame.DOWNSTREAM
        if since != self._successes:
            return Blame.MESSAGE
        if self._is_only_one_to_fail:
            return Blame.NOBODY if failures == 1 < delivery.attempt else Blame.MESSAGE
        self._open(f"nothing has succeeded while {len(self._streak)} messages failed")
        return Blame.DOWNSTREAM

    @property
    def _is_only_one_to_fail(self) -> bool:
        """Whether no more than one message, or batch, has failed since the last success."""
        return len(self._streak) < 2  # noqa: PLR2004

    async def hold(self, delivery: Delivery) -> bool:
        """Keep the message in place until it is to be run again; false when it may not stay."""
        delivery.is_alone = False
        if self._wants_a_new_one and not self._tries[delivery]:
            self._wants_a_new_one = False
            self._slots.bound("breaker", 0)
            if self._probe is None and delivery.cause is None:
                self._choose(delivery)
                return True
        if self._gives_way(delivery):
            return False
        self._held.append(delivery)
        self._context.metrics.held(len(self._held))
        try:
            return await delivery.wait()
        finally:
            if delivery in self._held:
                self._held.remove(delivery)
            self._context.metrics.held(len(self._held))

    async def run(self, pulse: LoopPulse) -> None:
        """Try one message after each pause while open, again and again until cancelled."""
        while True:
            pulse.expect("watching the handlers")
            await self._opened.wait()
            pause = self._pause_seconds * random.uniform(0.9, 1.1)
            pulse.expect("waiting to try a message again", pause + PROBE_GRACE_SECONDS)
            await asyncio.sleep(pause)
            if self.is_open and (self._probe is None or self._probe.lease.is_settled):
                self._try()

    def _try(self) -> None:
        """Run a held message again, or let a new one be received to be run."""
        self._turns += 1
        if (self._turns % NEW_ONES or not self._lets_one_in()) and self._held:
            probe = self._held.popleft()
            self._choose(probe)
            probe.wake()
        elif not self._held:
            self._lets_one_in()

    def _lets_one_in(self) -> bool:
        """Have room for one message more, if that is left."""
        self._slots.bound("breaker", self._slots.taken + 1)
        self._wants_a_new_one = self._slots.size > self._slots.taken
        return self._wants_a_new_one

    def _gives_way(self, delivery: Delivery) -> bool:
        """Whether the message has been tried often enough, and others wait that may succeed."""
        received = delivery.received
        is_spare = received.receive_count < (delivery.attempts or self._context.settings.attempts)
        depth = self._context.depth
        if self._tries[delivery] < TRIES_EACH or not is_spare or depth is None or not depth.visible:
            return False
        return self._slots.taken >= self._slots.full_size and not self._context.rules.is_last_receive(received)

    def _choose(self, delivery: Delivery) -> None:
        self._probe = delivery
        delivery.is_alone = True  # a handler of batches does not wait for others now

    def _note(self, delivery: Delivery) -> None:
        message_id, now = delivery.received.id, self._context.clock.now()
        of: object = delivery.company or message_id
        if all(failure.of != of for failure in self._failures):
            self._calls += 1
            self._failures.append(_Failure(now, self._calls, of))
        earliest = now - self._context.settings.breaker_window_seconds
        while self._failures and (
            self._failures[0].at < earliest or self._failures[0].call <= self._calls - self._calls_kept
        ):
            self._failures.popleft()
        if self._streak_since != self._successes:
            self._streak.clear()
            self._streak_since = self._successes
        if len(self._streak) < REMEMBERED:
            self._streak.add(of)
        is_in_one_breath = now - self._last_success_at < SAME_BREATH_SECONDS
        self._trouble(message_id, ITS_OWN if is_in_one_breath else self._successes)

    def _trouble(self, message_id: str, since: int) -> None:
        trouble = self._troubles.get(message_id, _Trouble(since, 0))
        self._troubles[message_id] = _Trouble(min(since, trouble.since), trouble.failures + 1)
        if len(self._troubles) > REMEMBERED:
            self._troubles.popitem(last=False)

    def _open(self, why: str) -> None:
        self.is_open = True
        self._opened_at = self._context.clock.now()
        self._slots.bound("breaker", 0)
        self._context.metrics.breaker_open(True)
        self._context.vitals.warnings["breaker"] = f"the breaker is open: {why}; nothing is received, one message is tried every {self._pause_seconds:g} s"  # fmt: skip
        log.warning("the breaker opens: nothing is received until a handler succeeds", queue=self._context.queue, why=why, retry_seconds=self._pause_seconds)  # fmt: skip
        self._opened.set()

    def _close(self) -> None:
        seconds = self._context.clock.now() - self._opened_at
        self.is_open = False
        self._probe = None
        self._wants_a_new_one = False
        self._failures.clear()
        self._tries.clear()
        self._opened.clear()
        self._slots.bound("breaker", None)
        self._context.metrics.breaker_open(False)
        self._context.vitals.warnings.pop("breaker", None)
        self._context.vitals.slot_freed_at = self._context.clock.now()
        log.warning("the breaker closes: a handler has succeeded", queue=self._context.queue, held=len(self._held), seconds=round(seconds, 1))  # fmt: skip
        for delivery in self._held:
            delivery.wake()


def lies_downstream(failure: Retry, company: Company | None = None) -> bool:
    """Return whether a failure may lie with what the handler depends on, and not with the message.

    It may not when others in the same call are done, or the handler says `is_downstream=False`. It may when the handler says so
    (`TransientError`, `Retry`), when it ran out of time, and when the connection to something failed: an `OSError` other than of
    this machine's files, also as the cause of another exception.
    """
    if (company is not None and company.has_success) or not failure.is_downstream:
        return False
    if failure.error is None:
        return True
    return any(_lies_downstream(error) for error in leaves(failure.error))


def _lies_downstream(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, TransientError):
            return getattr(error, "is_downstream", True) is not False  # a subclass need not have called our __init__
        if isinstance(error, OSError) and not isinstance(error, OF_THIS_MACHINE):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
