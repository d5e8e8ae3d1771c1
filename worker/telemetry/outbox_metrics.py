"""The metrics of one topic's outbox, as the process sees it."""

from typing import TypedDict

from worker.telemetry import declared
from worker.telemetry.cells import Number, Reading, Sheet

__all__ = ["OutboxMetrics", "OutboxSnapshot"]


class OutboxSnapshot(TypedDict):
    """One outbox at one moment, ready for JSON; `None` is not known."""

    sent: int
    refused: int
    waiting: int | None
    oldest_seconds: int | None


class OutboxMetrics:
    """What a relay tells of itself."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sheet = sheet = Sheet({"topic": topic})
        self._sent = sheet.one(declared.OUTBOX_SENT, Number)
        self._refused = sheet.one(declared.OUTBOX_REFUSED, Number)
        self._waiting = sheet.one(declared.OUTBOX_WAITING, Reading)
        self._oldest = sheet.one(declared.OUTBOX_OLDEST, Reading)

    def sent(self, count: int) -> None:
        """Count events that SNS has taken."""
        self._sent.value += count

    def refused(self, count: int) -> None:
        """Count events that SNS will never take."""
        self._refused.value += count

    def waiting(self, events: int, oldest_seconds: float) -> None:
        """Say how many events wait, and for how long the first of them has."""
        self._waiting.value = events
        self._oldest.value = round(oldest_seconds)

    def unknown(self) -> None:
        """Say that nobody knows what waits: the database is away."""
        self._waiting.value = self._oldest.value = None

    def snapshot(self) -> OutboxSnapshot:
        """Return the numbers at this moment."""
        return OutboxSnapshot(
            sent=int(self._sent.value),
            refused=int(self._refused.value),
            waiting=self._waiting.value,
            oldest_seconds=self._oldest.value,
        )
