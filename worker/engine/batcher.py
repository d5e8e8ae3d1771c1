"""Entries that come due together share a call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import structlog

from worker.errors import EntryError, Fault, SourceError
from worker.source import MAX_BATCH

__all__ = ["Batcher"]

Entry = TypeVar("Entry")
Answer = asyncio.Future[EntryError | None]

GATHER_SECONDS = 0.02
"""How long fewer than ten entries wait for more while another call is on the wire anyway."""
GIVEN_UP = EntryError(Fault.UNAVAILABLE, "GivenUp", "the call ended without an answer")

log = structlog.get_logger("settlement")


class Batcher(Generic[Entry]):
    """Turns single entries into batch calls of at most ten; a lone entry waits for nobody.

    Every entry gets its own answer, whatever becomes of its call. A batch that SQS refuses as a whole is split,
    never repeated as it was.
    """

    def __init__(self, call: Callable[[Sequence[Entry]], Awaitable[list[EntryError | None]]], name: str) -> None:
        self._call = call
        self._name = name
        self._pending: list[tuple[Entry, Answer]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    async def submit(self, entry: Entry) -> EntryError | None:
        """Send the entry with the next call and return its own error, if any. Never raises `SourceError`."""
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._pending.append((entry, answer))
        if len(self._pending) >= MAX_BATCH:
            self._flush()
        elif self._timer is None:
            if self._calls:
                self._timer = loop.call_later(GATHER_SECONDS, self._flush)
            else:  # whoever else ends in this turn of the loop comes along
                self._timer = loop.call_soon(self._flush)
        return await answer

    async def close(self) -> None:
        """Give up the calls on the wire and what waits to be sent; return when nothing is left of them."""
        self._flush()
        while self._calls:
            for call in self._calls:
                call.cancel()
            await asyncio.wait(self._calls)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._pending:
            batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
            task = asyncio.create_task(self._send(batch), name=self._name)
            self._calls.add(task)
            task.add_done_callback(partial(self._sent, batch))

    def _sent(self, batch: Sequence[tuple[Entry, Answer]], task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        _reply(batch, [GIVEN_UP] * len(batch))  # to those who have none: the call was cancelled
        if self._pending and not self._calls:
            self._flush()

    async def _send(self, batch: Sequence[tuple[Entry, Answer]]) -> None:
        try:
            errors = await self._ask([entry for entry, _ in batch])
        except SourceError as error:
            if error.fault is Fault.INVALID and len(batch) > 1:
                await asyncio.gather(*(self._send([single]) for single in batch))
                return
            errors = [EntryError(error.fault, error.code, error.detail)] * len(batch)
        except Exception as error:  # a defect of a source must not leave its callers waiting
            log.exception("a source raised what it must not raise", call=self._name)
            errors = [EntryError(Fault.UNAVAILABLE, type(error).__name__)] * len(batch)
        _reply(batch, errors)

    async def _ask(self, entries: Sequence[Entry]) -> Sequence[EntryError | None]:
        errors = await self._call(entries)
        if len(errors) != len(entries):
            raise ValueError(f"{len(errors)} answers to {len(entries)} entries")
        return errors


def _reply(batch: Sequence[tuple[Entry, Answer]], errors: Sequence[EntryError | None]) -> None:
    for (_, answer), error in zip(batch, errors, strict=True):
        if not answer.done():
            answer.set_result(error)
