"""The keeper of one queue's leases: one table, extended ten at a time, that says so when a lease ends."""

import asyncio
import math
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.gate import Gate
from worker.engine.lease import HeldLease, LeaseTerms
from worker.errors import EntryError, SourceError
from worker.source import MAX_BATCH

__all__ = ["Keeper"]

PATIENCE_TIMEOUTS = 2
"""For how many visibility timeouts the watchdog keeps the leases of a blocked event loop."""
SHORTEST_PAUSE_SECONDS = 0.1
"""Between the last beats of a lease that SQS does not extend."""

log = structlog.get_logger("lease")


class Keeper:
    """Holds every lease of one queue.

    1. `hold` and `let_go` are the way into and out of the table.
    2. `run` extends what has a third of its timeout behind it, the most urgent first; what is due together shares calls.
    3. A lease whose deadline has passed, or that SQS calls lost, interrupts its handler; so does the lease's cap.

    Timers only wake the keeper: the deadlines in the table decide. A timer sleeps while the machine is suspended, so
    the ticker wakes it too.
    """

    def __init__(self, context: QueueContext, terms: LeaseTerms, gate: Gate) -> None:
        self._context = context
        self._terms = terms
        self._clock = context.clock
        self._gate = gate
        self._table: dict[HeldLease, Delivery] = {}
        self._beats: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._wakes_at = math.inf
        # Leases that are due within this time of one another share a call.
        self._slack_seconds = terms.timeout_seconds / 12

    def __len__(self) -> int:
        return len(self._table)

    def hold(self, delivery: Delivery) -> None:
        """Keep the delivery's message hidden from others until it is let go."""
        lease = delivery.lease
        lease.on_beat_end = self._wake.set
        self._table[lease] = delivery
        if lease.beat_at < self._wakes_at:
            self._wake.set()

    def let_go(self, delivery: Delivery) -> None:
        """Forget the lease: its message is settled, or someone else's."""
        delivery.lease.is_settled = True
        self._table.pop(delivery.lease, None)

    async def run(self) -> None:
        """Beat until cancelled; beats on the wire are then given up."""
        on_stall = self._context.ticker.on_stall
        on_stall.append(self._wake.set)
        try:
            while True:
                self._wake.clear()
                self._wakes_at = self._turn()
                await self._sleep_until(self._wakes_at)
        finally:
            on_stall.remove(self._wake.set)
            for beat in self._beats:
                beat.cancel()

    def beat_without_loop(self, blocked_seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Extend what is due by blocking calls; the watchdog does so in its thread while the event loop is blocked (L6).

        It ends when the loop has been blocked for twice the visibility timeout: then the work counts as hung. The last
        beat lasts half a timeout longer, so that a handler may block for three of them. What SQS calls lost, or what
        fails, the loop finds in the table when it runs again; it waits for a call on the wire.
        """
        timeout = self._terms.timeout_seconds
        left = PATIENCE_TIMEOUTS * timeout - blocked_seconds
        now = self._clock.now()
        table = list(self._table)
        due = (
            [lease for lease in table if lease.wants_beats and not lease.is_lost and now >= lease.beat_at]
            if left > 0
            else []
        )
        longer = 1.5 if left < timeout / 3 else 1
        for start in range(0, len(due), MAX_BATCH):
            self._lend(due[start : start + MAX_BATCH], longer, loop)

    def _lend(self, leases: list[HeldLease], longer: float, loop: asyncio.AbstractEventLoop) -> None:
        watch: Future[None] = Future()
        sent = self._clock.now()
        for lease in leases:
            lease.watch = watch
        asked = [
            (lease.receipt, min(math.ceil(lease.beat_seconds * longer), lease.longest_extension_seconds()))
            for lease in leases
        ]
        errors: list[EntryError | None]
        try:
            errors = self._context.source.extend_blocking(asked)
        except SourceError as error:
            errors = [EntryError(error.fault, error.code, error.detail)] * len(leases)
        for lease, (receipt, seconds), refusal in zip(leases, asked, errors, strict=True):
            self._answered(lease, receipt, sent, seconds, refusal)
            lease.watch = None
        watch.set_result(None)
        with suppress(RuntimeError):  # the loop is closed: nobody waits for anything
            loop.call_soon_threadsafe(self._wake.set)

    def _answered(self, lease: HeldLease, receipt: str, sent: float, seconds: int, error: EntryError | None) -> None:
        if lease.receipt != receipt:  # a newer receive has replaced it meanwhile
            return
        if error is None:
            if self._clock.now() < lease.deadline:  # a 200 that arrives after the deadline proves nothing
                lease.push_back(sent, seconds)
        elif lease.is_refused_by(error):
            lease.deadline = min(lease.deadline, sent)
        else:
            lease.beat_at = self._clock.now() + self._slack_seconds

    def _turn(self) -> float:
        """End what has ended, extend what is due, and return when to look again."""
        now = self._clock.now()
        due: list[HeldLease] = []
        next_at = math.inf
        for lease, delivery in list(self._table.items()):
            if lease.is_surrendered:
                continue
            if lease.is_lost:
                self._surrender(lease, delivery, "the deadline passed")
                continue
            next_at = min(next_at, lease.deadline)
            if not lease.is_capped:
                if now < lease.cap_at:
                    next_at = min(next_at, lease.cap_at)
                else:
                    lease.is_capped = True
                    delivery.interrupt(Cause.LEASE_CAP)
            if lease.wants_beats and lease.beat is None and lease.watch is None:
                # What failed waits its time; what is merely due soon comes along.
                if now >= lease.beat_at - (0 if lease.beat_failures else self._slack_seconds):
                    due.append(lease)
                else:
                    next_at = min(next_at, lease.beat_at)
        due.sort(key=lambda lease: lease.deadline)
        for lease in due:
            self._send(lease)
        return next_at

    async def _sleep_until(self, moment: float) -> None:
        if moment == math.inf:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(max(0.001, moment - self._clock.now())):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _send(self, lease: HeldLease) -> None:
        lease.beat = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._extend(lease), name=f"beat-{self._context.queue}")
        self._beats.add(task)
        task.add_done_callback(partial(self._sent, lease))

    def _sent(self, lease: HeldLease, task: asyncio.Task[None]) -> None:
        self._beats.discard(task)
        lease.end_beat()  # also when the task was cancelled before it began

    async def _extend(self, lease: HeldLease) -> None:
        sent, receipt, seconds = self._clock.now(), lease.receipt, lease.beat_seconds
        error = await self._terms.change(receipt, seconds)
        self._context.metrics.beats(int(error is None), int(error is not None))
        if lease.receipt == receipt:  # else a newer receive has replaced it meanwhile
            self._note(lease, sent, seconds, error)

    def _note(self, lease: HeldLease, sent: float, seconds: int, error: EntryError | None) -> None:
        if error is None:
            self._gate.answered()
            if not lease.is_lost:  # a 200 that arrives after the deadline proves nothing
                lease.push_back(sent, seconds)
                lease.on_extended()
            return
        if lease.is_settled:
            return
        self._gate.failed(error.fault, error.code)
        if lease.is_refused_by(error):
            delivery = self._table.get(lease)
            if delivery is not None:
                self._surrender(lease, delivery, error.code)
            return
        lease.beat_failures += 1
        lease.beat_at = self._clock.now() + self._pause_seconds(lease)

    def _pause_seconds(self, lease: HeldLease) -> float:
        """How long a failed beat waits: longer each time, and always so that another one fits before the deadline."""
        jitter = full_jitter(
            lease.beat_failures, base_seconds=self._slack_seconds / 4, cap_seconds=self._terms.timeout_seconds / 6
        )
        return max(SHORTEST_PAUSE_SECONDS, min(self._slack_seconds + jitter, lease.remaining_seconds / 2))

    def _surrender(self, lease: HeldLease, delivery: Delivery, why: str) -> None:
        if lease.is_surrendered:
            return
        lease.is_surrendered = True
        self._context.metrics.lease_lost()
        log.warning("lease lost", queue=self._context.queue, why=why, **delivery.log_fields)
        delivery.interrupt(Cause.LEASE_LOST)
