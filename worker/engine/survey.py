"""The survey: reads what SQS says of a queue at start and its depth from then on."""

import asyncio
import random

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.errors import Fault, SourceError
from worker.settings import QueueSettings
from worker.source import QueueFacts

__all__ = ["Survey", "differences"]

DEPTH_SECONDS = 30.0
FACTS_SECONDS = 300.0

log = structlog.get_logger("survey")


class Survey:
    """Reads a queue's attributes until it gets them, then every five minutes, and its depth every thirty seconds."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context

    async def run(self) -> None:
        """Look until cancelled; what SQS refuses is named and tried again."""
        failures = 0
        facts_read_at = float("-inf")
        while True:
            try:
                if (
                    self._context.clock.now() - facts_read_at >= FACTS_SECONDS
                    or "facts" in self._context.vitals.problems
                ):
                    self._take_in(await self._context.source.describe())
                    facts_read_at = self._context.clock.now()
                self._context.metrics.depth(await self._context.source.depth())
                failures = 0
            except SourceError as error:
                failures += 1
                if not error.fault.may_pass:
                    self._context.vitals.trouble("facts", _sentence(error))
                await asyncio.sleep(1 + full_jitter(failures, base_seconds=1, cap_seconds=DEPTH_SECONDS))
            else:
                await asyncio.sleep(DEPTH_SECONDS * random.uniform(0.9, 1.1))

    def _take_in(self, facts: QueueFacts) -> None:
        vitals, settings = self._context.vitals, self._context.settings
        self._context.learn(facts)
        vitals.is_reached = True
        vitals.solved("facts")
        vitals.warnings.clear()
        if settings.dead_letter == "none":
            return
        if facts.dead_letter_found:
            vitals.solved("dead_letter")
        else:
            vitals.trouble("dead_letter", f"the dead-letter queue {settings.dead_letter.queue} is not found; create it")
        for part, warning in differences(facts, settings).items():
            vitals.warnings[part] = warning
            log.warning("the queue differs from its settings", queue=self._context.queue, difference=warning)


def differences(facts: QueueFacts, settings: QueueSettings) -> dict[str, str]:
    """Return where the queue's RedrivePolicy differs from its settings, a sentence each."""
    if settings.dead_letter == "none":
        return {}
    wanted = settings.dead_letter
    found: dict[str, str] = {}
    if facts.max_receive_count is None:
        found["redrive"] = (
            f"the queue has no RedrivePolicy; {wanted.queue} with maxReceiveCount {wanted.max_receive_count} is configured"
        )
    elif facts.max_receive_count != wanted.max_receive_count:
        found["redrive"] = (
            f"the queue's maxReceiveCount is {facts.max_receive_count}; {wanted.max_receive_count} is configured"
        )
        if facts.max_receive_count < settings.attempts:
            found["redrive"] += f", and SQS moves messages before their {settings.attempts} attempts are used"
    if facts.redrive_target not in {None, wanted.queue}:
        found["target"] = (
            f"the queue's RedrivePolicy points to {facts.redrive_target}; dead letters go to {wanted.queue}"
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
