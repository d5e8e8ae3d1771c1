"""`longshore run` with a meter on its guards: `python -m benchmarks.metered FIGURES run --config FILE`.

Every call that the engine makes to the breaker, to the crash journal and to its suspects is timed where it is made, in CPU
time of its thread, so that it does not matter what else runs on the machine. At the end the figures are written as JSON.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from worker.engine.breaker import Breaker
from worker.engine.journal import Journal, Suspects
from worker.engine.watchdog import Watchdog

__all__ = ["BREAKER_CALLS", "JOURNAL_CALLS", "Meter"]

BREAKER_CALLS = ((Breaker, "keeps"), (Breaker, "succeeded"))
JOURNAL_CALLS = ((Journal, "begin"), (Journal, "end"), (Suspects, "__contains__"), (Suspects, "deaths"), (Suspects, "clear"))  # fmt: skip
ROUND_MESSAGES = 1_000


class Meter:
    """What the guards cost: nanoseconds of each in rounds of so many messages, and what the watchdog had used at each look."""

    def __init__(self, clock: Callable[[], int] = time.thread_time_ns, round_messages: int = ROUND_MESSAGES) -> None:
        self._clock = clock
        self._round_messages = round_messages
        self._spent = {"breaker": 0, "journal": 0}
        self.calls = {f"{owner.__name__}.{name}": 0 for owner, name in BREAKER_CALLS + JOURNAL_CALLS}
        """How often each was called."""
        self.rounds: list[dict[str, int]] = []
        """Nanoseconds of the breaker and of the journal, for each round."""
        self.looks: list[tuple[float, float]] = []
        """At each look of the watchdog: the monotonic clock, and the CPU seconds of its thread."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time all calls while inside."""
        with ExitStack() as stack:
            for guard, calls in (("breaker", BREAKER_CALLS), ("journal", JOURNAL_CALLS)):
                for owner, name in calls:
                    stack.enter_context(patch.object(owner, name, self._timed(guard, owner, name)))
            stack.enter_context(patch.object(Watchdog, "_look", self._noted(Watchdog._look)))  # noqa: SLF001  # the thread's own
            yield

    def figures(self) -> dict[str, object]:
        """Return everything, ready for JSON."""
        return {"calls": self.calls, "rounds": self.rounds, "looks": self.looks, "round_messages": self._round_messages}

    def _timed(self, guard: str, owner: type, name: str) -> Callable[..., Any]:
        call, clock, spent, calls = getattr(owner, name), self._clock, self._spent, self.calls
        label, ends_a_message = f"{owner.__name__}.{name}", name == "succeeded"

        @functools.wraps(call)
        def timed(*arguments: Any) -> Any:
            idle = clock()
            began = clock()
            result = call(*arguments)
            spent[guard] += clock() - began - (began - idle)  # a reading costs as much as a call, and varies as it does
            calls[label] += 1
            if ends_a_message and calls[label] % self._round_messages == 0:
                self.rounds.append(dict(spent))
                spent.update(dict.fromkeys(spent, 0))
            return result

        return timed

    def _noted(self, look: Callable[[Watchdog, float], None]) -> Callable[[Watchdog, float], None]:
        @functools.wraps(look)
        def noted(watchdog: Watchdog, now: float) -> None:
            look(watchdog, now)
            self.looks.append((time.monotonic(), time.thread_time()))

        return noted


def _main(figures: Path) -> None:
    from worker.cli import main

    meter = Meter()
    try:
        with meter.attached():
            main()
    finally:
        figures.write_text(json.dumps(meter.figures()))


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    _main(path)
