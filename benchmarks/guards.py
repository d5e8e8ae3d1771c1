"""What the guards cost: breaker, crash journal and watchdog, each where the engine calls it, in a worker at work."""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import Figures, goal
from benchmarks.programs import CONSUMER_CORE, Program, Stub
from benchmarks.workers import PLAIN, fleet_of

__all__ = ["IDLE_GOAL_PERCENT", "MICROSECONDS_GOAL", "Guards", "run"]

MICROSECONDS_GOAL = 6.0
"""Of CPU per message, for all three together."""
IDLE_GOAL_PERCENT = 0.1
"""Of a core, for the watchdog of a worker without messages."""
WARM_UP_MESSAGES = 5_000
START_SECONDS = 3.0


@dataclass
class Guards:
    """What each cost, round by round, in microseconds of CPU per message."""

    breaker: Figures = field(default_factory=Figures)
    journal: Figures = field(default_factory=Figures)
    watchdog: float = 0.0
    """Of all rounds together: it costs the same however many messages there are."""
    watchdog_idle_percent: float = 0.0

    @classmethod
    def read(cls, found: Mapping[str, Any], *, idle: tuple[float, float], busy: tuple[float, float], messages: int) -> Self:  # fmt: skip
        """Read a meter's figures; `idle` and `busy` are spans of the monotonic clock, `messages` came in the second."""
        guards, each = cls(), found["round_messages"]
        for spent in found["rounds"][WARM_UP_MESSAGES // each :]:
            guards.breaker.values.append(spent["breaker"] / each / 1e3)
            guards.journal.values.append(spent["journal"] / each / 1e3)
        seconds, elapsed = _used(found["looks"], *idle)
        guards.watchdog_idle_percent = seconds / elapsed * 100
        seconds, _ = _used(found["looks"], *busy)
        guards.watchdog = seconds / messages * 1e6
        return guards

    @property
    def together(self) -> float:
        """The three of them."""
        return self.breaker.median + self.journal.median + self.watchdog


def run(rounds: int, idle_seconds: float) -> bool:
    """Measure, print, and return whether the goals are met."""
    with tempfile.TemporaryDirectory() as folder, Stub() as stub:
        path = Path(folder) / "figures.json"
        command = (sys.executable, "-m", "benchmarks.metered", str(path), "run", "--config", str(fleet_of(PLAIN, folder)))  # fmt: skip
        with Program(command, CONSUMER_CORE, extra=stub.environment) as program:
            idle = _rest(stub, program, idle_seconds)
            stub.supply(PLAIN)
            stub.wait_until_deleted(WARM_UP_MESSAGES, PLAIN, program)
            began, deleted = time.monotonic(), stub.deleted(PLAIN)
            while (messages := stub.deleted(PLAIN) - deleted) < rounds * 1_000:
                time.sleep(0.1)
            busy = began, time.monotonic()
        guards = Guards.read(json.loads(path.read_text()), idle=idle, busy=busy, messages=messages)
    print(f"guards: {len(guards.breaker.values)} rounds of 1,000 messages, each call timed where the engine makes it")
    print(f"{'  CPU us per message':24}{'min':>9}{'median':>9}{'max':>9}")
    print(f"  {'breaker':22}{guards.breaker.spread()}")
    print(f"  {'crash journal':22}{guards.journal.spread()}")
    print(f"  {'watchdog':22}{'':9}{guards.watchdog:>9.2f}")
    print(f"  together {guards.together:.2f}; {goal(guards.together, MICROSECONDS_GOAL, ' us')}")
    idle_percent = guards.watchdog_idle_percent
    print(f"  the watchdog of an idle worker, {idle_seconds:g} s, % of a core {idle_percent:.3f}; {goal(idle_percent, IDLE_GOAL_PERCENT, ' %')}")  # fmt: skip
    return guards.together <= MICROSECONDS_GOAL and idle_percent <= IDLE_GOAL_PERCENT


def _rest(stub: Stub, program: Program, seconds: float) -> tuple[float, float]:
    """Leave the worker without messages, once it receives; return when that began and ended."""
    stub.wait_until_called("ReceiveMessage", program)
    time.sleep(START_SECONDS)
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def _used(looks: Sequence[tuple[float, float]], began: float, ended: float) -> tuple[float, float]:
    """Return the CPU seconds of the watchdog's thread between its first and its last look in a span, and how long that was."""
    inside = [look for look in looks if began <= look[0] <= ended]
    if len(inside) < 2:
        raise SystemExit("the watchdog does not look; is the span too short?")
    (first, used_first), (last, used_last) = inside[0], inside[-1]
    return used_last - used_first, last - first
