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

    async def _delete(self, delivery: Delivery) -> None:
        """Delete with the newest receipt; a finished message is deleted even when its lease has just ended."""
        lease = delivery.lease
        while True:
            receipt = lease.receipt
            is_deleted = await self._insist(delivery, partial(self._deletes.submit, receipt))
            if lease.receipt == receipt:
                break  # else the message was received again meanwhile: its newest receipt counts
        if is_deleted and not lease.is_lost:
            self.done.forget(delivery.received.id)
        else:
            self.done.remember(delivery.received.id)

    async def _give_back(self, delivery: Delivery, delay_seconds: float) -> bool:
        """Make the message visible after the delay; false if its lease ended first, so that it comes back anyway."""
        lease = delivery.lease
        await lease.rest()
        if lease.is_lost:
            return False
        seconds = min(math.ceil(delay_seconds), lease.longest_extension_seconds())
        return await self._insist(delivery, partial(self.change, lease.receipt, seconds))

    async def _dead_letter(self, delivery: Delivery, fate: DeadLetter, rules: Rules) -> Fate:
        if delivery.lease.is_lost:
            return Abandon()
        now_wall = self._context.clock.wall()
        if rules.can_dead_letter:
            copy = compose(delivery, fate, queue=self._context.queue, is_fifo=rules.settings.is_fifo, now_wall=now_wall)
            if await self._insist(delivery, partial(self._send, copy), is_copy=True):
                self._context.vitals.solved("dead_letter")
                self.done.remember(delivery.received.id)
                await self._delete(delivery)
                return fate
        else:
            log.error("failed for good, but there is no dead-letter queue", reason=fate.reason, **delivery.log_fields)
        delay = rules.longest_delay_seconds(delivery.received, now_wall)
        return Retry(after=delay, reason=fate.reason) if await self._give_back(delivery, delay) else Abandon()

    async def _send(self, copy: Copy) -> EntryError | None:
        try:
            await self._context.source.dead_letter(copy)
        except SourceError as error:
            if not error.fault.may_pass:
                self._context.vitals.trouble("dead_letter", f"the dead-letter queue refuses copies ({error})")
                log.exception("dead letter refused: the message stays in its queue", queue=self._context.queue)
            return EntryError(error.fault, error.code, error.detail)
        return None

    async def _insist(self, delivery: Delivery, attempt: Attempt, *, is_copy: bool = False) -> bool:
        """Repeat a call until it succeeds, can never succeed, or the lease has ended. Tried once in any case."""
        failures = 0
        while True:
            error = await attempt()
            if error is None:
                self._gate.answered()
                return True
            if is_copy:
                if not error.fault.may_pass:
                    return False
            else:
                self._gate.failed(error.fault, error.code)
                if error.fault in {Fault.LOST, Fault.INVALID}:
                    log.warning("not settled: SQS refuses the receipt", code=error.code, **delivery.log_fields)
                    return False
            failures += 1
            pause = full_jitter(failures, base_seconds=0.1, cap_seconds=5)
            if delivery.lease.is_lost or pause >= delivery.lease.remaining_seconds:
                log.warning("not settled before its lease ended", code=error.code, **delivery.log_fields)
                return False
            await asyncio.sleep(pause)
