"""The passage of a message: run, judged, kept in place or settled. Its lease is kept all the while."""

import asyncio
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import structlog

from worker.engine.breaker import Blame, Breaker, lies_downstream
from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.large_payloads import LargePayloads
from worker.engine.memory import AttemptMemory
from worker.engine.pace import SteadyPace
from worker.engine.stages import Stages
from worker.engine.verdict import Tries
from worker.outcome import Abandon, Ack, DeadLetter, Expired, Fate, Release, Retry

__all__ = ["Passage"]

IN_PLACE_SECONDS = 60.0
"""A longer delay gives a FIFO group back instead of keeping its leases and its slot for it."""

log = structlog.get_logger("dispatcher")


class Passage:
    """Takes messages from their start to their settlement.

    A message that failed is most often given back, and received again after its delay. It stays in place, and is run again
    without another receive, when it is the head of a FIFO group, or while the breaker is open.
    """

    def __init__(self, context: QueueContext, stages: Stages, breaker: Breaker, pace: SteadyPace) -> None:
        self._context = context
        self._executor, self._keeper, self._settlement = stages
        self._breaker = breaker
        self._pace = pace
        self._is_fifo = context.settings.is_fifo
        self._large_payloads = LargePayloads(context)
        self.attempts = AttemptMemory(context.clock)

    async def take(self, delivery: Delivery) -> None:
        """Take a message of a standard queue to its end."""
        fate = self._done_before(delivery)
        while fate is None:
            if self._breaker.keeps(delivery) and not await self._may_stay(delivery):
                fate = self._given_back(delivery, None)
                break
            happened = await self._executor.execute(delivery)
            if isinstance(happened, Ack):  # the way of almost every message
                self._ended_well(delivery, happened)
                fate = happened
            elif happened is not None:
                fate = await self._judge(delivery, happened)
        await self.settle(delivery, fate)

    async def take_first(self, lane: list[Delivery]) -> list[tuple[Delivery, float | None]]:
        """Take on the first messages of a FIFO group, as many as are handled together.

        Returns those that came to their end, as `settle` says it of each; the others are still the first.
        """
        head = lane[0]
        if (fate := self._done_before(head)) is not None:
            return [(head, await self.settle(head, fate))]
        if self._breaker.keeps(head) and not await self._may_stay(head):
            return [(head, await self.settle(head, self._given_back(head, None)))]
        happened = await self._executor.execute_together(lane)
        acks = _leading(happened)
        acked = len(acks)
        for delivery, ack in zip(lane, acks, strict=False):
            self._ended_well(delivery, ack)
        settled = await self._settle_done(lane[:acked], acks)
        ended = list(zip(lane[:acked], settled, strict=True))
        if acked < len(happened) and all(each is None for each in settled):
            delivery, what = lane[acked], happened[acked]
            fate = None if what is None else await self._judge(delivery, what)
            if fate is not None:
                ended.append((delivery, await self.settle(delivery, fate)))
        return ended

    async def settle(self, delivery: Delivery, fate: Fate) -> float | None:
        """Do what the fate asks for, unless the message was given back already.

        Returns `None` when it is surely done, else the seconds after which it may come again.
        """
        if delivery.lease.is_settled:
            return 0
        self._report(delivery, fate)
        done = await self._settlement.settle(delivery, fate, self._context.rules)
        self._count(done)
        match done:
            case Ack() | DeadLetter():
                self.attempts.forget(delivery.received.id)
                if delivery.received.id in self._settlement.done:
                    return 0
                if isinstance(done, Ack):  # the copy of a dead letter still points to its payload
                    await self._large_payloads.deleted(delivery.received)
                return None
            case Retry() | Release():
                self.attempts.ended(delivery.received.id, delivery.failures, delivery.receives)
                return done.after or 0
            case Abandon():
                self.attempts.ended(delivery.received.id, delivery.failures, delivery.receives)
                return 0

    async def _settle_done(self, deliveries: Sequence[Delivery], acks: Sequence[Ack]) -> list[float | None]:
        """Settle what is done; several at once, and one by itself without a task more."""
        if len(deliveries) == 1:
            return [await self.settle(deliveries[0], acks[0])]
        return await asyncio.gather(*map(self.settle, deliveries, acks))

    async def return_behind(self, delivery: Delivery, seconds: float) -> None:
        """Give back a message that waits behind the head of its FIFO group, hidden as long as that."""
        await self.settle(delivery, Abandon() if delivery.lease.is_lost else self._released(delivery, seconds))

    async def release(self, delivery: Delivery) -> None:
        """Give back a message whose handler still runs: it knows the lease as lost from here on, and how it ends does not count."""
        stand_in = copy(delivery)
        stand_in.lease = copy(delivery.lease)
        self._keeper.let_go(delivery)
        delivery.lease.is_surrendered = True
        await self.settle(stand_in, self._released(stand_in, 0))

    def _done_before(self, delivery: Delivery) -> Fate | None:
        if delivery.received.id in self._settlement.done:
            self._context.metrics.duplicate()
            return Ack("done before")
        return None

    async def _judge(self, delivery: Delivery, happened: Fate) -> Fate | None:
        """Return the fate of a message that is not done; `None` once it has waited in place and is to be run again."""
        if isinstance(happened, Retry):
            return await self._judge_failure(delivery, happened)
        self._breaker.passed(delivery)
        if isinstance(happened, Release) and happened.runs_elsewhere:
            return await self._judge_shared(delivery, happened)
        delivery.failures += isinstance(happened, DeadLetter)  # it may come again, when its copy is refused
        return self._rule(happened, delivery, Tries(delivery.attempt))

    async def _judge_shared(self, delivery: Delivery, release: Release) -> Fate | None:
        """Return what becomes of a message whose work runs elsewhere: it has failed in nothing.

        It is given back until then where there are receives to spare; a FIFO group waits in place.
        """
        attempts = delivery.attempts or self._context.settings.attempts
        is_spare = self._context.rules.has_receives_to_spare(delivery.received, attempts) and not self._is_fifo
        if is_spare or self._context.is_draining:
            return self._released(delivery, release.after)
        if await delivery.wait(release.after):
            return None
        return Abandon() if delivery.cause is Cause.LEASE_LOST else self._released(delivery, release.after)

    async def _judge_failure(self, delivery: Delivery, failure: Retry) -> Fate | None:
        """Return what becomes of a failed message; what fails while it is held by the breaker has had no attempt."""
        was_held = self._breaker.holds
        # Else no handler takes it, which says nothing and heals elsewhere; what could not be fetched from S3 has an error.
        has_run = delivery.handler is not None or failure.error is not None
        is_suspicious = has_run and lies_downstream(failure, delivery.company)
        if is_suspicious:
            self._breaker.failed(delivery)
            self._pace.failed()
        else:
            self._breaker.passed(delivery)
            if delivery.company is not None and delivery.company.has_success:
                self._breaker.failed_alone(delivery)
        is_attempt = not (was_held and is_suspicious)
        delivery.failures += is_attempt
        tries = Tries(delivery.attempt, delivery.attempts, in_place=self._is_fifo and has_run)
        fate = self._rule(failure, delivery, tries)
        left = self._context.rules.seconds_until_expiring(delivery.received, self._context.clock.wall())
        blame = Blame.MESSAGE
        if is_suspicious and left > 0:
            blame = Blame.DOWNSTREAM if self._breaker.holds else blame
            blame = await self._breaker.blame(delivery) if isinstance(fate, DeadLetter) else blame
        if blame is Blame.DOWNSTREAM:
            self._report_stay(delivery, failure, "held until what the handler depends on works again")
            stays = await self._may_stay(delivery, left)
            fate = failure
        elif blame is Blame.NOBODY:
            later = replace(failure, after=max(failure.after or 0, 2 * self._breaker.pause_seconds))
            return self._given_back(delivery, later)
        elif tries.in_place and isinstance(fate, Retry):
            if stays := self._may_wait(delivery, fate):
                self._report_stay(delivery, fate, "retry in place")
                stays = await delivery.wait(fate.after)
        else:
            return fate
        if not stays:
            return self._given_back(delivery, fate)
        delivery.attempt += is_attempt
        self._context.metrics.retried_in_place()
        return None

    async def _may_stay(self, delivery: Delivery, seconds: float = math.inf) -> bool:
        """Hold the message while the breaker is open, for `seconds` at most; false when it must be given back."""
        if self._context.is_draining:
            delivery.interrupt(Cause.DRAIN)
        end = (
            None
            if seconds == math.inf
            else asyncio.get_running_loop().call_later(seconds, delivery.interrupt, Cause.LEASE_CAP)
        )
        try:
            is_free = await self._breaker.hold(delivery)
        finally:
            if end is not None:
                end.cancel()
        if not is_free:
            self._breaker.passed(delivery)
        return is_free

    def _may_wait(self, delivery: Delivery, retry: Retry) -> bool:
        """Whether the head of a FIFO group may wait in place for its next attempt; it must where one receive more is too many."""
        delay = retry.after or 0
        is_short = delay <= IN_PLACE_SECONDS or self._context.rules.is_last_receive(delivery.received)
        ends_at = self._context.clock.now() + delay
        return is_short and ends_at < delivery.lease.cap_at and not self._context.is_draining

    def _given_back(self, delivery: Delivery, failure: Retry | None) -> Fate:
        """Return what becomes of a message that may not stay in place any longer: it has used up nothing by waiting."""
        if delivery.cause is Cause.LEASE_LOST:
            return Abandon()
        if failure is None:
            return self._released(delivery, 0)
        if self._breaker.is_open:
            failure = replace(failure, after=max(failure.after or 0, self._breaker.pause_seconds))
        return self._rule(failure, delivery, Tries(0))

    def _released(self, delivery: Delivery, seconds: float) -> Fate:
        return self._rule(Release(seconds), delivery, Tries(0))

    def _rule(self, happened: Fate, delivery: Delivery, tries: Tries) -> Fate:
        return self._context.rules.judge(happened, delivery.received, tries, now_wall=self._context.clock.wall())

    def _report_stay(self, delivery: Delivery, failure: Retry, event: str) -> None:
        log.warning(event, queue=self._context.queue, reason=failure.reason, after_seconds=failure.after, exc_info=failure.error, **delivery.log_fields)  # fmt: skip

    def _ended_well(self, delivery: Delivery, ack: Ack) -> None:
        """Tell the breaker; what came too late to be run, or was done before, says nothing of what its handler depends on."""
        if isinstance(ack, Expired) or delivery.was_done:
            self._breaker.passed(delivery)
        else:
            self._breaker.succeeded(delivery)

    def _count(self, fate: Fate) -> None:
        match fate:
            case Expired():
                self._context.metrics.settled("expired")
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

    def _report(self, delivery: Delivery, fate: Fate) -> None:
        match fate:
            case Expired():
                log.info("expired: deleted without being run", queue=self._context.queue, **delivery.log_fields)
            case Retry(after=delay, reason=reason, error=error):
                log.warning("retry", queue=self._context.queue, reason=reason, after_seconds=delay, exc_info=error, **delivery.log_fields)  # fmt: skip
            case DeadLetter(reason=reason, error=error):
                log.error("dead letter", queue=self._context.queue, reason=reason, exc_info=error, **delivery.log_fields)  # fmt: skip
            case _:
                pass


def _leading(happened: Sequence[Fate | None]) -> list[Ack]:
    """Return what is done, from the first on."""
    acks: list[Ack] = []
    for fate in happened:
        if not isinstance(fate, Ack):
            break
        acks.append(fate)
    return acks
