"""What AWS has of a topology: reads only, everything once, side by side."""

from asyncio import Task, TaskGroup
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from worker.aws.cloudwatch import ALARMS_PER_CALL
from worker.topology.calls import Calls
from worker.topology.change import Call
from worker.topology.desired import Queue, Topic, Topology, levels
from worker.topology.place import Place

__all__ = ["Existing", "Found", "FoundSubscription", "look"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A topic or queue as AWS has it."""

    address: str
    """A topic's ARN, a queue's URL."""
    attributes: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    """Read only where the fleet file wants some."""


@dataclass(frozen=True, slots=True)
class FoundSubscription:
    """A subscription as SNS lists it."""

    arn: str
    """No ARN as long as it waits for a confirmation."""
    protocol: str
    endpoint: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Read only for queues of the topology."""

    @property
    def is_confirmed(self) -> bool:
        """Whether SNS shows and changes its attributes."""
        return self.arn.startswith("arn:")


@dataclass(frozen=True, slots=True)
class Existing:
    """What AWS has; what it has not is missing here."""

    topics: Mapping[str, Found] = field(default_factory=dict)
    """By ARN: those that are to exist, and those that alarms tell."""
    queues: Mapping[str, Found] = field(default_factory=dict)
    """By name, dead-letter queues too."""
    subscriptions: Mapping[str, Sequence[FoundSubscription]] = field(default_factory=dict)
    """By ARN of the topic, everybody's; a topic that does not exist is missing."""
    alarms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name, as CloudWatch describes them."""


async def look(topology: Topology, place: Place, calls: Calls) -> Existing:
    """Read what AWS has of the topology and of what it refers to."""
    own = {place.topic_arn(topic.name): topic for topic in topology.topics}
    told = {place.topic_arn(topic): Topic(topic) for alarm in topology.alarms for topic in alarm.topics}
    topics = {**{arn: topic for arn, topic in told.items() if place.has(arn)}, **own}
    queues = {queue.name: queue for level in levels(topology) for queue in level}
    subscribed = own.keys() | {place.topic_arn(subscription.topic) for subscription in topology.subscriptions}
    endpoints = frozenset(map(place.queue_arn, queues))
    names = [alarm.name for alarm in topology.alarms]
    with _one_error():
        async with TaskGroup() as group:
            found_topics = {arn: group.create_task(_topic(arn, topic, calls)) for arn, topic in topics.items()}
            found_queues = {name: group.create_task(_queue(queue, calls)) for name, queue in queues.items()}
            subscriptions = {arn: group.create_task(_subscriptions(arn, endpoints, calls)) for arn in subscribed}
            alarms = group.create_task(_alarms(names, calls))
    return Existing(_there(found_topics), _there(found_queues), _there(subscriptions), alarms.result())


async def _topic(arn: str, topic: Topic, calls: Calls) -> Found | None:
    about = f"topic {topic.name}"
    answer = await calls.find(Call("sns", "get_topic_attributes", {"TopicArn": arn}, about))
    if answer is None:
        return None
    tags: dict[str, str] = {}
    if topic.tags:
        said = await calls.send(Call("sns", "list_tags_for_resource", {"ResourceArn": arn}, about))
        tags = {tag["Key"]: tag["Value"] for tag in said.get("Tags", ())}
    return Found(arn, answer["Attributes"], tags)


async def _queue(queue: Queue, calls: Calls) -> Found | None:
    about = f"queue {queue.name}"
    answer = await calls.find(Call("sqs", "get_queue_url", {"QueueName": queue.name}, about))
    if answer is None:
        return None
    url = {"QueueUrl": answer["QueueUrl"]}
    said = await calls.find(Call("sqs", "get_queue_attributes", {**url, "AttributeNames": ["All"]}, about))
    if said is None:  # deleted a moment ago
        return None
    tags: dict[str, str] = {}
    if queue.tags:
        tags = (await calls.send(Call("sqs", "list_queue_tags", url, about))).get("Tags", {})
    return Found(url["QueueUrl"], said.get("Attributes", {}), tags)


async def _subscriptions(arn: str, endpoints: frozenset[str], calls: Calls) -> list[FoundSubscription] | None:
    """Return all that the topic has; those of queues of the topology with their attributes."""
    about = f"topic {arn.rpartition(':')[2]}"
    listed: list[Mapping[str, str]] = []
    parameters = {"TopicArn": arn}
    while True:
        page = await calls.find(Call("sns", "list_subscriptions_by_topic", parameters, about))
        if page is None:
            return None
        listed += page.get("Subscriptions", ())
        if not page.get("NextToken"):
            break
        parameters = {"TopicArn": arn, "NextToken": page["NextToken"]}
    found = [
        FoundSubscription(each["SubscriptionArn"], each["Protocol"], each["Endpoint"])
        for each in listed
        if each["SubscriptionArn"] != "Deleted"  # such ones are listed for a while
    ]
    with _one_error():
        async with TaskGroup() as group:
            tasks = [group.create_task(_with_attributes(each, endpoints, calls)) for each in found]
    return [task.result() for task in tasks]


async def _with_attributes(found: FoundSubscription, endpoints: frozenset[str], calls: Calls) -> FoundSubscription:
    if found.endpoint not in endpoints or not found.is_confirmed:
        return found
    about = f"subscription {found.arn.split(':')[5]} -> {found.endpoint.rpartition(':')[2]}"
    answer = await calls.send(Call("sns", "get_subscription_attributes", {"SubscriptionArn": found.arn}, about))
    return FoundSubscription(found.arn, found.protocol, found.endpoint, answer["Attributes"])


async def _alarms(names: Sequence[str], calls: Calls) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(names), ALARMS_PER_CALL):
        few = names[start : start + ALARMS_PER_CALL]
        parameters = {"AlarmNames": few, "AlarmTypes": ["MetricAlarm", "CompositeAlarm"], "MaxRecords": len(few)}
        answer = await calls.send(Call("cloudwatch", "describe_alarms", parameters, f"alarm {few[0]}"))
        for alarm in (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())):
            found[alarm["AlarmName"]] = alarm
    return found


def _there(tasks: Mapping[str, Task[T | None]]) -> dict[str, T]:
    results = {key: task.result() for key, task in tasks.items()}
    return {key: result for key, result in results.items() if result is not None}


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise the first of a group: one sentence is what a user reads."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__
