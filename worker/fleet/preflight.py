"""The preflight: asks whether a fleet file can be run as it stands. Touches no message, and leaves nothing behind."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.aws.s3 import S3Objects
from worker.aws.session import AwsClients
from worker.engine.survey import differences
from worker.errors import Fault, SourceError, UsageError
from worker.fleet.fit import limits_of
from worker.fleet.marks import marks_store
from worker.fleet.process import aws_access, open_clients, sqs_source
from worker.idempotency import StoreError
from worker.limits import ask_store
from worker.limits.store import StoreError as PermitsError
from worker.objects import S3Pointer
from worker.router import Router
from worker.settings import FleetSettings, QueueSettings
from worker.settings.base import masked
from worker.telemetry.metrics import QueueMetrics

__all__ = ["Preflight", "preflight"]

STORE_SECONDS = 5.0
NO_SUCH_KEY = "NoSuchKey"


@dataclass(slots=True)
class Preflight:
    """What was found: problems keep messages from flowing, warnings do not."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    in_order: list[str] = field(default_factory=list)
    """What was asked besides the queues, and is as it should be."""


async def preflight(settings: FleetSettings, routers: Mapping[str, Router]) -> Preflight:
    """Look at every queue, and at what they and their handlers need besides: the store of marks, the Redis of limits, buckets.

    Raises `UsageError` when AWS cannot be spoken to at all (no region, no credentials).
    """
    found = Preflight()
    rooms = [queue.max_concurrency for queue in settings.queues.values()]
    limits = sorted(limits_of(settings, routers))
    async with open_clients(rooms, aws_access(settings)) as clients:
        await asyncio.gather(
            *(_look_at_queue(queue, clients, found) for queue in settings.queues.values()),
            _look_at_store(settings, routers, clients, found),
            *(_look_at_limit(name, settings, found) for name in limits),
            _look_at_buckets(settings, clients, found),
        )
    for said in (found.problems, found.warnings, found.in_order):
        said.sort()  # whoever answered first
    return found


async def _look_at_queue(settings: QueueSettings, clients: AwsClients, found: Preflight) -> None:
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


async def _look_at_store(
    settings: FleetSettings, routers: Mapping[str, Router], clients: AwsClients, found: Preflight
) -> None:
    try:
        store = marks_store(settings, routers, clients)
        if store is None:
            return
        try:
            async with asyncio.timeout(STORE_SECONDS):
                is_made = await store.is_made()
                doubts = await store.doubts() if is_made else []
        finally:
            await store.close()
    except UsageError as error:  # another version's, a driver that is not installed
        found.problems.append(str(error))
        return
    except (StoreError, TimeoutError) as error:
        said = str(error) or f"no answer within {STORE_SECONDS:g} s"
        found.problems.append(f"the idempotency store does not answer: {said}; look at idempotency.store, what it is allowed and the network")  # fmt: skip
        return
    place = f"the idempotency store {masked(str(settings.idempotency.store))}"
    if is_made:
        _judged(place, doubts, found)
    else:
        found.warnings.append(f"{place} is empty: the first worker makes its table, which it must be allowed to")


async def _look_at_limit(name: str, settings: FleetSettings, found: Preflight) -> None:
    limit = settings.limits[name]
    if limit.store is None:
        return
    place = f"the Redis of limit {name} ({masked(limit.store)})"
    try:
        doubts = await ask_store(limit.store, settings.service, name, limit.concurrency)
    except UsageError as error:
        found.problems.append(str(error))
    except PermitsError as error:
        found.problems.append(
            f"{place} does not answer ({error}): look at limits.{name}.store, its password and the network"
        )
    else:
        _judged(place, doubts, found)


def _judged(place: str, doubts: Sequence[str], found: Preflight) -> None:
    """Say that it is in order, unless something about it is doubtful."""
    found.warnings += [f"{place}: {doubt}" for doubt in doubts]
    if not doubts:
        found.in_order.append(f"{place} is in order")


async def _look_at_buckets(settings: FleetSettings, clients: AwsClients, found: Preflight) -> None:
    read = {bucket for queue in settings.queues.values() for bucket in queue.large_payloads.buckets}
    written = {topic.large_payloads.bucket for topic in settings.topics.values() if not topic.external} - {None}
    objects = S3Objects(clients, connections=max(1, len(read | written)))
    try:
        await asyncio.gather(
            *(_look_into(bucket, objects, found) for bucket in sorted(read)),
            *(_look_onto(str(bucket), objects, found) for bucket in written),
        )
    finally:
        await objects.close()


async def _look_into(bucket: str, objects: S3Objects, found: Preflight) -> None:
    """Fetch what nobody has stored: only who may fetch is told that it is not there."""
    try:
        await objects.fetch(_nothing_in(bucket), 1)
    except SourceError as error:
        if error.code == NO_SUCH_KEY:
            found.in_order.append(f"bucket {bucket} can be read")
        elif error.fault is Fault.DENIED:
            found.problems.append(f"bucket {bucket}: fetching large payloads is denied ({error}): allow s3:GetObject on its objects and s3:ListBucket on it")  # fmt: skip
        else:
            found.problems.append(_of_bucket(bucket, error))


async def _look_onto(bucket: str, objects: S3Objects, found: Preflight) -> None:
    """Begin to store and give it up. Workers need no such right, so whoever asks may well not have it."""
    try:
        await objects.try_put(_nothing_in(bucket))
    except SourceError as error:
        if error.fault is Fault.DENIED:
            found.warnings.append(f"bucket {bucket}: storing large payloads is denied to these credentials ({error.code}): who publishes needs s3:PutObject on its objects")  # fmt: skip
        else:
            found.problems.append(_of_bucket(bucket, error))
    else:
        found.in_order.append(f"bucket {bucket} can be written to")


def _nothing_in(bucket: str) -> S3Pointer:
    return S3Pointer(bucket, f"longshore-check-{secrets.token_hex(16)}")


def _of_bucket(bucket: str, error: SourceError) -> str:
    if error.fault is Fault.MISSING:
        return f"bucket {bucket} does not exist ({error.code}): make it (longshore topology export) or correct large_payloads in the fleet file"
    return f"bucket {bucket} cannot be reached ({error}): look at aws.region, aws.endpoint_url and the network"


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
