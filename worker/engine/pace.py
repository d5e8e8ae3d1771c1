"""The pace: how many handler calls run at once, between two bounds, as far as what they depend on keeps up."""

from collections.abc import Callable

from worker.engine.clock import Clock
from worker.settings import ConcurrencyRange

__all__ = ["Pace", "SteadyPace"]

ROUND_SECONDS = 0.5
"""A round is as many calls as run at once, and lasts at least this long: no single call decides."""
SLOWER = 2.0
"""Calls that take so many times as long as they did at best mean that they wait for each other downstream."""
BACK_OFF = 2 / 3
FORGET = 1.003
"""By how much the best time of a handler grows each round: a downstream that has become slower for good is its own measure after minutes."""


class SteadyPace:
    """As many as the settings say, whatever happens."""

    def lasted(self, handler: str, seconds: float) -> None:
        """Do nothing."""

    def failed(self) -> None:
        """Do nothing."""


class Pace(SteadyPace):
    """Additive increase, multiplicative decrease (AIMD), as TCP does it.

    1. It starts at the lower bound and doubles each round, until the first sign that it is too much.
    2. From then on it allows one call more after each round in which all slots were in use.
    3. A round with a failure that may lie downstream, or in which calls took twice as long as at best, ends with a third
       less.
    """

    def __init__(
        self, bounds: ConcurrencyRange, clock: Clock, is_used_up: Callable[[], bool], apply: Callable[[int], None]
    ) -> None:
        """Take what says that all slots are in use, and what is told of each new limit."""
        self.limit = bounds.min
        self._bounds = bounds
        self._clock = clock
        self._is_used_up = is_used_up
        self._apply = apply
        self._is_starting = True
        self._best: dict[str, float] = {}
        """The shortest mean time of a round, by handler."""
        self._began_at = clock.now()
        self._times: dict[str, tuple[int, float]] = {}
        """Calls of the round and the time that they took, by handler."""
        self._calls = 0
        self._was_full = False
        self._has_failed = False
        apply(self.limit)

    def lasted(self, handler: str, seconds: float) -> None:
        """Note how long a call took."""
        count, total = self._times.get(handler, (0, 0.0))
        self._times[handler] = count + 1, total + seconds
        self._calls += 1
        self._was_full |= self._is_used_up()
        if self._calls >= self.limit and self._clock.now() - self._began_at >= ROUND_SECONDS:
            self._end()

    def failed(self) -> None:
        """Note a failure that may lie downstream."""
        self._has_failed = True

    def _begin(self) -> None:
        self._began_at = self._clock.now()
        self._times = {}
        self._calls = 0
        self._was_full = False
        self._has_failed = False

    def _end(self) -> None:
        if self._has_failed | self._is_slow():
            self._is_starting = False
            self._change(max(self._bounds.min, int(self.limit * BACK_OFF)))
        elif self._was_full:
            self._change(min(self._bounds.max, self.limit * 2 if self._is_starting else self.limit + 1))
        self._begin()

    def _is_slow(self) -> bool:
        """Compare each handler with itself at its best, and weigh them by their calls."""
        slowness = 0.0
        for handler, (count, total) in self._times.items():
            mean = total / count
            best = min(mean, self._best.get(handler, mean) * FORGET)
            self._best[handler] = best
            slowness += count * (mean / best if best else 1.0)
        return slowness > SLOWER * self._calls

    def _change(self, limit: int) -> None:
        if limit != self.limit:
            self.limit = limit
            self._apply(limit)
