"""What one queue says of itself: is it reached, what is wrong with it, are its loops alive."""

from collections.abc import Callable
from dataclasses import dataclass, field

from worker.engine.clock import Clock

__all__ = ["LoopPulse", "Vitals"]


@dataclass(slots=True)
class LoopPulse:
    """When a loop must be heard of again. Stamped by the loop's own progress only, never by a timer."""

    name: str
    doing: str = "starting"
    due_at: float = 0.0
    """After this moment the loop counts as stuck."""
    is_waiting_for_room: bool = False
    """Full is not stuck, as long as slots are given back."""


@dataclass(slots=True)
class Vitals:
    """Health of one queue's consumer; written by its stages, read by the probes."""

    clock: Clock
    full_bound_seconds: float = 3630.0
    """How long a full queue may go without giving a slot back: the handler's time limit and thirty seconds."""
    is_reached: bool = False
    """Whether a receive has ever succeeded."""
    problems: dict[str, str] = field(default_factory=dict)
    """What makes the queue not ready, by the part that has the trouble."""
    warnings: dict[str, str] = field(default_factory=dict)
    """What somebody should look at, although messages flow."""
    pulses: list[LoopPulse] = field(default_factory=list)
    slot_freed_at: float = 0.0
    stuck: int = 0
    """Handlers that were cancelled and have not ended."""
    fatal: Callable[[str], None] = lambda _: None
    """Called with a sentence when this consumer cannot go on: the process drains and exits with 1."""

    def trouble(self, part: str, sentence: str) -> None:
        """A part of the queue does not work: not ready until it is solved."""
        self.problems[part] = sentence

    def solved(self, part: str) -> None:
        """The part works again."""
        if self.problems:
            self.problems.pop(part, None)

    def stuck_loops(self) -> list[str]:
        """Return what is overdue: `["receive-1: waiting for SQS"]`; empty means alive."""
        now = self.clock.now()
        overdue = []
        for pulse in self.pulses:
            due_at = pulse.due_at
            if pulse.is_waiting_for_room:
                due_at = max(due_at, self.slot_freed_at + self.full_bound_seconds)
            if now > due_at:
                overdue.append(f"{pulse.name}: {pulse.doing}")
        return overdue
