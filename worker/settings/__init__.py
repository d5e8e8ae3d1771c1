"""Settings of a fleet: one YAML file, the environment over it, frozen and checked before anything runs.

This room is the only reader of `os.environ`, and imports neither AWS nor logging libraries.
"""

from worker.settings.address import Address
from worker.settings.fleet import AwsSettings, FleetSettings, LogSettings, ServerSettings
from worker.settings.idempotency import IdempotencySettings
from worker.settings.limit import LimitSettings
from worker.settings.load import effective, load
from worker.settings.outbox import OutboxSettings
from worker.settings.payloads import LargePayloadSettings, OffloadSettings
from worker.settings.queue import (
    BreakerSettings,
    ConcurrencyRange,
    DeadLetterSettings,
    QueueDefaults,
    QueueSettings,
    RetrySettings,
)
from worker.settings.schema import schema
from worker.settings.topic import SubscriptionSettings, TopicSettings

__all__ = [
    "Address",
    "AwsSettings",
    "BreakerSettings",
    "ConcurrencyRange",
    "DeadLetterSettings",
    "FleetSettings",
    "IdempotencySettings",
    "LargePayloadSettings",
    "LimitSettings",
    "LogSettings",
    "OffloadSettings",
    "OutboxSettings",
    "QueueDefaults",
    "QueueSettings",
    "RetrySettings",
    "ServerSettings",
    "SubscriptionSettings",
    "TopicSettings",
    "effective",
    "load",
    "schema",
]
