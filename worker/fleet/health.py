"""What the probes and `/api/status` say of a process."""

import time
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from worker.engine.consumer import Consumer
from worker.engine.context import QueueContext
from worker.fleet.stacks import log_stacks
from worker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from worker.fleet.supervisor import Supervisor

__all__ = ["Health", "queue_problems"]


def queue_problems(context: QueueContext) -> list[str]:
    """Return what keeps a queue from being ready, one sentence each."""
    told = dict.fromkeys(context.vitals.problems.values())  # several parts may have met the same trouble
    problems = [f"queue {context.queue}: {problem}" for problem in told]
    if not problems and not context.vitals.is_reached:
        problems.append(f"queue {context.queue}: not reached yet")
    return problems


class Health:
    """Reads liveness and readiness off the queues' vitals.

    Alive: every loop was heard of in time, or waits for what it may wait for. Whether AWS answers is not part of it.
    Ready: every queue was reached, can be settled, the outbox is sent, and the process does not drain.
    """

    def __init__(self, supervisor: "Supervisor", consumers: Mapping[str, Consumer], metrics: Metrics) -> None:
        self._supervisor = supervisor
        self._consumers = consumers
        self._metrics = metrics
        self._started_at = time.monotonic()
        self._is_stalled = False

    def liveness(self) -> list[str]:
        """Return the loops that are stuck; empty means alive. Where they stand is logged once a stall."""
        stuck = [loop for consumer in self._consumers.values() for loop in consumer.context.vitals.stuck_loops()]
        if stuck and not self._is_stalled:
            log_stacks(f"stuck: {', '.join(stuck)}")
        self._is_stalled = bool(stuck)
        return stuck

    def readiness(self) -> list[str]:
        """Return what keeps the process from being ready; empty means ready."""
        problems = ["draining"] if self._supervisor.is_draining else []
        if not self._consumers:
            problems.append("starting")
        for consumer in self._consumers.values():
            found = queue_problems(consumer.context)
            consumer.context.metrics.ready(not found and not self._supervisor.is_draining)
            problems += found
        return problems + self._supervisor.relays.problems()

    def warnings(self) -> list[str]:
        """Return what somebody should look at although messages flow."""
        return [
            *self._supervisor.warnings,
            *(
                f"queue {name}: {warning}"
                for name, consumer in self._consumers.items()
                for warning in consumer.context.vitals.warnings.values()
            ),
        ]

    def status(self) -> dict[str, object]:
        """Return the whole picture, ready for JSON."""
        problems = self.readiness()
        state = "draining" if self._supervisor.is_draining else "ready" if not problems else "not ready"
        queues = {
            name: {**snapshot, "problems": queue_problems(self._consumers[name].context)}
            for name, snapshot in self._metrics.snapshot().items()
            if name in self._consumers
        }
        return {
            "service": self._supervisor.settings.service,
            "version": metadata.version("longshore"),
            "state": state,
            "uptime_seconds": round(time.monotonic() - self._started_at, 1),
            "problems": problems,
            "warnings": self.warnings(),
            "queues": queues,
            "outboxes": self._metrics.outboxes(),
        }
