"""From the fleet file to what is to exist; mistakes that only AWS would find are found here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from worker.errors import ConfigError
from worker.idempotency.dynamodb import SCHEME
from worker.settings.address import Address
from worker.settings.fleet import FleetSettings
from worker.settings.queue import QueueSettings
from worker.settings.topic import SubscriptionSettings
from worker.topology.desired import Alarm, Bucket, Queue, Subscription, Table, Topic, Topology
from worker.topology.filter_problems import problems

__all__ = ["marks_tables", "wanted_by"]

DEPTH = 1000
"""Waiting messages; a backlog is to be seen at a thousand, not at a hundred thousand."""
DEPTH_MINUTES = 5
AGE_SECONDS = 900
"""Age of the oldest message beyond what its retries take."""
AGE_MINUTES = 5


def wanted_by(fleet: FleetSettings) -> Topology:
    """Read from the settings what the fleet itself is to have: nothing that is `external`, but subscriptions to it.

    Raises `ConfigError` for a filter that SNS would refuse, and for two subscriptions of a queue to one topic.
    """
    own = [queue for queue in fleet.queues.values() if not queue.external]
    return Topology(
        topics=tuple(
            Topic(topic.name, topic.kms_key, topic.tags) for topic in fleet.topics.values() if not topic.external
        ),
        queues=tuple(map(_queue, own)),
        subscriptions=tuple(subscription for queue in own for subscription in _subscriptions(fleet, queue)),
        alarms=_merged(alarm for queue in own for alarm in _alarms(fleet.service, queue)),
        buckets=tuple(Bucket(name, days) for name, days in _buckets(fleet).items()),
        tables=tuple(map(Table, marks_tables(fleet))),
        addresses=tuple(address for address in _written(fleet, own) if ":" in address),
    )


def marks_tables(fleet: FleetSettings) -> list[str]:
    """Return the name of the DynamoDB table of idempotency marks, where the store is one."""
    store = fleet.idempotency.store or ""
    return [store.removeprefix(SCHEME)] if store.startswith(SCHEME) else []


def _buckets(fleet: FleetSettings) -> dict[str, int]:
    """Return after how many days each bucket deletes: topics that share one keep their payloads as long as any of them."""
    found: dict[str, int] = {}
    for topic in fleet.topics.values():
        large = topic.large_payloads
        if not topic.external and large.bucket is not None and large.expire_days is not None:
            found[large.bucket] = max(large.expire_days, found.get(large.bucket, 0))
    return found


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


def _written(fleet: FleetSettings, own: Sequence[QueueSettings]) -> Iterator[str]:
    """Yield topics and queues that are to be made or changed as the file spells them."""
    yield from (topic.address for topic in fleet.topics.values() if not topic.external)
    for queue in own:
        yield queue.address
        if not isinstance(queue.dead_letter, str):
            yield queue.dead_letter.queue
        yield from (subscription.dead_letter for subscription in queue.subscribe if subscription.dead_letter)


def _subscriptions(fleet: FleetSettings, queue: QueueSettings) -> Iterator[Subscription]:
    seen: set[str] = set()
    for position, subscription in enumerate(queue.subscribe):
        path = f"queues.{queue.name}.subscribe.{position}"
        if subscription.topic in seen:
            raise ConfigError(
                f"{path}.topic is {subscription.topic} again, but SNS keeps one subscription of a queue to a topic: "
                f"join their filters, with $or where needed"
            )
        seen.add(subscription.topic)
        _check_filter(subscription, path)
        undelivered = subscription.dead_letter
        yield Subscription(
            topic=fleet.topics[subscription.topic].address,
            queue=queue.name,
            raw=subscription.raw,
            filter_policy=subscription.filter,
            filter_scope=subscription.filter_scope,
            dead_letter=None if undelivered is None else Address.of_queue(undelivered).name,
        )


def _check_filter(subscription: SubscriptionSettings, path: str) -> None:
    for problem in problems(subscription.filter, subscription.filter_scope) if subscription.filter else ():
        raise ConfigError(f"{path}.filter: {problem}")


def _alarms(service: str, queue: QueueSettings) -> Iterator[Alarm]:
    """Yield the three to watch; none unless someone is to be told."""
    if not queue.alarms:
        return
    visible, name = "ApproximateNumberOfMessagesVisible", f"{service}-{queue.name}"
    depth = f"More than {DEPTH} messages wait in {queue.name}: its handlers do not keep up."
    yield Alarm(f"{name}-depth", queue.name, visible, DEPTH, DEPTH_MINUTES, queue.alarms, depth)
    seconds = AGE_SECONDS + _retry_seconds(queue)
    age = f"A message waits in {queue.name} for more than {seconds} s, longer than its retries take."
    yield Alarm(f"{name}-age", queue.name, "ApproximateAgeOfOldestMessage", seconds, AGE_MINUTES, queue.alarms, age)
    if not isinstance(queue.dead_letter, str):
        behind = queue.dead_letter.name
        dead = f"There are dead letters in {behind}: look at them, mend what broke, replay them."
        yield Alarm(f"{service}-{behind}-visible", behind, visible, 0, topics=queue.alarms, description=dead)


def _retry_seconds(queue: QueueSettings) -> int:
    retry = queue.retry
    return sum(min(retry.max_seconds, retry.base_seconds * 2**failure) for failure in range(queue.attempts - 1))


def _merged(alarms: Iterable[Alarm]) -> tuple[Alarm, ...]:
    """Queues that share a dead-letter queue share its alarm, which tells whom any of them names."""
    found: dict[str, Alarm] = {}
    for alarm in alarms:
        before = found.get(alarm.name)
        topics = tuple(dict.fromkeys([*(before.topics if before else ()), *alarm.topics]))
        found[alarm.name] = replace(alarm, topics=topics)
    return tuple(found.values())
