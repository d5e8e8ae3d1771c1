"""The dispatcher: one task per message in hand, from its slot to its settlement."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from typing import Self

import structlog

from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.lease import HeldLease, LeaseTerms
from worker.engine.slots import Slot
from worker.engine.stages import Stages
from worker.message import Received
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Release, Retry

__all__ = ["Dispatcher"]

END_OF_DRAIN_SECONDS = 1.5
"""How long cancelled handlers may take to end before their messages are given back without them."""
GIVE_BACK_SECONDS = 1.0
"""How long giving those back may take; what SQS has not taken by then comes back after its lease."""
LAST_TURN_SECONDS = 0.1
"""How long cancelled tasks may take to end; a handler that ignores its cancellation is left behind."""

log = structlog.get_logger("dispatcher")


class Dispatcher:
    """Runs what was received and knows what is in hand.

    1. A message is run once at a time, however often it is received; the newest receipt counts.
    2. Leaving the context waits for the last message in hand to be settled.
    3. `cut_short` cancels what still runs, gives it back, and ends the waiting.
    """

    def __init__(self, context: QueueContext, terms: LeaseTerms, stages: Stages) -> None:
        self._context = context
        self._terms = terms
        self._executor, self._keeper, self._settlement = stages
        self._in_hand: dict[str, Delivery] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._is_cut_short = False
        self._may_leave = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """Messages that are received and not settled."""
        return len(self._in_hand)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_leaving = True
        try:
            if self._in_hand:
                await self._may_leave.wait()
        finally:  # nothing is left to cancel unless we were cut short or cancelled
            self._may_leave.set()
            for task in self._tasks:
                task.cancel()
            await self._until_ended(LAST_TURN_SECONDS)
            await self._settlement.close()

    def dispatch(self, received: Received, slot: Slot, since: float) -> None:
        """Take over a received message and its slot; its lease counts from `since`."""
        delivery = Delivery(received, slot, HeldLease(self._terms, received, since))
        if (current := self._in_hand.get(received.id)) is not None:
            self._context.metrics.duplicate()
            self._merge(current, delivery, since)
        else:
            self._launch(delivery)

    async def cut_short(self) -> None:
        """Cancel what still runs, give back what does not end, and let the context be left."""
        self._is_cut_short = True
        try:
            for delivery in list(self._in_hand.values()):
                delivery.interrupt(Cause.DRAIN)
            await self._until_ended(END_OF_DRAIN_SECONDS)
            left = [delivery for delivery in self._in_hand.values() if delivery.run is not None]
            if left:
                ids = [delivery.received.id for delivery in left]
                log.error("handlers still run at the end of the drain", queue=self._context.queue, message_ids=ids)
                await self._give_back([delivery.successor or delivery for delivery in left])
        finally:
            self._may_leave.set()

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Give back messages whose handlers still run, as far as SQS takes them in time."""
        releases = [asyncio.create_task(self._release(delivery), name="message") for delivery in deliveries]
        _, late = await asyncio.wait(releases, timeout=GIVE_BACK_SECONDS)
        for release in late:
            release.cancel()

    async def _release(self, delivery: Delivery) -> None:
        """Give back one message; its handler knows the lease as lost from here on, and how it ends does not count."""
        stand_in = copy(delivery)
        stand_in.lease = copy(delivery.lease)
        self._keeper.let_go(delivery)
        delivery.lease.is_surrendered = True
        await self._settle(stand_in, self._judge(stand_in, Release()))

    async def _until_ended(self, seconds: float) -> None:
        """Wait until no task is left, also of those that start meanwhile, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    def _merge(self, current: Delivery, newer: Delivery, since: float) -> None:
        """Let the newest receipt and lease count, but start again if the old one is lost or being given back (R9)."""
        last = current.successor or current
        if not (last.lease.is_lost or last.lease.is_resting):
            last.received = newer.received
            last.lease.renew(newer.received, since)
            newer.slot.release()
            return
        if last is not current:
            self._drop(last)
        current.successor = newer
        self._keeper.hold(newer)

    def _drop(self, delivery: Delivery) -> None:
        """Let go of a message that never started."""
        self._keeper.let_go(delivery)
        delivery.slot.release()

    def _launch(self, delivery: Delivery) -> None:
        if delivery.lease.is_lost:
            log.warning("not started: its lease is over", queue=self._context.queue, message_id=delivery.received.id)
            self._context.metrics.lease_lost()
            self._drop(delivery)
            return
        self._in_hand[delivery.received.id] = delivery
        self._context.metrics.in_hand(len(self._in_hand))
        self._keeper.hold(delivery)
        if self._is_cut_short:
            delivery.interrupt(Cause.DRAIN)
        task = asyncio.create_task(self._run(delivery), name="message")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, delivery: Delivery) -> None:
        try:
            fate = await self._decide(delivery)
            if not delivery.lease.is_settled:  # else it was given back at the end of the drain
                await self._settle(delivery, fate)
        except Exception:
            log.exception("a defect: the message comes back after its lease", **delivery.log_fields)
        finally:
            self._finish(delivery)

    async def _decide(self, delivery: Delivery) -> Fate:
        if delivery.received.id in self._settlement.done:
            self._context.metrics.duplicate()
            return Ack("done before")
        return self._judge(delivery, await self._executor.execute(delivery))

    def _judge(self, delivery: Delivery, happened: Fate) -> Fate:
        now_wall = self._context.clock.wall()
        return self._context.rules.judge(happened, delivery.received, attempts=delivery.attempts, now_wall=now_wall)

    async def _settle(self, delivery: Delivery, fate: Fate) -> None:
        _report(self._context.queue, delivery, fate)
        self._count(await self._settlement.settle(delivery, fate, self._context.rules))

    def _finish(self, delivery: Delivery) -> None:
        self._keeper.let_go(delivery)
        del self._in_hand[delivery.received.id]
        delivery.slot.release()
        self._context.vitals.slot_freed_at = self._context.clock.now()
        self._context.metrics.in_hand(len(self._in_hand))
        if (successor := delivery.successor) is not None:
            if self._may_leave.is_set():
                self._drop(successor)
            else:
                self._launch(successor)
        if self._is_leaving and not self._in_hand and not self._is_cut_short:
            self._may_leave.set()

    def _count(self, fate: Fate) -> None:
        match fate:
            case Ack():
                self._context.metrics.settled("ack")
            case Retry():
                self._context.metrics.settled("retry")
            case DeadLetter():
                self._context.metrics.settled("dead_letter")
            case Release():
                self._context.metrics.settled("release")
            case Abandon():
                self._context.metrics.settled("abandon")


def _report(queue: str, delivery: Delivery, fate: Fate) -> None:
    match fate:
        case Retry(after=delay, reason=reason, error=error):
            log.warning("retry", queue=queue, reason=reason, after_seconds=delay, exc_info=error, **delivery.log_fields)
        case DeadLetter(reason=reason, error=error):
            log.error("dead letter", queue=queue, reason=reason, exc_info=error, **delivery.log_fields)
        case _:
            pass
