"""The executor: one message to one outcome. Whatever a body or a handler does, it ends in a `Fate`, never in a crash."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import structlog

from worker.aws.envelope import Decoded, decode
from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.journal import NOWHERE
from worker.engine.stacks import waits_in
from worker.errors import InvalidPayloadError, PermanentError, TransientError
from worker.message import Message
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Outcome, Release, Retry
from worker.router import ContractError, Route, Router

__all__ = ["Executor"]

STUCK_SECONDS = 10.0
"""How long a cancelled handler may take to end before it is reported as stuck."""
REASON_CHARACTERS = 500
SUSPECTED_CRASHER = "suspected crasher"
LATE_JITTER_SECONDS = 5.0
"""Spread of what a draining worker gives back, so that a draining fleet does not pass one message round."""

log = structlog.get_logger("executor")


class Executor:
    """Runs messages of one queue: decode, resolve, call, classify.

    A handler may be interrupted for four causes: its time limit, its lease's cap, the end of the drain, a lost lease.
    It runs in a task of its own: whoever else cancels that, the handler itself or a timer that it forgot, makes a
    failed attempt and never hits the settlement. A cancellation of the message's task comes from outside the engine.
    """

    def __init__(
        self, context: QueueContext, router: Router, *, state: object = None, cap: asyncio.Semaphore | None = None
    ) -> None:
        self._context = context
        self._router = router
        self._state = state
        self._cap = cap or nullcontext()
        self._durations: dict[str, deque[float]] = {}

    async def execute(self, delivery: Delivery) -> Fate:
        """Run the message and return what happened; raises only when the task is cancelled from outside."""
        try:
            decoded = decode(delivery.received, self._context.settings.envelope)
            delivery.event_type = decoded.event_type
            route = self._router.resolve(decoded.event_type)
            if route is None:
                return self._unknown(decoded.event_type)
            delivery.handler = route.name
            delivery.attempts = route.attempts
            if self._has_killed(delivery, route):
                return DeadLetter(SUSPECTED_CRASHER)
            if self._comes_too_late(delivery, route):
                return Release(0 if self._context.settings.is_fifo else random.uniform(0, LATE_JITTER_SECONDS))
            message = self._message(delivery, decoded, route.event_of(decoded))
        except BaseException as error:  # noqa: BLE001  # a validator of the user's may raise anything
            return _classify(error)
        return await self._run(delivery, route, message)

    def p95_seconds(self, handler: str) -> float:
        """Return the 95th percentile of the handler's last hundred runs; 0 when it has none."""
        durations = sorted(self._durations.get(handler, ()))
        return durations[int(len(durations) * 0.95)] if durations else 0.0

    async def _run(self, delivery: Delivery, route: Route, message: Message[Any]) -> Fate:
        """Return how the handler ended; a cancellation from outside is passed on to it and raised once it has ended."""
        task = asyncio.create_task(self._attempt(delivery, route, message), name=f"handler-{route.name}")
        try:
            fate = await task
        except asyncio.CancelledError as error:
            fate = _classify(error)
        if (outer := asyncio.current_task()) is not None and outer.cancelling():
            raise asyncio.CancelledError
        return fate

    async def _attempt(self, delivery: Delivery, route: Route, message: Message[Any]) -> Fate:
        context = self._context
        timeout = route.timeout_seconds or context.settings.handler_timeout_seconds
        started_at: float | None = None
        entry = NOWHERE
        happened: Fate = Release()
        delivery.on_interrupt = self._watch
        try:
            if delivery.begin():
                async with self._cap:
                    started_at = self._note_start(delivery, message)
                    entry = context.journal.begin(delivery.received.id, context.suspects.deaths(delivery.received.id))
                    happened = _sound(await _limited(delivery, timeout, route.call(message)))
        except BaseException as error:  # noqa: BLE001  # a handler may raise anything
            happened = _classify(error)
        finally:
            delivery.end()
            context.journal.end(entry)
            context.suspects.clear(delivery.received.id)
            if started_at is not None:
                self._note_end(delivery, route, context.clock.now() - started_at)
        return happened if delivery.cause is None else _interrupted(delivery.cause, has_run=started_at is not None)

    def _message(self, delivery: Delivery, decoded: Decoded, event: object) -> Message[Any]:
        received = delivery.received
        return Message(
            id=received.id,
            queue=self._context.queue,
            event=event,
            event_type=decoded.event_type,
            body=decoded.body,
            attributes=decoded.attributes,
            receive_count=received.receive_count,
            sent_at=datetime.fromtimestamp(received.sent_at, UTC) if received.sent_at else None,
            published_at=decoded.published_at,
            group_id=received.group_id,
            sequence_number=received.sequence_number,
            lease=delivery.lease,
            state=self._state,
        )

    def _unknown(self, event_type: str | None) -> Fate:
        reason = "message without an event type" if event_type is None else f"unknown event type {event_type[:200]!r}"
        match self._context.settings.unknown_event:
            case "ack":
                return Ack(reason)
            case "dead_letter":
                return DeadLetter(reason)
            case _ if self._context.is_draining:  # the newer release that knows it is on its way
                return Release()
            case _:
                return Retry(reason=reason)

    def _has_killed(self, delivery: Delivery, route: Route) -> bool:
        """Whether processes have died of the message, and it has no attempt left (E4)."""
        received = delivery.received
        is_last = self._context.rules.is_last_attempt(received, route.attempts)
        if not (is_last and self._context.suspects.is_crasher(received.id)):
            return False
        self._context.suspects.clear(received.id)
        return True

    def _comes_too_late(self, delivery: Delivery, route: Route) -> bool:
        """Whether a message that a draining worker still got cannot be expected to end in time (D1)."""
        drain_ends_at = self._context.drain_ends_at
        if drain_ends_at is None or self._context.rules.is_last_receive(delivery.received):
            return False
        return self._context.clock.now() + self.p95_seconds(route.name) > drain_ends_at

    def _note_start(self, delivery: Delivery, message: Message[Any]) -> float:
        metrics = self._context.metrics
        metrics.started()
        started_at = self._context.clock.now()
        if delivery.received.receive_count > 1:
            metrics.redelivered()
            return started_at
        now = self._context.clock.wall()
        since_sent = max(0.0, now - delivery.received.sent_at) if delivery.received.sent_at else None
        published_at = message.published_at
        metrics.lag(since_sent, None if published_at is None else max(0.0, now - published_at.timestamp()))
        return started_at

    def _note_end(self, delivery: Delivery, route: Route, seconds: float) -> None:
        if delivery.is_stuck:
            delivery.is_stuck = False
            self._context.vitals.stuck -= 1
            self._context.metrics.stuck(self._context.vitals.stuck)
        durations = self._durations.get(route.name)
        if durations is None:
            durations = self._durations[route.name] = deque(maxlen=100)
        durations.append(seconds)
        self._context.metrics.handled(seconds)

    def _watch(self, delivery: Delivery) -> None:
        asyncio.get_running_loop().call_later(STUCK_SECONDS, self._report_stuck, delivery, delivery.run)

    def _report_stuck(self, delivery: Delivery, run: asyncio.Task[object] | None) -> None:
        if run is None or delivery.run is not run or delivery.is_stuck:
            return
        vitals = self._context.vitals
        delivery.is_stuck = True
        vitals.stuck += 1
        self._context.metrics.stuck(vitals.stuck)
        log.error("a handler ignores its cancellation", queue=self._context.queue, stack=waits_in(run), **delivery.log_fields)  # fmt: skip
        if vitals.stuck * 2 >= self._context.settings.concurrency:
            vitals.fatal(f"{vitals.stuck} of {self._context.settings.concurrency} slots of queue {self._context.queue} hold handlers that ignore their cancellation")  # fmt: skip


