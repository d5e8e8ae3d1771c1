"""One queue's consumer: builds the stages, nests them in the order of their shutdown. The only file that wires them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from worker.engine.breaker import Breaker
from worker.engine.context import QueueContext
from worker.engine.dispatcher import Dispatcher
from worker.engine.executor import Executor
from worker.engine.gate import Gate
from worker.engine.guarded import guarded
from worker.engine.keeper import Keeper
from worker.engine.lease import LeaseTerms
from worker.engine.once import Once
from worker.engine.passage import Passage
from worker.engine.receiver import Receiver
from worker.engine.room import Room
from worker.engine.settlement import Settlement
from worker.engine.stages import Stages
from worker.engine.survey import Survey
from worker.engine.vitals import LoopPulse
from worker.objects import TRANSFER_DEADLINE_SECONDS
from worker.router import Router
from worker.settings import QueueSettings

__all__ = ["Consumer"]

FULL_GRACE_SECONDS = 30.0
"""How much longer than the longest handler a full queue may go without giving a slot back."""

log = structlog.get_logger("consumer")


class Consumer:
    """Consumes one queue.

    1. `run` receives and runs messages until told to stop, and returns when everything in hand is settled.
    2. `quiet` stops receiving; what is in hand goes on until the drain ends.
    3. `cut_short` ends the drain: it gives up receives on the wire, cancels handlers, gives their messages back.
    """

    def __init__(self, context: QueueContext, router: Router, *, state: object = None, cap: asyncio.Semaphore | None = None) -> None:  # fmt: skip
        self.context = context
        settings = context.settings
        room = Room(context, router, cap)
        self.slots = room.slots
        self._throttle = room.throttle
        self._gate = gate = Gate(context, self.slots)
        settlement = Settlement(context, gate)
        terms = LeaseTerms(
            timeout_seconds=settings.visibility_timeout_seconds,
            max_seconds=settings.max_lease_seconds,
            clock=context.clock,
            change=settlement.change,
        )
        self.keeper = Keeper(context, terms, gate)
        """The table of leases, for the watchdog."""
        is_once = context.store is not None and any(route.idempotency_key is not None for route in router.routes)
        self._once = Once(context, self.slots, context.store) if is_once and context.store is not None else None
        executor = Executor(context, router, room, state=state, once=self._once)
        stages = Stages(executor, self.keeper, settlement)
        self._breaker = breaker = Breaker(context, self.slots)
        self._dispatcher = Dispatcher(context, terms, stages, Passage(context, stages, breaker, room.pace))
        self._receiver = Receiver(context, self.slots, self._dispatcher.dispatch, room.throttle)
        self._survey = Survey(context)
        context.vitals.full_bound_seconds = _longest_run_seconds(settings, router) + FULL_GRACE_SECONDS

    @property
    def in_hand(self) -> int:
        """Messages that are received and not settled."""
        return self._dispatcher.in_hand

    async def run(self) -> None:
        """Consume until `quiet`; return when the last message in hand is settled."""
        async with asyncio.TaskGroup() as background:
            beats = self._start(background, "lease", lambda _: self.keeper.run())
            helpers = [
                self._start(background, "careful", self._start_carefully),
                self._start(background, "gate", self._gate.run),
                self._start(background, "breaker", self._breaker.run),
                self._start(background, "survey", self._survey.run),
            ]
            if self._once is not None:
                helpers.append(self._start(background, "idempotency", self._once.keep))
            async with self._dispatcher:  # 2. leaves when the last message is settled
                with self._throttle:
                    await self._receiver.run()  # 1. returns when the slots are closed
            for helper in helpers:
                helper.cancel()
            beats.cancel()  # 3. leases outlive the work they protect

    async def _start_carefully(self, pulse: LoopPulse) -> None:
        """Handle one message at a time until those that ran when a process died were seen, or another has had them (E4)."""
        context, timeout = self.context, self.context.settings.visibility_timeout_seconds
        if not context.suspects:
            return
        log.warning("a process died while it handled messages: one at a time until they were seen", queue=context.queue, messages=len(context.suspects), seconds_at_most=timeout)  # fmt: skip
        self.slots.bound("careful", 1)
        with suppress(TimeoutError):
            while context.suspects:  # each that comes shows that the others may still come
                pulse.expect("starting carefully", timeout + FULL_GRACE_SECONDS)
                async with asyncio.timeout(timeout):
                    await context.suspects.until_fewer()
        self.slots.bound("careful", None)

    def quiet(self, drain_ends_at: float) -> None:
        """Receive nothing more; handlers may go on until `drain_ends_at` on the context's clock."""
        self.context.drain_ends_at = drain_ends_at
        self._receiver.stop()
        self._dispatcher.quiet()

    async def cut_short(self) -> None:
        """End the drain now."""
        if given_up := self._receiver.give_up():
            log.warning("receives on the wire given up", queue=self.context.queue, count=given_up)
        await self._dispatcher.cut_short()

    def _start(self, group: asyncio.TaskGroup, name: str, loop: Callable[[LoopPulse], Awaitable[None]]) -> "asyncio.Task[None]":  # fmt: skip
        return group.create_task(guarded(name, self.context, loop), name=f"{name}-{self.context.queue}")


def _longest_run_seconds(settings: QueueSettings, router: Router) -> float:
    """Return how long a message may hold its slot, its payload being fetched first: the handler's own time limit, else the queue's, and never longer than a lease."""
    longest = float(settings.max_lease_seconds)
    limits = [route.timeout_seconds or settings.handler_timeout_seconds or longest for route in router.routes]
    fetching = TRANSFER_DEADLINE_SECONDS if settings.large_payloads.buckets else 0.0
    return min(longest, max(limits, default=longest) + fetching)
