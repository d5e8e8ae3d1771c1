"""What one queue says of itself: is it reached, what is wrong with it, are its loops alive."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from worker.engine.clock import Clock

__all__ = ["LoopPulse", "Vitals"]

HOLDING_SLOTS = ("settlement", "dead_letter", "breaker", "limit", "idempotency")
"""Parts whose trouble holds slots that cannot be given back: knowingly, so their loops are not stuck."""


@dataclass(slots=True, eq=False)
class LoopPulse:
    """When a loop must be heard of again. Stamped by the loop's own progress only, never by a timer."""

    name: str
    _clock: Clock
    doing: str = "starting"
    due_at: float = math.inf
    """After this moment the loop counts as stuck."""
    full_since: float | None = None
    """Since when it waits for room. Full is not stuck, as long as slots are given back."""

    def expect(self, doing: str, seconds: float = math.inf) -> None:
        """Say what the loop does now, and that it takes `seconds` at most; no bound for what cannot be late."""
        self.doing = doing
        self.due_at = self._clock.now() + seconds
        self.full_since = None

    def wait_for_room(self) -> None:
        """Say that the loop waits for a slot."""
        self.doing = "waiting for room"
        self.full_since = self._clock.now()


@dataclass(slots=True)
class Vitals:
    """Health of one queue's consumer; written by its stages, read by the probes."""

    clock: Clock
    full_bound_seconds: float = 3630.0
    """How long a full queue may go without giving a slot back: the longest time limit of a handler and thirty seconds."""
    is_reached: bool = False
    """Whether SQS has ever answered for this queue."""
    problems: dict[str, str] = field(default_factory=dict)
    """What makes the queue not ready, by the part that has the trouble."""
    warnings: dict[str, str] = field(default_factory=dict)
    """What somebody should look at, although messages flow."""
    pulses: list[LoopPulse] = field(default_factory=list)
    slot_freed_at: float = -math.inf
    """When a slot was last given back, or could be again."""
    stuck: int = 0
    """Handlers that were cancelled and have not ended."""
    throttled: int = 0
    """Handler calls that wait for a limit: they hold their slots knowingly."""
    fatal: Callable[[str], None] = lambda _: None
    """Called with a sentence when this consumer cannot go on: the process drains and exits with 1."""

    def trouble(self, part: str, sentence: str) -> None:
        """A part of the queue does not work: not ready until it is solved."""
        self.problems[part] = sentence

    def solved(self, part: str) -> None:
        """The part works again."""
        if self.problems:
            self.problems.pop(part, None)

    @contextmanager
    def pulse(self, name: str) -> Iterator[LoopPulse]:
        """Watch a loop while inside."""
        pulse = LoopPulse(name, self.clock)
        self.pulses.append(pulse)
        try:
            yield pulse
        finally:
            self.pulses.remove(pulse)

    def stuck_loops(self) -> list[str]:
        """Return what is overdue: `["receive-orders-1: waiting for SQS"]`; empty means alive."""
        now = self.clock.now()
        return [f"{pulse.name}: {pulse.doing}" for pulse in self.pulses if now > self._due_at(pulse)]

    def _due_at(self, pulse: LoopPulse) -> float:
        if pulse.full_since is None:
            return pulse.due_at
        if self.throttled or any(part in self.problems or part in self.warnings for part in HOLDING_SLOTS):
            return math.inf
        return max(pulse.full_since, self.slot_freed_at) + self.full_bound_seconds
