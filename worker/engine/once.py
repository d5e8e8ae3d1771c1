"""`Once`: the work of an idempotency key is begun by one owner at a time, and not again once it is done (I1)."""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, NamedTuple, TypeVar

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.delivery import Cause, Delivery
from worker.engine.happened import interrupted
from worker.engine.slots import Slots
from worker.engine.vitals import LoopPulse
from worker.errors import ConfigError
from worker.idempotency import Answer, Begun, Done, Mark, Other, Running, Store, StoreError, Together
from worker.outcome import Ack, DeadLetter, Fate, Release
from worker.telemetry.logs import LoggedState

__all__ = ["OTHER_PAYLOAD", "Once", "Work"]

R = TypeVar("R")

CALL_SECONDS = 5.0
"""How long a call to the store may take."""
SOONEST_SECONDS = 1.0
"""How long at least one waits for work that runs elsewhere."""
OPEN_CAP_SECONDS = 15.0
AGAIN_SECONDS: Final = (0.5, 1.5)
"""After how long a store that was away is asked again."""
PRUNE_SECONDS = 3600.0
GRACE_SECONDS = 60.0
OTHER_PAYLOAD = "the idempotency key was used before, with another payload"

log = structlog.get_logger("idempotency")


class Work(NamedTuple):
    """What a message asks for."""

    key: str
    """A hash of the business key."""
    fingerprint: str
    """A hash of the payload."""


@dataclass(slots=True, eq=False)
class _InHand:
    """The work of one message that is in hand."""

    mark: Mark
    delivery: Delivery
    is_begun: bool = False
    """Whether the store has told us that it is ours."""


