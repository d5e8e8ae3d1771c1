"""What a fleet wants to exist, apart from how it is written and how it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.settings.address import Address
from worker.settings.fleet import FleetSettings
from worker.settings.queue import QueueSettings
from worker.settings.topic import SubscriptionSettings

__all__ = ["Queue", "Subscription", "Topic", "Topology", "wanted_by"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that is to exist; one whose name ends in `.fifo` is FIFO."""

    name: str
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is to exist, with SQS's own net behind it."""

    name: str
    visibility_timeout_seconds: int = 30
    retention_seconds: int = 1_209_600
    wait_time_seconds: int = 20
    dead_letter: str | None = None
    """Name of the dead-letter queue; made too, with the longest retention, unless it is a queue of the fleet."""
    max_receive_count: int = 10
    """Receives after which SQS moves a message there; without a dead-letter queue it means nothing."""
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic's events for a queue."""

    topic: str
    """Name or ARN; a topic that is not the fleet's own must exist already."""
    queue: str
    """Name of a queue of the fleet."""
    raw: bool = False
    """Deliver the bare body, with SNS's message attributes as SQS's."""
    filter_policy: Mapping[str, Any] | None = None
    """`None`: everything."""
    filter_scope: str = "MessageAttributes"
    """Or `MessageBody`."""
    dead_letter: str | None = None
    """Name of the queue that takes what SNS could not deliver; made too."""


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it; what is external is simply not in here."""

    topics: Sequence[Topic] = ()
    queues: Sequence[Queue] = ()
    subscriptions: Sequence[Subscription] = ()


def wanted_by(fleet: FleetSettings) -> Topology:
    """Read from the settings what the fleet itself is to have: nothing that is `external`, but subscriptions to it."""
    own = [queue for queue in fleet.queues.values() if not queue.external]
    return Topology(
        topics=tuple(
            Topic(topic.name, topic.kms_key, topic.tags) for topic in fleet.topics.values() if not topic.external
        ),
        queues=tuple(_queue(queue) for queue in own),
        subscriptions=tuple(
            _subscription(fleet, queue, subscription) for queue in own for subscription in queue.subscribe
        ),
    )


def _queue(queue: QueueSettings) -> Queue:
    net = None if isinstance(queue.dead_letter, str) else queue.dead_letter  # a string is `none`
    return Queue(
        name=queue.name,
        visibility_timeout_seconds=queue.visibility_timeout_seconds,
        retention_seconds=queue.retention_seconds,
        wait_time_seconds=queue.wait_time_seconds,
        dead_letter=net.name if net else None,
        max_receive_count=net.max_receive_count if net else 0,
        kms_key=queue.kms_key,
        tags=queue.tags,
    )


def _subscription(fleet: FleetSettings, queue: QueueSettings, subscription: SubscriptionSettings) -> Subscription:
    undelivered = subscription.dead_letter
    return Subscription(
        topic=fleet.topics[subscription.topic].address,
        queue=queue.name,
        raw=subscription.raw,
        filter_policy=subscription.filter,
        filter_scope=subscription.filter_scope,
        dead_letter=None if undelivered is None else Address.of_queue(undelivered).name,
    )
