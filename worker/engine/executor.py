"""The executor: one message to one outcome. Whatever a body or a handler does, it ends in a `Fate`, never in a crash."""

import asyncio
import random
from collections.abc import Awaitable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from worker.aws.envelope import Decoded, decode
from worker.engine.batches import Batches
from worker.engine.calls import Call, Calls
from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.expiry import Expiry
from worker.engine.happened import classify, interrupted, sound
from worker.engine.large_payloads import LargePayloads
from worker.engine.once import Once, Work
from worker.engine.room import Room
from worker.engine.verdict import Tries
from worker.idempotency import fingerprint_of
from worker.message import Message
from worker.objects import S3Pointer
from worker.outcome import Ack, DeadLetter, Expired, Fate, Outcome, Release, Retry
from worker.router import Route, Router

__all__ = ["Executor"]

T = TypeVar("T")

SUSPECTED_CRASHER = "suspected crasher"
EXPIRED = "too late: its expires_at has passed"
LATE_JITTER_SECONDS = 5.0
"""Spread of what a draining worker gives back, so that a draining fleet does not pass one message round."""


class _Prepared(NamedTuple):
    """A message that can be handed to its handler."""

    route: Route
    message: Message[Any]
    expires_at: float | None
    """Unix time from which on it is not worth handling."""
    work: Work | None
    """What is to be done once, where its handler names an idempotency key."""


class _Elsewhere(NamedTuple):
    """A message whose payload has to be fetched first."""

    decoded: Decoded
    pointer: S3Pointer