class Once:
    """Marks the work of one queue's messages.

    1. `run` marks the work as in progress, runs it, and marks it as done or frees its key. Work that is done is acked, work that
       runs elsewhere waits for the end of its mark: neither is a failure.
    2. `keep` opens the store, before which nothing is received, renews what runs, and forgets what has ended.
    3. While the store is away nothing is received, and what is in hand waits in place: what is not begun to begin, what is done
       to be marked so. It spends neither receives nor attempts.
    4. When it is back, what runs is marked anew before anything is received. Work that another one has begun meanwhile, since
       our mark had ended, is cancelled here.

    A mark lasts as long as a lease, and is renewed when its message's lease was extended, and at a third of the timeout: whoever
    still holds the lease of a message has its mark too, and after a crash it has ended within one visibility timeout.
    """

    def __init__(self, context: QueueContext, slots: Slots, store: Store) -> None:
        self._context = context
        self._slots = slots
        self._store = store
        self._consumer = context.settings.consumer or context.queue
        self._owner = secrets.token_hex(8)
        self._beat_seconds = context.settings.visibility_timeout_seconds / 3
        self._mark_seconds = float(context.settings.visibility_timeout_seconds)
        self._in_hand: dict[str, _InHand] = {}
        self._extended: set[str] = set()
        """Keys of what has a longer lease than its mark."""
        self._is_away = False
        """Whether a call has failed since the store was last known to work."""
        self._wake = asyncio.Event()
        self._state = LoggedState(log.bind(queue=context.queue), "the idempotency store", clock=context.clock.now)
        self._begins: Together[Mark, Answer] = Together(
            lambda marks: self._call("begin", store.begin(marks)), f"begin-{context.queue}"
        )
        self._finishes = Together(self._finish, f"finish-{context.queue}")
        self._releases = Together(self._release, f"release-{context.queue}")
        slots.bound("idempotency", 0)

    async def run(self, delivery: Delivery, work: Work, attempt: Callable[[], Awaitable[Fate | None]]) -> Fate | None:
        """Return what the attempt returns, or what becomes of a message whose work is not to be run now."""
        mark = Mark(f"{self._consumer}:{work.key}", work.fingerprint, self._owner, self._mark_seconds)
        if (other := self._in_hand.get(mark.key)) is not None:
            is_same = other.mark.fingerprint == mark.fingerprint
            return self._refused(delivery, Running(self._beat_seconds) if is_same else Other())
        work_in_hand = self._in_hand[mark.key] = _InHand(mark, delivery)
        try:
            answer = await self._begin(work_in_hand)
            if answer is None:
                return Release() if delivery.cause is None else interrupted(delivery.cause, has_run=False)
            if not isinstance(answer, Begun):
                return self._refused(delivery, answer)
            delivery.lease.on_extended = partial(self._is_extended, mark.key)
            fate = await attempt()
            await self._end(delivery, mark, fate)
            return fate
        finally:
            del self._in_hand[mark.key]

    async def keep(self, pulse: LoopPulse) -> None:
        """Open the store; then renew what runs, and prune once an hour, until cancelled."""
        await self._open(pulse)
        prunes_at = self._context.clock.now() + PRUNE_SECONDS * random.uniform(0, 1)
        renews_at = self._context.clock.now() + self._beat_seconds
        while True:
            pulse.expect("renewing marks", self._beat_seconds + GRACE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, renews_at - self._context.clock.now())):
                    await self._wake.wait()
            if self._context.clock.now() >= renews_at:
                renews_at = self._context.clock.now() + self._beat_seconds
                self._extended.update(self._in_hand)
            with suppress(StoreError):  # counted and said already
                if self._is_away:
                    await self._return(pulse)
                else:
                    await self._renew()
                if self._context.clock.now() >= prunes_at:
                    prunes_at = self._context.clock.now() + PRUNE_SECONDS
                    pulse.expect("pruning marks", CALL_SECONDS + GRACE_SECONDS)
                    await self._call("prune", self._store.prune())

    async def _open(self, pulse: LoopPulse) -> None:
        for attempt in count(1):
            pulse.expect("opening the idempotency store", CALL_SECONDS + GRACE_SECONDS)
            try:
                await self._call("open", self._store.open())
            except ConfigError as error:
                self._context.vitals.fatal(str(error))
                return
            except StoreError:
                await asyncio.sleep(1 + full_jitter(attempt, base_seconds=1, cap_seconds=OPEN_CAP_SECONDS))
            else:
                break
        self._is_back()

    def _is_extended(self, key: str) -> None:
        self._extended.add(key)
        self._wake.set()

    async def _renew(self) -> None:
        self._wake.clear()
        keys, self._extended = self._extended, set()
        marks = [self._in_hand[key].mark for key in keys if key in self._in_hand]
        if marks:
            await self._call("renew", self._store.renew(marks))

    async def _return(self, pulse: LoopPulse) -> None:
        """Wait until a store that was away takes marks again, with its table, which it may have lost; make sure of what runs here."""
        pulse.expect("asking whether the idempotency store works again", 2 * CALL_SECONDS + GRACE_SECONDS)
        await asyncio.sleep(random.uniform(*AGAIN_SECONDS))
        await self._call("open", self._store.open())
        probe = Mark(f"{self._consumer}:probe-{self._owner}", "", self._owner, self._mark_seconds)
        works = [work for work in self._in_hand.values() if work.is_begun]
        answers = await self._call("begin", self._store.begin([probe, *(work.mark for work in works)]))
        for work, answer in zip(works, answers[1:], strict=True):
            if not isinstance(answer, Begun):
                log.warning("another one has begun this work while the store was away", queue=self._context.queue, key=work.mark.key, **work.delivery.log_fields)  # fmt: skip
                work.delivery.interrupt(Cause.MARK_LOST)
        await self._call("release", self._store.release([probe]))
        # Who runs something elsewhere makes sure of it before anybody begins anything.
        await asyncio.sleep(max(AGAIN_SECONDS))
        self._is_back()

    def _is_back(self) -> None:
        self._is_away = False
        self._state.recovered()
        self._context.vitals.solved("idempotency")
        self._slots.bound("idempotency", None)
        self._context.vitals.slot_freed_at = self._context.clock.now()

    def _is_gone(self, error: StoreError | ConfigError) -> None:
        sentence = f"the idempotency store does not answer: {error}"
        self._context.vitals.trouble("idempotency", sentence)
        self._state.failed(type(error).__name__, f"nothing is received: {error}")
        self._slots.bound("idempotency", 0)
        self._is_away = True
        self._wake.set()

    async def _begin(self, work: _InHand) -> Answer | None:
        """Return the store's answer; `None` when it did not answer for as long as the message could wait for it."""
        while True:
            if not self._is_away:
                with suppress(StoreError):
                    answer = await self._begins.submit(work.mark)
                    work.is_begun = isinstance(answer, Begun)
                    return answer
            if self._context.is_draining or not await work.delivery.wait(min(AGAIN_SECONDS)):
                return None

    def _refused(self, delivery: Delivery, answer: Done | Running | Other) -> Fate:
        """Return what becomes of a message whose work another one does, or has done."""
        match answer:
            case Done():
                delivery.was_done = True
                self._context.metrics.idempotency_duplicate("done")
                return Ack("done before")
            case Running(seconds=seconds):
                self._context.metrics.idempotency_duplicate("running")
                return Release(max(seconds, SOONEST_SECONDS), runs_elsewhere=True)
            case Other():
                return DeadLetter(OTHER_PAYLOAD)

    async def _end(self, delivery: Delivery, mark: Mark, fate: Fate | None) -> None:
        """Mark what is done, however long that takes while the lease is kept; free the key of what is not."""
        while True:
            try:
                await (self._finishes if isinstance(fate, Ack) else self._releases).submit(mark)
            except StoreError as error:
                if not isinstance(fate, Ack):  # its mark ends
                    return
                if not self._may_insist(delivery):
                    log.warning("done, but not marked as done", queue=self._context.queue, key=mark.key, error=str(error), **delivery.log_fields)  # fmt: skip
                    return
                await asyncio.sleep(random.uniform(*AGAIN_SECONDS))
            else:
                return

    def _may_insist(self, delivery: Delivery) -> bool:
        """Whether a message that is done may wait for its mark: its lease is kept, and a drain leaves time for one more call."""
        drain_ends_at = self._context.drain_ends_at
        has_time = drain_ends_at is None or self._context.clock.now() + CALL_SECONDS < drain_ends_at
        return has_time and not delivery.lease.is_lost and delivery.cause in {None, Cause.TIMEOUT, Cause.DRAIN}

    async def _finish(self, marks: Sequence[Mark]) -> Sequence[None]:
        await self._call("finish", self._store.finish(marks))
        return [None] * len(marks)

    async def _release(self, marks: Sequence[Mark]) -> Sequence[None]:
        await self._call("release", self._store.release(marks))
        return [None] * len(marks)

    async def _call(self, name: str, call: Awaitable[R]) -> R:
        """Make a call of the store, within its time; say how it went. Raises `StoreError`, or `ConfigError` for a store that is no use."""
        clock = self._context.clock
        began = clock.now()
        error: StoreError | ConfigError | None = None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                result = await call
        except TimeoutError:
            error = StoreError(f"no answer within {CALL_SECONDS:g} s")
        except (StoreError, ConfigError) as known:
            error = known
        except Exception as defect:
            log.exception("a store raised what it must not raise", call=name)
            error = StoreError(type(defect).__name__)
        finally:
            self._context.metrics.idempotency_call(name, clock.now() - began, has_failed=error is not None)
        if error is None:
            return result
        if name != "prune":
            self._is_gone(error)
        raise error
