"""Handlers that keep books: when they ran, for which message, and whether two runs of one message ever overlapped."""

import asyncio
import contextlib
from typing import Any

from support.loop_time import now

from worker.message import Message
from worker.outcome import Ack, DeadLetter, Retry
from worker.testing import MemorySource

__all__ = ["Handled", "Runs", "Stubborn", "deliver_again", "refuse"]


class Handled:
    """Takes `seconds`, then returns (or raises) the next of its outcomes, `Ack` when there are none left."""

    def __init__(self, *outcomes: Ack | Retry | DeadLetter | Exception, seconds: float = 1.0) -> None:
        self._outcomes = list(outcomes)
        self._seconds = seconds
        self.starts: list[tuple[float, str]] = []
        self.ends: list[float] = []

    @property
    def bodies(self) -> list[str]:
        """What was started, in order."""
        return [body for _, body in self.starts]

    async def __call__(self, message: Message[Any]) -> Ack | Retry | DeadLetter:
        self.starts.append((now(), message.body))
        await asyncio.sleep(self._seconds)
        self.ends.append(now())
        outcome = self._outcomes.pop(0) if self._outcomes else Ack()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Runs:
    """Takes `seconds` and succeeds; notes the span of each run."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.spans: dict[str, list[tuple[float, float | None]]] = {}
        self.overlaps: list[str] = []
        self._running: set[str] = set()

    @property
    def count(self) -> int:
        """Runs that were begun."""
        return sum(len(spans) for spans in self.spans.values())

    async def __call__(self, message: Message[Any]) -> None:
        if message.id in self._running:
            self.overlaps.append(message.id)
        self._running.add(message.id)
        spans = self.spans.setdefault(message.id, [])
        spans.append((now(), None))
        try:
            await self.work(message)
        finally:
            self._running.discard(message.id)
            spans[-1] = (spans[-1][0], now())

    async def work(self, _: Message[Any]) -> None:
        """Do it."""
        await asyncio.sleep(self.seconds)


class Stubborn(Runs):
    """Ignores every cancellation until it is over."""

    async def work(self, _: Message[Any]) -> None:
        """Do it, come what may."""
        ends_at = now() + self.seconds
        while now() < ends_at:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(ends_at - now())


async def refuse(_: Message[Any]) -> DeadLetter:
    """Handle any message that can never succeed."""
    return DeadLetter("sold out")


def deliver_again(source: MemorySource, message_id: str) -> None:
    """Let the next receive return the message although it is in flight, as SQS sometimes does."""
    (stored,) = [stored for stored in source.stored() if stored.id == message_id]
    source.store.double_later(stored)  # type: ignore[arg-type]  # any record of the message has its id
