"""The dispatcher: one task per lane, from its first message's slot to its last one's settlement."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import structlog

from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.lane import Lane
from worker.engine.lease import HeldLease, LeaseTerms
from worker.engine.passage import Passage
from worker.engine.slots import Reservation
from worker.engine.stages import Stages
from worker.message import Received

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
    2. The messages of a FIFO group are a lane: they are run in order, each after the one before it is surely done. One that
       is not takes all behind it back to the queue.
    3. Leaving the context waits for the last message in hand to be settled.
    4. `quiet` ends all waiting that could be for long; `cut_short` cancels what still runs, gives it back, and ends the rest.
    """

    def __init__(self, context: QueueContext, terms: LeaseTerms, stages: Stages, passage: Passage) -> None:
        self._context = context
        self._terms = terms
        self._executor, self._keeper, self._settlement = stages
        self._passage = passage
        self._is_fifo = context.settings.is_fifo
        self._in_hand: dict[str, Delivery] = {}
        """The newest delivery of every message."""
        self._lanes: dict[str, Lane] = {}
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

    def dispatch(self, received: Received, room: Reservation, since: float) -> None:
        """Take over a received message, and a place for it where it needs one; its lease counts from `since`."""
        delivery = Delivery(received, HeldLease(self._terms, received, since), self._passage.attempts.number(received))
        key = received.group_id or "" if self._is_fifo else received.id
        lane = self._lanes.get(key)
        current = self._in_hand.get(received.id)
        if current is not None:
            self._context.metrics.duplicate()
            if not (current.lease.is_lost or current.lease.is_resting):  # the newest receipt and lease count (R9)
                current.received = received
                current.receives += 1
                current.lease.renew(received, since)
                if lane is not None:
                    lane.follow(current)
                return
        if delivery.lease.is_lost:
            log.warning("not started: its lease is over", queue=self._context.queue, message_id=received.id)
            self._context.metrics.lease_lost()
            return
        if lane is None:
            lane = self._lanes[key] = Lane(key, room.take())
            self._start(lane)
        elif current is not None and not self._is_fifo and current is not lane.deliveries[0]:
            # It waited for its turn, and its lease is lost. A FIFO group keeps its place: what is behind must not overtake.
            lane.deliveries.remove(current)
            self._keeper.let_go(current)
        if current is not None:
            current.is_superseded = True
        lane.add(delivery)
        self._in_hand[received.id] = delivery
        self._context.metrics.in_hand(len(self._in_hand))
        self._keeper.hold(delivery)
        if self._is_cut_short:
            delivery.interrupt(Cause.DRAIN)

    def quiet(self) -> None:
        """Nothing more is received: batches do not wait to grow, and what waits in place is given back."""
        self._executor.quiet()
        for delivery in list(self._in_hand.values()):
            if delivery.is_waiting:
                delivery.interrupt(Cause.DRAIN)

    async def cut_short(self) -> None:
        """Cancel what still runs, give back what does not end, and let the context be left."""
        self._is_cut_short = True
        try:
            for lane in list(self._lanes.values()):
                for delivery in list(lane.deliveries):
                    delivery.interrupt(Cause.DRAIN)
            await self._until_ended(END_OF_DRAIN_SECONDS)
            stuck = [lane for lane in self._lanes.values() if lane.is_stuck]
            if stuck:
                ids = [lane.deliveries[0].received.id for lane in stuck]
                log.error("handlers still run at the end of the drain", queue=self._context.queue, message_ids=ids)
                await self._give_back(stuck)
        finally:
            self._may_leave.set()

    async def _give_back(self, lanes: Sequence[Lane]) -> None:
        """Give back the messages of lanes whose handlers still run, as far as SQS takes them in time."""
        releases = [asyncio.create_task(self._release(lane), name="message") for lane in lanes]
        _, late = await asyncio.wait(releases, timeout=GIVE_BACK_SECONDS)
        for release in late:
            release.cancel()

    async def _release(self, lane: Lane) -> None:
        for delivery in list(lane.deliveries):  # the head of a FIFO group first
            if not delivery.lease.is_lost:
                await self._passage.release(delivery)

    async def _until_ended(self, seconds: float) -> None:
        """Wait until no task is left, also of those that start meanwhile, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    def _start(self, lane: Lane) -> None:
        task = asyncio.create_task(self._run(lane), name="message")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: Lane) -> None:
        try:
            while lane.deliveries and not self._may_leave.is_set():
                try:
                    if self._is_fifo:
                        await self._take_first(lane)
                    else:
                        await self._passage.take(lane.deliveries[0])
                        self._finish(lane, lane.deliveries[0])
                except Exception:
                    fields = lane.deliveries[0].log_fields
                    log.exception("a defect: the message comes back after its lease", **fields)
                    self._finish(lane, lane.deliveries[0])
        finally:
            self._close(lane)

    async def _take_first(self, lane: Lane) -> None:
        """Take on the first messages of a group; one that is not done takes those behind it back to the queue (F2)."""
        ended = await self._passage.take_first(list(lane.deliveries))
        left: list[Delivery] = []
        hidden_seconds = 0.0
        for delivery, seconds in ended:
            if seconds is not None and not left:
                left, hidden_seconds = lane.behind(delivery), seconds
        for delivery, _ in ended:
            self._finish(lane, delivery)
        left = [delivery for delivery in left if delivery in lane.deliveries]
        if left:
            await asyncio.gather(*(self._passage.return_behind(delivery, hidden_seconds) for delivery in left))
            for delivery in left:
                self._finish(lane, delivery)

    def _finish(self, lane: Lane, delivery: Delivery) -> None:
        self._keeper.let_go(delivery)
        lane.remove(delivery)
        newest = self._in_hand.get(delivery.received.id)
        if newest is delivery:
            del self._in_hand[delivery.received.id]
        elif newest is not None:  # it was numbered when nobody knew yet how this one would end
            newest.attempt = max(1, newest.attempt + delivery.failures - delivery.receives)
        self._context.vitals.slot_freed_at = self._context.clock.now()
        self._context.metrics.in_hand(len(self._in_hand))

    def _close(self, lane: Lane) -> None:
        for delivery in list(lane.deliveries):  # nothing is left unless the drain was cut short
            self._finish(lane, delivery)
        del self._lanes[lane.key]
        lane.slot.release()
        if self._is_leaving and not self._in_hand and not self._is_cut_short:
            self._may_leave.set()
