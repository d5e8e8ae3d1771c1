"""The survey: reads what SQS says of a queue at start and its depth from then on."""

import asyncio
import math
import random

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.vitals import LoopPulse
from worker.errors import Fault, SourceError
from worker.settings import QueueSettings
from worker.source import QueueFacts
from worker.telemetry.logs import LoggedState

__all__ = ["Survey", "differences"]

DEPTH_SECONDS = 30.0
FACTS_SECONDS = 300.0
LOOK_GRACE_SECONDS = 120.0
"""A look is a few calls, and a source ends each by its own deadline; later than this it is stuck."""

DIFFERENCES = ("redrive", "target")
"""What a RedrivePolicy may differ in."""

log = structlog.get_logger("survey")


class Survey:
    """Reads a queue's attributes until they are as they should be, then every five minutes, and its depth every thirty seconds."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._facts_read_at = -math.inf
        self._state = LoggedState(log.bind(queue=context.queue), "reading attributes", clock=context.clock.now)

    async def run(self, pulse: LoopPulse) -> None:
        """Look until cancelled; what SQS refuses is named and tried again."""
        failures = 0
        while True:
            pulse.expect("reading attributes", LOOK_GRACE_SECONDS)
            try:
                await self._look()
            except SourceError as error:
                failures += 1
                self._failed(error)
                pause = 1 + full_jitter(failures, base_seconds=1, cap_seconds=DEPTH_SECONDS)
            else:
                failures = 0
                self._state.recovered()
                pause = DEPTH_SECONDS * random.uniform(0.9, 1.1)
            pulse.expect("waiting to look again", pause + LOOK_GRACE_SECONDS)
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        if self._wants_facts():
            self._take_in(await self._context.source.describe())
            self._facts_read_at = self._context.clock.now()
        self._context.depth = depth = await self._context.source.depth()
        self._context.metrics.depth(depth)
        self._context.vitals.solved("facts")

    def _wants_facts(self) -> bool:
        """Whether they are old, or what is missing may have been created meanwhile."""
        is_old = self._context.clock.now() - self._facts_read_at >= FACTS_SECONDS
        return is_old or "dead_letter_queue" in self._context.vitals.problems

    def _failed(self, error: SourceError) -> None:
        self._state.failed(error.fault, str(error))
        if not error.fault.may_pass:
            self._context.vitals.trouble("facts", _sentence(error))

    def _take_in(self, facts: QueueFacts) -> None:
        vitals, settings = self._context.vitals, self._context.settings
        self._context.learn(facts)
        vitals.is_reached = True
        if settings.dead_letter == "none" or facts.dead_letter_found:
            vitals.solved("dead_letter_queue")
        else:
            vitals.trouble(
                "dead_letter_queue", f"the dead-letter queue {settings.dead_letter.name} is not found; create it"
            )
        found = differences(facts, settings)
        for part, warning in found.items():
            if vitals.warnings.get(part) != warning:
                log.warning("the queue differs from its settings", queue=self._context.queue, difference=warning)
        for part in DIFFERENCES:
            vitals.warnings.pop(part, None)
        vitals.warnings.update(found)


def differences(facts: QueueFacts, settings: QueueSettings) -> dict[str, str]:
    """Return where the queue's RedrivePolicy differs from its settings, a sentence each."""
    if settings.dead_letter == "none":
        if facts.max_receive_count is None:
            return {}
        return {
            "redrive": f"the queue's RedrivePolicy moves messages to {facts.redrive_target} after "
            f"{facts.max_receive_count} receives; dead_letter: none is configured"
        }
    wanted = settings.dead_letter
    found: dict[str, str] = {}
    if facts.max_receive_count is None:
        found["redrive"] = (
            f"the queue has no RedrivePolicy; {wanted.name} with maxReceiveCount {wanted.max_receive_count} is configured"
        )
    elif facts.max_receive_count != wanted.max_receive_count:
        found["redrive"] = (
            f"the queue's maxReceiveCount is {facts.max_receive_count}; {wanted.max_receive_count} is configured"
        )
        if facts.max_receive_count < settings.attempts:
            found["redrive"] += f", and SQS moves messages before their {settings.attempts} attempts are used"
    if facts.redrive_target not in {None, wanted.name}:
        found["target"] = (
            f"the queue's RedrivePolicy points to {facts.redrive_target}; dead letters go to {wanted.name}"
        )
    return found


def _sentence(error: SourceError) -> str:
    match error.fault:
        case Fault.MISSING:
            return f"the queue does not exist ({error.code}); create it or correct its name in the fleet file"
        case Fault.DENIED:
            return f"reading its attributes is denied ({error}); allow sqs:GetQueueUrl and sqs:GetQueueAttributes on it"
        case _:
            return f"its attributes cannot be read ({error})"
