"""Work that outlasts its lease, at a queue that remembers which handles it was asked about."""

import asyncio
from collections.abc import Sequence

from support.loop_time import now

from worker.errors import EntryError, Fault, SourceError
from worker.message import Message
from worker.outcome import Ack, Outcome
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

__all__ = ["RecordedSource", "Work", "leases_lost", "settled"]


class RecordedSource(MemorySource):
    """A queue that knows which receipts were extended and deleted, and when."""

    def __init__(self, *, visibility_timeout_seconds: int = 30) -> None:
        super().__init__(visibility_timeout_seconds=visibility_timeout_seconds)
        self.extended: list[tuple[float, list[str]]] = []
        self.deleted: list[str] = []
        self.poison: str | None = None
        """SQS refuses every call as a whole that extends a receipt with this end."""

    async def extend(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
        """Extend, and note when and which."""
        receipts = [receipt for receipt, _ in changes]
        self.extended.append((now(), receipts))
        if self.poison is not None and any(receipt.endswith(self.poison) for receipt in receipts):
            raise SourceError(Fault.INVALID, "InvalidRequest")
        return await super().extend(changes)

    async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
        """Delete, and note which."""
        self.deleted.extend(receipts)
        return await super().delete(receipts)


class Work:
    """A handler whose first run takes its time and ends in its outcome; every other is done at once.

    It notes when runs began, when they were cancelled, and how many ran at once.
    """

    def __init__(self, seconds: float, *, outcome: Outcome | None = None, swallows: bool = False) -> None:
        self.seconds = seconds
        self.outcome = outcome or Ack()
        self.swallows = swallows
        self.began: list[float] = []
        self.cancelled: list[float] = []
        self.running = 0
        self.most_at_once = 0

    async def __call__(self, message: Message[str]) -> Outcome:
        self.began.append(now())
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(self.seconds if message.receive_count == 1 else 0)
        except asyncio.CancelledError:
            self.cancelled.append(now())
            if not self.swallows:
                raise
        finally:
            self.running -= 1
        return self.outcome if message.receive_count == 1 else Ack()


def settled(fleet: Fleet) -> dict[str, int]:
    """Return how the messages ended; what did not happen is left out."""
    assert fleet.consumer is not None
    return {how: count for how, count in fleet.consumer.context.metrics.snapshot()["settled"].items() if count}


def leases_lost(fleet: Fleet) -> int:
    """Return how many leases were lost."""
    assert fleet.consumer is not None
    return fleet.consumer.context.metrics.snapshot()["leases_lost"]
