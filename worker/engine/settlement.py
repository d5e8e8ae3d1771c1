"""Settlement: turns the fate of a message into SQS calls, retried while its lease holds. Never raises."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import assert_never

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.batcher import Batcher
from worker.engine.context import QueueContext
from worker.engine.dead_letters import compose
from worker.engine.delivery import Delivery
from worker.engine.gate import Gate
from worker.engine.memory import DoneMemory
from worker.engine.verdict import Rules
from worker.errors import EntryError, Fault, SourceError
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Release, Retry
from worker.source import Copy

__all__ = ["Settlement"]

MIN_PAUSE_SECONDS = 0.05
REFUSED = frozenset({Fault.LOST, Fault.INVALID})
"""What SQS says of a receipt that it will never take."""
NEVER_COPIED = frozenset(fault for fault in Fault if not fault.may_pass)
"""What the dead-letter queue says that waiting within one lease does not heal."""

log = structlog.get_logger("settlement")

Attempt = Callable[[], Awaitable[EntryError | None]]


class Settlement:
    """Settles the messages of one queue.

    1. `Ack`: delete, together with whatever else is done at the same moment.
    2. `Retry` and `Release`: change the visibility, after the beat on the wire has ended.
    3. `DeadLetter`: copy, and delete once the copy is confirmed. Twice is possible, loss is not.
    4. What is done but not surely deleted is remembered and only deleted when it comes again.
    """

    def __init__(self, context: QueueContext, gate: Gate) -> None:
        self._context = context
        self._gate = gate
        self._deletes: Batcher[str] = Batcher(context.source.delete, f"delete-{context.queue}")
        self._changes: Batcher[tuple[str, int]] = Batcher(context.source.extend, f"change-{context.queue}")
        self.done = DoneMemory(context.clock)
        """Messages that are done and not surely deleted."""

    async def change(self, receipt: str, seconds: int) -> EntryError | None:
        """Change the visibility of one receipt's message."""
        return await self._changes.submit((receipt, seconds))

    async def settle(self, delivery: Delivery, fate: Fate, rules: Rules) -> Fate:
        """Do what the fate asks for; return what was done once it is, or once the lease has ended."""
        match fate:
            case Ack():
                await self._delete(delivery)
                return fate
            case Retry(after=delay):
                return fate if await self._give_back(delivery, delay or 0) else Abandon()
            case Release(after=delay):
                return fate if await self._give_back(delivery, delay) else Abandon()
            case DeadLetter():
                return await self._dead_letter(delivery, fate, rules)
            case Abandon():
                return fate  # someone else may hold it now
            case _:
                assert_never(fate)

    async def close(self) -> None:
        """Give up the calls on the wire: nobody waits for them any more."""
        await self._deletes.close()
        await self._changes.close()

    async def _delete(self, delivery: Delivery) -> None:
        """Delete, even when the lease has just ended: the work is done, and on AWS it does no harm."""
        is_deleted = await self._insist(delivery, partial(self._try_delete, delivery), hopeless=REFUSED)
        if is_deleted and not delivery.lease.is_lost:
            self.done.forget(delivery.received.id)
        else:
            self.done.remember(delivery.received.id)

    async def _try_delete(self, delivery: Delivery) -> EntryError | None:
        """Delete with the newest receipt; once more if the message was received again meanwhile."""
        lease = delivery.lease
        while True:
            receipt = lease.receipt
            lease.is_being_deleted = True
            error = self._note(delivery, await self._deletes.submit(receipt))
            lease.is_being_deleted = False
            if lease.receipt == receipt:
                return error

    async def _give_back(self, delivery: Delivery, delay_seconds: float) -> bool:
        """Make the message visible after the delay; false if its lease ended first, so that it comes back anyway."""
        lease = delivery.lease
        await lease.rest()
        if lease.is_lost or delivery.is_superseded:
            return False
        return await self._insist(delivery, partial(self._try_change, delivery, delay_seconds), hopeless=REFUSED)

    async def _try_change(self, delivery: Delivery, delay_seconds: float) -> EntryError | None:
        lease = delivery.lease
        seconds = math.ceil(min(delay_seconds, lease.longest_extension_seconds()))
        return self._note(delivery, await self.change(lease.receipt, seconds))

    async def _dead_letter(self, delivery: Delivery, fate: DeadLetter, rules: Rules) -> Fate:
        if delivery.lease.is_lost:
            return Abandon()
        now_wall = self._context.clock.wall()
        if not rules.can_dead_letter:
            log.error("failed for good, but there is no dead-letter queue", reason=fate.reason, **delivery.log_fields)
        else:
            copy = compose(delivery, fate, queue=self._context.queue, is_fifo=rules.settings.is_fifo, now_wall=now_wall)
            if await self._insist(delivery, partial(self._try_copy, copy), hopeless=NEVER_COPIED):
                await self._delete(delivery)
                return fate
        delay = rules.longest_delay_seconds(delivery.received, now_wall)
        return Retry(after=delay, reason=fate.reason) if await self._give_back(delivery, delay) else Abandon()

    async def _try_copy(self, copy: Copy) -> EntryError | None:
        try:
            await self._context.source.dead_letter(copy)
        except SourceError as error:
            refusal = EntryError(error.fault, error.code, error.detail)
        except Exception as error:  # a defect of a source, or of what it was given: waiting does not heal it
            log.exception("a source raised what it must not raise", call="dead_letter")
            refusal = EntryError(Fault.INVALID, type(error).__name__)
        else:
            self._context.vitals.solved("dead_letter")
            return None
        if refusal.fault in NEVER_COPIED:
            why = f"{refusal.code}: {refusal.detail}" if refusal.detail else refusal.code
            self._context.vitals.trouble("dead_letter", f"the dead-letter queue refuses copies ({why})")
            log.error("dead letter refused: the message stays in its queue", queue=self._context.queue, why=why)
        return refusal

    async def _insist(self, delivery: Delivery, attempt: Attempt, *, hopeless: frozenset[Fault]) -> bool:
        """Repeat a call until it succeeds, is hopeless, or the lease has ended. Tried once in any case."""
        lease = delivery.lease
        failures = 0
        while (error := await attempt()) is not None:
            if error.fault in hopeless:
                return False
            failures += 1
            pause = full_jitter(failures, base_seconds=0.1, cap_seconds=5)
            await asyncio.sleep(max(MIN_PAUSE_SECONDS, min(pause, lease.remaining_seconds / 2)))
            if lease.is_lost or delivery.is_superseded:  # a newer receive takes over
                log.warning("not settled before its lease ended", code=error.code, **delivery.log_fields)
                return False
        return True

    def _note(self, delivery: Delivery, error: EntryError | None) -> EntryError | None:
        """Tell the gate how a delete or a visibility change went."""
        if error is None:
            self._gate.answered()
            return None
        self._gate.failed(error.fault, error.code)
        if error.fault in REFUSED:
            log.warning("not settled: SQS refuses the receipt", code=error.code, **delivery.log_fields)
        return error