async def _limited(delivery: Delivery, timeout_seconds: float | None, call: Awaitable[Outcome]) -> Outcome:
    if timeout_seconds is None:
        return await call
    timer = asyncio.get_running_loop().call_later(timeout_seconds, delivery.interrupt, Cause.TIMEOUT)
    try:
        return await call
    finally:
        timer.cancel()


def _interrupted(cause: Cause, *, has_run: bool) -> Fate:
    match cause:
        case Cause.TIMEOUT:
            return Retry(reason="the handler ran into its time limit")
        case Cause.LEASE_CAP:
            return Retry(reason="the handler ran into max_lease_seconds") if has_run else Release()
        case Cause.DRAIN:
            return Release()
        case Cause.LEASE_LOST:
            return Abandon()


def _sound(outcome: Outcome) -> Outcome:
    """Return the outcome if its fields can be settled; raise `ContractError`, which names the one that cannot."""
    if not isinstance(outcome.reason, str):
        raise ContractError(f"the outcome's reason is a {type(outcome.reason).__name__}; allowed is a string")
    if isinstance(outcome, Retry) and not _is_delay(outcome.after):
        raise ContractError("the outcome's delay is not allowed; write seconds from 0 up, or None")
    return outcome


def _is_delay(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and 0 <= value < math.inf)


def _classify(error: BaseException) -> Outcome:
    """Return the outcome that an exception stands for, whatever the exception does when it is looked at."""
    try:
        return _sound(_outcome_of(error))
    except Exception:  # noqa: BLE001  # a stranger's __str__ or fields may raise
        return Retry(reason=type(error).__name__)


def _outcome_of(error: BaseException) -> Outcome:
    match error:
        case BaseExceptionGroup():
            return _outcome_of_group(error)
        case PermanentError():
            # An invalid payload is told by its reason; its traceback is ours and says nothing.
            return DeadLetter(_reason(error), None if isinstance(error, InvalidPayloadError) else error)
        case TransientError():
            return Retry(after=_retry_after(error), reason=_reason(error), error=error)
        case _:
            return Retry(reason=f"{type(error).__name__}: {error}"[:REASON_CHARACTERS], error=error)


def _outcome_of_group(group: BaseExceptionGroup[BaseException]) -> Outcome:
    """Return `DeadLetter` only if all members are permanent, else a retry after the longest delay that one asks for."""
    leaves = list(_leaves(group))
    first = _outcome_of(leaves[0])
    if all(isinstance(leaf, PermanentError) for leaf in leaves):
        return first
    delays = [_retry_after(leaf) for leaf in leaves if isinstance(leaf, TransientError)]
    longest = max((delay for delay in delays if delay is not None), default=None)
    return Retry(after=longest, reason=first.reason, error=group)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for member in group.exceptions:
        if isinstance(member, BaseExceptionGroup):
            yield from _leaves(member)
        else:
            yield member


def _reason(error: PermanentError | TransientError) -> str:
    """Return what the error says; a subclass need not have called `super().__init__`."""
    return str(getattr(error, "reason", "") or type(error).__name__)


def _retry_after(error: TransientError) -> float | None:
    delay: float | None = getattr(error, "retry_after", None)
    return delay if _is_delay(delay) else None
