"""The preflight: asks AWS whether a fleet file can be run as it stands. Touches no message."""

import asyncio
from dataclasses import dataclass, field

from worker.aws.session import AwsClients
from worker.engine.survey import differences
from worker.errors import Fault, SourceError
from worker.fleet.process import aws_access, open_clients, sqs_source
from worker.settings import FleetSettings, QueueSettings
from worker.telemetry.metrics import QueueMetrics

__all__ = ["Preflight", "preflight"]


@dataclass(slots=True)
class Preflight:
    """What was found: problems keep messages from flowing, warnings do not."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


async def preflight(settings: FleetSettings) -> Preflight:
    """Look at every queue; raise `UsageError` when AWS cannot be spoken to at all (no region, no credentials)."""
    found = Preflight()
    rooms = [queue.max_concurrency for queue in settings.queues.values()]
    async with open_clients(rooms, aws_access(settings)) as clients:
        await asyncio.gather(*(_look_at(queue, clients, found) for queue in settings.queues.values()))
    return found


async def _look_at(settings: QueueSettings, clients: AwsClients, found: Preflight) -> None:
    source = sqs_source(clients, settings, QueueMetrics(settings.name))
    try:
        facts = await source.describe()
        await source.check_settlement()
    except SourceError as error:
        found.problems.append(_sentence(settings.name, error))
        return
    if settings.dead_letter != "none" and not facts.dead_letter_found:
        found.problems.append(f"queue {settings.name}: its dead-letter queue {settings.dead_letter.queue} is not found; create it (longshore topology apply) or correct dead_letter.queue")  # fmt: skip
    found.warnings += [f"queue {settings.name}: {text}" for text in differences(facts, settings).values()]


def _sentence(name: str, error: SourceError) -> str:
    match error.fault:
        case Fault.MISSING:
            return f"queue {name} does not exist ({error.code}): create it (longshore topology apply) or correct its name in the fleet file"
        case Fault.DENIED:
            return f"queue {name}: denied ({error}): allow sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on it"
        case Fault.EXPIRED:
            return f"queue {name}: AWS does not take the credentials ({error}): correct or renew the keys, AWS_PROFILE or the role, and look at the clock"
        case _:
            return f"queue {name} cannot be reached ({error}): look at aws.region, aws.endpoint_url and the network"
