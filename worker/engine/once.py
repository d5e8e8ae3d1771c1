"""`Once`: the work of an idempotency key is begun by one owner at a time, and not again once it is done (I1)."""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import NamedTuple, TypeVar

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.delivery import Delivery
from worker.engine.slots import Slots
from worker.engine.vitals import LoopPulse
from worker.errors import ConfigError, TransientError
from worker.idempotency import Answer, Begun, Done, Mark, Other, Running, Store, StoreError, Together
from worker.outcome import Ack, DeadLetter, Fate, Release, Retry

__all__ = ["OTHER_PAYLOAD", "Once", "Work"]

R = TypeVar("R")

CALL_SECONDS = 5.0
"""How long a call to the store may take."""
SOONEST_SECONDS = 1.0
"""How long at least one waits for work that runs elsewhere."""
OPEN_CAP_SECONDS = 15.0
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


class Once:
    """Marks the work of one queue's messages.

    1. `run` marks the work as in progress, runs it, and marks it as done or frees its key. Work that is done is acked, work that
       runs elsewhere waits for the end of its mark: neither is a failure.
    2. `keep` opens the store, before which nothing is received, renews what runs, and forgets what has ended.
    3. A store that does not answer before the work is a passing failure; afterwards it is counted, since the work is done.

    A mark lasts a third of the visibility timeout longer than a lease and is renewed at a third, as leases are: whoever still
    holds the lease of a message has its mark too.
    """

    def __init__(self, context: QueueContext, slots: Slots, store: Store) -> None:
        self._context = context
        self._slots = slots
        self._store = store
        self._consumer = context.settings.consumer or context.queue
        self._owner = secrets.token_hex(8)
        self._beat_seconds = context.settings.visibility_timeout_seconds / 3
        self._mark_seconds = context.settings.visibility_timeout_seconds + self._beat_seconds
        self._running: dict[str, Mark] = {}
        self._begins: Together[Mark, Answer] = Together(
            lambda marks: self._call("begin", store.begin(marks)), f"begin-{context.queue}"
        )
        self._finishes = Together(self._finish, f"finish-{context.queue}")
        self._releases = Together(self._release, f"release-{context.queue}")
        slots.bound("idempotency", 0)

    async def run(self, delivery: Delivery, work: Work, attempt: Callable[[], Awaitable[Fate | None]]) -> Fate | None:
        """Return what the attempt returns, or what becomes of a message whose work is not to be run now."""
        mark = Mark(f"{self._consumer}:{work.key}", work.fingerprint, self._owner, self._mark_seconds)
        if (other := self._running.get(mark.key)) is not None:
            return self._refused(
                delivery, Running(self._beat_seconds) if other.fingerprint == mark.fingerprint else Other()
            )
        self._running[mark.key] = mark
        try:
            try:
                answer = await self._begins.submit(mark)
            except StoreError as error:
                down = TransientError(f"the idempotency store does not answer: {error}")
                return Retry(reason=down.reason, error=down)
            if not isinstance(answer, Begun):
                return self._refused(delivery, answer)
            fate = await attempt()
            await self._end(delivery, mark, fate)
            return fate
        finally:
            del self._running[mark.key]

    async def keep(self, pulse: LoopPulse) -> None:
        """Open the store; then renew what runs, and prune once an hour, until cancelled."""
        await self._open(pulse)
        prunes_at = self._context.clock.now() + PRUNE_SECONDS * random.uniform(0, 1)
        pause = self._beat_seconds
        while True:
            pulse.expect("renewing marks", pause + GRACE_SECONDS)
            await asyncio.sleep(pause)
            pause = self._beat_seconds
            try:
                if "idempotency" in self._context.vitals.problems:  # it may be back, without its table, and nobody asks
                    await self._call("open", self._store.open())
                if self._running:
                    await self._call("renew", self._store.renew(list(self._running.values())))
                if self._context.clock.now() >= prunes_at:
                    prunes_at = self._context.clock.now() + PRUNE_SECONDS
                    pulse.expect("pruning marks", CALL_SECONDS + GRACE_SECONDS)
                    await self._call("prune", self._store.prune())
            except StoreError:  # counted and said already
                pause /= 4

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
        self._slots.bound("idempotency", None)
        self._context.vitals.slot_freed_at = self._context.clock.now()

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
        """Mark what is done; free the key of what is not."""
        is_done = isinstance(fate, Ack)
        try:
            await (self._finishes if is_done else self._releases).submit(mark)
        except StoreError as error:
            said = "done, but not marked as done" if is_done else "not done, but still marked as in progress"
            log.warning(said, queue=self._context.queue, key=mark.key, error=str(error), **delivery.log_fields)

    async def _finish(self, marks: Sequence[Mark]) -> Sequence[None]:
        await self._call("finish", self._store.finish(marks))
        return [None] * len(marks)

    async def _release(self, marks: Sequence[Mark]) -> Sequence[None]:
        await self._call("release", self._store.release(marks))
        return [None] * len(marks)

    async def _call(self, name: str, call: Awaitable[R]) -> R:
        """Make a call of the store, within its time; say how it went. Raises `StoreError`, or `ConfigError` for a store that is no use."""
        clock, vitals = self._context.clock, self._context.vitals
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
            vitals.solved("idempotency")
            return result
        vitals.trouble("idempotency", f"the idempotency store does not answer: {error}")
        raise error
