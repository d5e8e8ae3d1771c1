"""A state that lasts is logged when it begins and when it ends, not each time it is met."""

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["LoggedState"]

_REMINDER_SECONDS = 60.0
_DETAIL_LENGTH = 300


class _Log(Protocol):
    def warning(self, event: str, **fields: object) -> object:
        """Write a line."""

    def info(self, event: str, **fields: object) -> object:
        """Write a line."""


class LoggedState:
    """Logs that something fails once per cause, reminds once a minute with a count, and says when it works again.

    The same cause is logged at most once a minute even if it comes and goes in between; what was not logged is in the
    next line's count.
    """

    def __init__(self, log: _Log, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._name = name
        self._clock = clock
        self._began: float | None = None
        self._count = 0  # failures of this state
        self._unlogged = 0  # failures since the last line
        self._is_announced = False
        self._logged_at: dict[str, float] = {}

    @property
    def is_failing(self) -> bool:
        """Whether the last call failed."""
        return self._began is not None

    def failed(self, fault: str, detail: str = "") -> None:
        """Take note of one failure; `fault` is a short code, `detail` what was said (it is cut)."""
        now = self._clock()
        if self._began is None:
            self._began, self._count, self._is_announced = now, 0, False
        self._count += 1
        self._unlogged += 1
        logged_at = self._logged_at.get(fault)
        if logged_at is not None and now - logged_at < _REMINDER_SECONDS:
            return
        self._log.warning(
            f"{self._name} fails",
            fault=str(fault),
            detail=detail[:_DETAIL_LENGTH],
            count=self._unlogged,
            seconds=round(now - self._began, 1),
        )
        self._logged_at[fault] = now
        self._unlogged = 0
        self._is_announced = True

    def recovered(self) -> None:
        """Take note of a success; it is logged when the failure before it was."""
        if self._began is None:
            return
        if self._is_announced:
            seconds = round(self._clock() - self._began, 1)
            self._log.info(f"{self._name} works again", failures=self._count, seconds=seconds)
            self._unlogged = 0
        self._began = None
