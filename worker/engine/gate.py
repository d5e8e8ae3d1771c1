"""The gate of intake: while nothing can be settled, nothing is received."""

import asyncio
from itertools import count

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.slots import Slots
from worker.engine.vitals import LoopPulse
from worker.errors import Fault, SourceError
from worker.telemetry.logs import LoggedState

__all__ = ["Gate"]

PATIENCE_SECONDS = 10.0
"""How long settlements may fail for passing reasons before intake stops."""
PROBE_CAP_SECONDS = 15.0
PROBE_GRACE_SECONDS = 60.0
"""A probe is a few calls, and a source ends each by its own deadline; later than this it is stuck."""

log = structlog.get_logger("gate")


class Gate:
    """Closed while deletes or visibility changes are denied, or none has succeeded for ten seconds although some were due.

    Without it every message would run `attempts` times and be dead-lettered although its work was done.

    1. Settlement and the keeper tell it how their calls went: `answered`, `failed`.
    2. Closing holds back all room, so that nothing is received, and makes the queue not ready.
    3. `run` probes with calls that touch no message, and opens the gate when they succeed.
    """

    def __init__(self, context: QueueContext, slots: Slots) -> None:
        self._context = context
        self._slots = slots
        self._failing_since: float | None = None
        self._is_denied = False
        self._closed = asyncio.Event()
        self._state = LoggedState(log.bind(queue=context.queue), "settlement", clock=context.clock.now)

    @property
    def is_closed(self) -> bool:
        """Whether intake is stopped."""
        return self._closed.is_set()

    def answered(self) -> None:
        """SQS has taken a settlement call, even if it refused an entry of it."""
        self._failing_since = None
        if self.is_closed and not self._is_denied:  # one that is allowed says nothing of one that is denied
            self._open()

    def failed(self, fault: Fault, code: str) -> None:
        """A settlement call failed."""
        if fault in {Fault.LOST, Fault.INVALID}:
            self.answered()
            return
        now = self._context.clock.now()
        if self._failing_since is None:
            self._failing_since = now
        self._is_denied = self._is_denied or fault is Fault.DENIED
        if self._is_denied or now - self._failing_since >= PATIENCE_SECONDS:
            self._close(fault, code)

    async def run(self, pulse: LoopPulse) -> None:
        """Wait until the gate is closed and probe until it is open, again and again until cancelled."""
        while True:
            pulse.expect("watching settlement")
            await self._closed.wait()
            for attempt in count(1):
                delay = 1 + full_jitter(attempt, base_seconds=1, cap_seconds=PROBE_CAP_SECONDS)
                pulse.expect("asking whether settlement works again", delay + PROBE_GRACE_SECONDS)
                await asyncio.sleep(delay)
                if self.is_closed:
                    await self._probe()
                if not self.is_closed:
                    break

    async def _probe(self) -> None:
        try:
            await self._context.source.check_settlement()
        except SourceError as error:
            self.failed(error.fault, error.code)
        else:
            self._is_denied = False
            self.answered()

    def _close(self, fault: Fault, code: str) -> None:
        remedy = "; allow sqs:DeleteMessage and sqs:ChangeMessageVisibility on it" if self._is_denied else ""
        sentence = f"nothing is received because deletes or visibility changes fail ({code}){remedy}"
        self._context.vitals.trouble("settlement", sentence)
        self._context.metrics.settlement_blocked(True)
        self._state.failed(fault, sentence)
        self._slots.bound("gate", 0)
        self._closed.set()

    def _open(self) -> None:
        self._closed.clear()
        self._slots.bound("gate", None)
        self._state.recovered()
        self._context.metrics.settlement_blocked(False)
        self._context.vitals.slot_freed_at = self._context.clock.now()
        self._context.vitals.solved("settlement")
