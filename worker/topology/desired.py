"""What a fleet wants to exist, apart from how it is written and how it is made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Alarm", "Bucket", "Queue", "Subscription", "Table", "Topic", "Topology", "levels", "writers"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that is to exist; one whose name ends in `.fifo` is FIFO."""

    name: str
    kms_key: str | None = None
    """`None` leaves encryption as it is."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Others that the topic has stay."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that is to exist, with SQS's own net behind it; one whose name ends in `.fifo` is FIFO."""

    name: str
    visibility_timeout_seconds: int = 30
    retention_seconds: int = 1_209_600
    wait_time_seconds: int = 20
    dead_letter: str | None = None
    """Name of the dead-letter queue; made too, with the longest retention, unless it is a queue of the fleet."""
    max_receive_count: int = 10
    """Receives after which SQS moves a message there; without a dead-letter queue it means nothing."""
    kms_key: str | None = None
    """`None` leaves encryption as it is."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Others that the queue has stay."""
    is_only_named: bool = False
    """Whether it is known as a dead-letter queue only: then nothing but its retention and its policy is looked after."""


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
class Alarm:
    """A CloudWatch alarm on one metric of one queue: above `threshold` in each of `minutes` minutes."""

    name: str
    queue: str
    """The value of the metric's only dimension, `QueueName`: without it an alarm watches nothing."""
    metric: str
    threshold: float
    minutes: int = 1
    topics: Sequence[str] = ()
    """Names or ARNs of the topics that are told."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket for large payloads, which it deletes by itself. Exports make it; `apply` does not."""

    name: str
    expire_days: int


@dataclass(frozen=True, slots=True)
class Table:
    """The DynamoDB table of idempotency marks. Exports make it; `apply` does not, as a worker does where it may."""

    name: str


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it; what is external is simply not in here."""

    topics: Sequence[Topic] = ()
    queues: Sequence[Queue] = ()
    subscriptions: Sequence[Subscription] = ()
    alarms: Sequence[Alarm] = ()
    buckets: Sequence[Bucket] = ()
    tables: Sequence[Table] = ()
    addresses: Sequence[str] = ()
    """Its topics and queues as they were written, where that is an ARN or URL: all must lie where the credentials lead."""


def levels(topology: Topology) -> list[list[Queue]]:
    """Return all queues, dead-letter queues that are only named too, each level referring to those before it."""
    queues = {queue.name: queue for queue in topology.queues}
    for name, owner in _dead_letters(topology):
        queues.setdefault(name, Queue(name, kms_key=owner.kms_key, tags=owner.tags, is_only_named=True))

    def depth(queue: Queue) -> int:
        return 0 if queue.dead_letter is None else 1 + depth(queues[queue.dead_letter])

    sorted_out: dict[int, list[Queue]] = {}
    for queue in queues.values():
        sorted_out.setdefault(depth(queue), []).append(queue)
    return [sorted_out[level] for level in sorted(sorted_out)]


def writers(topology: Topology) -> dict[str, list[str]]:
    """Return the topics that write to each queue, delivering or giving up."""
    found: dict[str, list[str]] = {}
    for subscription in topology.subscriptions:
        for queue in filter(None, (subscription.queue, subscription.dead_letter)):
            topics = found.setdefault(queue, [])
            if subscription.topic not in topics:
                topics.append(subscription.topic)
    return found


def _dead_letters(topology: Topology) -> Iterator[tuple[str, Queue]]:
    """Yield the name of every dead-letter queue, of queues and subscriptions, with the queue it stands behind."""
    described = {queue.name: queue for queue in topology.queues}
    for queue in topology.queues:
        if queue.dead_letter is not None:
            yield queue.dead_letter, queue
    for subscription in topology.subscriptions:
        if subscription.dead_letter is not None:
            yield subscription.dead_letter, described[subscription.queue]
