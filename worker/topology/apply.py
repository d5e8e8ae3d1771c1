"""Brings AWS to what the fleet wants; a second time changes nothing."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from worker.aws.session import AwsClients
from worker.aws.sns import topic_arn
from worker.errors import SourceError, UsageError
from worker.topology.change import Change
from worker.topology.desired import Queue, Topology
from worker.topology.queues import allow_topics, ensure_queue
from worker.topology.topics import ensure_subscription, ensure_topic

__all__ = ["apply"]


async def apply(topology: Topology, clients: AwsClients) -> list[Change]:
    """Make what is missing, correct what differs, delete nothing; return what was done, in order.

    Topics, dead-letter queues, queues, queue policies and subscriptions, in this order, so that each finds what it
    refers to. Policies keep statements that are not ours. Raises `UsageError` when AWS refuses.
    """
    changes: list[Change] = []
    for topic in topology.topics:
        async with _about("topic", topic.name):
            changes += await ensure_topic(clients, topic)
    arns: dict[str, str] = {}
    for queue in _dead_letters_first(topology):
        async with _about("queue", queue.name):
            arns[queue.name], made = await ensure_queue(clients, queue, arns)
            changes += made
    for name, topics in _writers(topology).items():
        async with _about("policy of the queue", name):
            topic_arns = [await topic_arn(clients, topic) for topic in topics]
            changes += await allow_topics(clients, name, arns[name], topic_arns)
    for subscription in topology.subscriptions:
        async with _about("subscription", f"{subscription.topic} -> {subscription.queue}"):
            changes += await ensure_subscription(clients, subscription, arns)
    return changes


def _dead_letters_first(topology: Topology) -> list[Queue]:
    """Order the queues so that a RedrivePolicy finds its target, which the fleet may describe itself or only name."""
    queues = {queue.name: queue for queue in topology.queues}
    for name, owner in _dead_letters(topology):
        queues.setdefault(name, Queue(name, kms_key=owner.kms_key, tags=owner.tags))
    ordered: dict[str, Queue] = {}

    def place(queue: Queue) -> None:
        if queue.dead_letter is not None and queue.dead_letter not in ordered:
            place(queues[queue.dead_letter])
        ordered[queue.name] = queue

    for queue in queues.values():
        place(queue)
    return list(ordered.values())


def _dead_letters(topology: Topology) -> Iterator[tuple[str, Queue]]:
    """Yield the name of every dead-letter queue, of queues and subscriptions, with the queue it stands behind."""
    described = {queue.name: queue for queue in topology.queues}
    for queue in topology.queues:
        if queue.dead_letter is not None:
            yield queue.dead_letter, queue
    for subscription in topology.subscriptions:
        if subscription.dead_letter is not None:
            yield subscription.dead_letter, described[subscription.queue]


def _writers(topology: Topology) -> dict[str, list[str]]:
    """Return the topics that write to each queue, delivering or giving up."""
    writers: dict[str, list[str]] = {}
    for subscription in topology.subscriptions:
        for queue in filter(None, (subscription.queue, subscription.dead_letter)):
            topics = writers.setdefault(queue, [])
            if subscription.topic not in topics:
                topics.append(subscription.topic)
    return writers


@asynccontextmanager
async def _about(kind: str, name: str) -> AsyncIterator[None]:
    try:
        yield
    except SourceError as error:
        raise UsageError(
            f"the {kind} {name} could not be made: AWS answered {error}; what was made before it stays, "
            f"and the same command goes on from there"
        ) from error
