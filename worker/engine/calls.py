"""The handler calls of one queue: what is noted when one starts and ends, and which ignore their cancellation."""

import asyncio
from collections import deque
from typing import Any

import structlog

from worker.engine.context import QueueContext
from worker.engine.delivery import Delivery
from worker.engine.pace import SteadyPace
from worker.engine.stacks import waits_in
from worker.message import Message

__all__ = ["STUCK_SECONDS", "Call", "Calls"]

STUCK_SECONDS = 10.0
"""How long a cancelled handler may take to end before it is reported as stuck."""
RUNS_KEPT = 100

log = structlog.get_logger("executor")


class Calls:
    """Knows how long the calls of each handler take, and how many are stuck."""

    def __init__(self, context: QueueContext, pace: SteadyPace) -> None:
        self.context = context
        self._pace = pace
        self._durations: dict[str, deque[float]] = {}

    def p95_seconds(self, handler: str) -> float:
        """Return the 95th percentile of the handler's last hundred calls; 0 when it has none."""
        durations = sorted(self._durations.get(handler, ()))
        return durations[int(len(durations) * 0.95)] if durations else 0.0

    def lasted(self, handler: str, seconds: float) -> None:
        """Note a call that has ended."""
        durations = self._durations.get(handler)
        if durations is None:
            durations = self._durations[handler] = deque(maxlen=RUNS_KEPT)
        durations.append(seconds)
        self._pace.lasted(handler, seconds)
        self.context.metrics.handled(seconds)

    def stuck(self, change: int) -> None:
        """Count one stuck call more or less; at half of the slots the process cannot go on (E3)."""
        vitals, slots = self.context.vitals, self.context.settings.max_concurrency
        vitals.stuck += change
        self.context.metrics.stuck(vitals.stuck)
        if change > 0 and vitals.stuck * 2 >= slots:
            vitals.fatal(f"{vitals.stuck} of {slots} slots of queue {self.context.queue} hold handlers that ignore their cancellation")  # fmt: skip


class Call:
    """One handler call, for one message or for a batch: from its slot to its end."""

    __slots__ = ("_calls", "_entries", "_handler", "_is_stuck", "_messages", "_started_at", "has_ended")

    def __init__(self, calls: Calls, handler: str) -> None:
        self._calls = calls
        self._handler = handler
        self._messages: list[Delivery] = []
        self._entries: list[int] = []
        self._started_at: float | None = None
        self._is_stuck = False
        self.has_ended = False

    @property
    def has_started(self) -> bool:
        """Whether the handler was called."""
        return self._started_at is not None

    def start(self) -> None:
        """The handler is about to be called."""
        context = self._calls.context
        context.metrics.started()
        self._started_at = context.clock.now()

    def take(self, delivery: Delivery, message: Message[Any]) -> None:
        """The call handles this message: its lag is known, and the crash journal lists it."""
        context, received = self._calls.context, delivery.received
        self._messages.append(delivery)
        if received.receive_count > 1:
            context.metrics.redelivered()
        else:
            now = context.clock.wall()
            published_at = message.published_at
            context.metrics.lag(
                max(0.0, now - received.sent_at) if received.sent_at else None,
                None if published_at is None else max(0.0, now - published_at.timestamp()),
            )
        self._entries.append(context.journal.begin(received.id, context.suspects.deaths(received.id)))

    def end(self) -> None:
        """The call has really ended, however that was."""
        self.has_ended = True
        context = self._calls.context
        for entry in self._entries:
            context.journal.end(entry)
        for delivery in self._messages:
            context.suspects.clear(delivery.received.id)
        if self._is_stuck:
            self._calls.stuck(-1)
        if self._started_at is not None:
            self._calls.lasted(self._handler, context.clock.now() - self._started_at)

    def watch(self, task: "asyncio.Task[Any]") -> None:
        """The call's task was cancelled: report it when it does not end."""
        asyncio.get_running_loop().call_later(STUCK_SECONDS, self._report, task)

    def _report(self, task: "asyncio.Task[Any]") -> None:
        if self.has_ended or self._is_stuck:
            return
        self._is_stuck = True
        fields = self._messages[0].log_fields if self._messages else {"handler": self._handler}
        log.error("a handler ignores its cancellation", queue=self._calls.context.queue, stack=waits_in(task), messages=len(self._messages), **fields)  # fmt: skip
        self._calls.stuck(1)