class Executor:
    """Runs messages of one queue: decode, resolve, call, classify.

    A handler may be interrupted for four causes: its time limit, its lease's cap, the end of the drain, a lost lease.
    It runs in a task of its own: whoever else cancels that, the handler itself or a timer that it forgot, makes a
    failed attempt and never hits the settlement. A cancellation of the message's task comes from outside the engine.
    """

    def __init__(
        self, context: QueueContext, router: Router, room: Room, *, state: object = None, once: Once | None = None
    ) -> None:
        self._context = context
        self._router = router
        self._room = room
        self._state = state
        self._large_payloads = LargePayloads(context)
        self._expiry = Expiry(context)
        self._once = once
        self._calls = Calls(context, room.pace)
        self._batches = {route: Batches(route, self._calls, room) for route in router.routes if route.batch is not None}

    async def execute(self, delivery: Delivery) -> Fate | None:
        """Run the message and return what happened, `None` when its batch ended without saying anything of it.

        Raises only when the task is cancelled from outside.
        """
        prepared = self._prepare(delivery)
        if isinstance(prepared, _Elsewhere):
            prepared = await self._fetched(delivery, prepared)
        if not isinstance(prepared, _Prepared):
            return prepared
        return await self._run(delivery, prepared)

    async def execute_together(self, lane: Sequence[Delivery]) -> list[Fate | None]:
        """Run the first message, with as many that follow it as one batch takes, and return what happened to each."""
        together: list[tuple[Delivery, _Prepared]] = []
        for delivery in lane:
            prepared = self._prepare(delivery)
            if isinstance(prepared, _Elsewhere):
                prepared = await self._fetched(delivery, prepared)
            if not isinstance(prepared, _Prepared):
                if not together:
                    return [prepared]
                break
            batch = prepared.route.batch
            if together and (delivery.stands_alone or prepared.route is not together[0][1].route):
                break
            together.append((delivery, prepared))
            if batch is None or delivery.stands_alone or len(together) >= batch.size:
                break
        batches = self._batches.get(together[0][1].route)
        if batches is None:
            return [await self._run(*together[0])]
        batches.expect([delivery for delivery, _ in together])
        return list(await asyncio.gather(*(self._run(*each) for each in together)))

    def quiet(self) -> None:
        """Nothing more is received: batches do not wait to grow."""
        for batches in self._batches.values():
            batches.flush()

    def p95_seconds(self, handler: str) -> float:
        """Return the 95th percentile of the handler's last hundred runs; 0 when it has none."""
        return self._calls.p95_seconds(handler)

    def _prepare(self, delivery: Delivery, decoded: Decoded | None = None) -> "_Prepared | _Elsewhere | Fate":
        """Get a message ready for its handler; `decoded` is given once its payload was fetched."""
        try:
            decoded = decoded or decode(delivery.received, self._context.settings.envelope)
            delivery.event_type = decoded.event_type
            moment = self._expiry.of(delivery, decoded)
            if self._is_past(moment):
                return self._expired()
            pointer = self._large_payloads.pointer_of(decoded)
            route = self._router.resolve(decoded.event_type)
            if pointer is not None and decoded.event_type is None and (route is None or not route.takes_pointers):
                return _Elsewhere(decoded, pointer)  # the type stands there, too
            if route is None:
                return self._unknown(decoded.event_type)
            delivery.handler = route.name
            delivery.attempts = route.attempts
            if self._has_killed(delivery):
                return DeadLetter(SUSPECTED_CRASHER)
            if self._comes_too_late(delivery, route):
                return Release(0 if self._context.settings.is_fifo else random.uniform(0, LATE_JITTER_SECONDS))
            if pointer is not None:
                if not route.takes_pointers:
                    return _Elsewhere(decoded, pointer)
                self._large_payloads.allow(pointer)
            message = self._message(delivery, decoded, route.event_of(decoded))
            return _Prepared(route, message, moment, _work(route, message.event, decoded))
        except BaseException as error:  # noqa: BLE001  # a validator of the user's may raise anything
            return classify(error)

    async def _run(self, delivery: Delivery, prepared: _Prepared) -> Fate | None:
        return await _in_a_task(self._handle(delivery, prepared), f"handler-{prepared.route.name}")

    async def _fetched(self, delivery: Delivery, elsewhere: _Elsewhere) -> _Prepared | Fate:
        """Return the message with its large payload, fetched while its lease is kept, unless something ended that."""
        got = await _in_a_task(self._fetch(delivery, elsewhere), f"fetch-{self._context.queue}")
        if not isinstance(got, Decoded):
            return got
        prepared = self._prepare(delivery, got)
        assert not isinstance(prepared, _Elsewhere)  # noqa: S101  # what was fetched is no pointer: it lacks the attribute
        return prepared

    async def _fetch(self, delivery: Delivery, elsewhere: _Elsewhere) -> Decoded | Fate:
        got: Decoded | Fate = Release()
        try:
            if delivery.begin():
                got = await self._large_payloads.fetch(*elsewhere)
        except BaseException as error:  # noqa: BLE001  # what becomes of it is for one place to say
            got = classify(error)
        finally:
            delivery.end()
        return got if delivery.cause is None else interrupted(delivery.cause, has_run=False)

    def _handle(self, delivery: Delivery, prepared: _Prepared) -> Coroutine[Any, Any, Fate | None]:
        """Attempt the message; where its handler names an idempotency key, only if its work is to be done now."""
        if self._once is None or prepared.work is None:
            return self._attempt_as_routed(delivery, prepared)
        return self._handle_once(self._once, prepared.work, delivery, prepared)

    async def _handle_once(self, once: Once, work: Work, delivery: Delivery, prepared: _Prepared) -> Fate | None:
        fate: Fate | None = None
        try:
            fate = await once.run(delivery, work, lambda: self._attempt_as_routed(delivery, prepared))
        finally:
            if (batches := self._batches.get(prepared.route)) is not None:
                batches.skip(prepared.message.id, is_done=isinstance(fate, Ack))
        return fate

    def _attempt_as_routed(self, delivery: Delivery, prepared: _Prepared) -> Coroutine[Any, Any, Fate | None]:
        batches = self._batches.get(prepared.route)
        return self._attempt(delivery, prepared) if batches is None else batches.attempt(delivery, prepared.message)

    async def _attempt(self, delivery: Delivery, prepared: _Prepared) -> Fate:
        route, message, moment, _ = prepared
        call = Call(self._calls, route.name)
        timeout = route.timeout_seconds or self._context.settings.handler_timeout_seconds
        happened: Fate = Release()
        delivery.on_interrupt = call.watch
        try:
            if delivery.begin():
                async with self._room.turn(route, lambda: [delivery]):
                    if self._is_past(moment):  # it has waited for its turn
                        happened = self._expired()
                    else:
                        call.start()
                        call.take(delivery, message)
                        happened = sound(await _limited(delivery, timeout, route.call(message)))
        except BaseException as error:  # noqa: BLE001  # a handler may raise anything
            happened = classify(error)
        finally:
            delivery.end()
            call.end()
        return happened if delivery.cause is None else interrupted(delivery.cause, has_run=call.has_started)

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

    def _is_past(self, moment: float | None) -> bool:
        return moment is not None and self._context.clock.wall() >= moment

    def _expired(self) -> Fate:
        return DeadLetter(EXPIRED) if self._context.settings.expired == "dead_letter" else Expired(EXPIRED)

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

    def _has_killed(self, delivery: Delivery) -> bool:
        """Whether processes have died of the message, and it has no attempt left; while it is suspected it runs alone (E4)."""
        received, suspects = delivery.received, self._context.suspects
        if received.id not in suspects:
            return False
        delivery.is_alone = True
        is_last = self._context.rules.is_last_attempt(received, Tries(delivery.attempt, delivery.attempts))
        if not (is_last and suspects.is_crasher(received.id)):
            return False
        suspects.clear(received.id)
        return True

    def _comes_too_late(self, delivery: Delivery, route: Route) -> bool:
        """Whether a message that a draining worker still got cannot be expected to end in time (D1)."""
        drain_ends_at = self._context.drain_ends_at
        if drain_ends_at is None or self._context.rules.is_last_receive(delivery.received):
            return False
        return self._context.clock.now() + self.p95_seconds(route.name) > drain_ends_at


async def _in_a_task(work: Coroutine[Any, Any, T], name: str) -> T | Fate:
    """Return how the work ended; a cancellation from outside is passed on to it and raised once it has ended."""
    ended: T | Fate
    try:
        ended = await asyncio.create_task(work, name=name)
    except asyncio.CancelledError as error:
        ended = classify(error)
    if (outer := asyncio.current_task()) is not None and outer.cancelling():
        raise asyncio.CancelledError
    return ended


def _work(route: Route, event: object, decoded: Decoded) -> Work | None:
    """Return what the event asks for; raises `PermanentError` when it has not the key that its handler names."""
    key = route.idempotency_key
    return None if key is None else Work(key.read(event), fingerprint_of(decoded.payload))


async def _limited(delivery: Delivery, timeout_seconds: float | None, call: Awaitable[Outcome]) -> Outcome:
    if timeout_seconds is None:
        return await call
    timer = asyncio.get_running_loop().call_later(timeout_seconds, delivery.interrupt, Cause.TIMEOUT)
    try:
        return await call
    finally:
        timer.cancel()
