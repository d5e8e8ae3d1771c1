"""The metrics of one limit, as the process sees it."""

from worker.telemetry import declared
from worker.telemetry.cells import Number, Sheet

__all__ = ["LimitMetrics"]


class LimitMetrics:
    """What a limiter tells of itself."""

    def __init__(self, name: str) -> None:
        self.sheet = sheet = Sheet({"limit": name})
        self._permits = sheet.one(declared.LIMIT_PERMITS, Number)
        self._waits = sheet.one(declared.LIMIT_WAITS, Number)
        self._refusals = sheet.one(declared.LIMIT_REFUSALS, Number)
        self._lost = sheet.one(declared.LIMIT_PERMITS_LOST, Number)
        self._store_errors = sheet.one(declared.LIMIT_STORE_ERRORS, Number)

    def held(self, permits: int) -> None:
        """Say how many permits are held now."""
        self._permits.value = permits

    def waited(self) -> None:
        """Count a receive or a call that has to wait."""
        self._waits.value += 1

    def refused(self) -> None:
        """Count a message that was given back."""
        self._refusals.value += 1

    def lost(self) -> None:
        """Count a permit that ended before its message did."""
        self._lost.value += 1

    def store_error(self) -> None:
        """Count a failed call of the store."""
        self._store_errors.value += 1
