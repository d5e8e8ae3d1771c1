"""`plan`: what is to be done so that AWS has what the fleet wants; what can be checked beforehand is checked here."""

from collections.abc import Iterator, Sequence

from worker.aws.address import topic_address
from worker.aws.session import AwsClients
from worker.errors import SourceError, UsageError
from worker.topology.alarms import alarm_changes
from worker.topology.calls import Calls, refusal
from worker.topology.change import Call, Change, Plan
from worker.topology.desired import Topology, levels, writers
from worker.topology.existing import Existing, look
from worker.topology.place import Place
from worker.topology.queues import queue_changes
from worker.topology.subscriptions import foreign_subscriptions, subscription_changes
from worker.topology.topics import topic_changes

__all__ = ["compare", "plan"]


async def plan(topology: Topology, clients: AwsClients) -> Plan:
    """Look at AWS and return what it lacks; nothing is changed.

    Raises `UsageError` for what cannot work (another account, a topic that does not exist) or is denied, and
    `LongshoreError` when AWS does not answer.
    """
    async with Calls(clients) as calls:
        place = await _place(clients)
        for address in topology.addresses:
            place.check(address)
        for subscription in topology.subscriptions:
            topic_address(
                subscription.topic, place.region
            )  # raises for another region's, which these clients cannot ask
        return compare(topology, await look(topology, place, calls), place)


def compare(topology: Topology, existing: Existing, place: Place) -> Plan:
    """Return what `existing` lacks of `topology`, in an order in which everything finds what it refers to."""
    _check_topics(topology, existing, place)
    waves = [
        [
            change
            for topic in topology.topics
            for change in topic_changes(topic, existing.topics.get(place.topic_arn(topic.name)))
        ],
        *_queues(topology, existing, place),
        [*_subscriptions(topology, existing, place)],
        [
            change
            for alarm in topology.alarms
            for change in alarm_changes(alarm, existing.alarms.get(alarm.name), place)
        ],
    ]
    return Plan([wave for wave in waves if wave])


async def _place(clients: AwsClients) -> Place:
    try:
        partition, account = await clients.account()
    except SourceError as error:
        raise refusal(Call("sts", "get_caller_identity", {}, "credentials"), error) from error
    return Place(partition, clients.region, account)


def _check_topics(topology: Topology, existing: Existing, place: Place) -> None:
    """Refuse what refers to topics that neither exist nor are made."""
    own = {place.topic_arn(topic.name) for topic in topology.topics}
    for subscription in topology.subscriptions:
        arn = place.topic_arn(subscription.topic)
        if arn not in own and arn not in existing.subscriptions:
            raise UsageError(
                f"the topic {subscription.topic}, which {subscription.queue} subscribes to, does not exist, and it is "
                f"external: create it, correct its name, or leave external out"
            )
    for alarm in topology.alarms:
        for topic in alarm.topics:
            arn = place.topic_arn(topic)
            if place.has(arn) and arn not in own and arn not in existing.topics:
                raise UsageError(
                    f"the topic {topic}, which the alarm {alarm.name} is to tell, does not exist: "
                    f"create it, name it in topics, or correct its name in alarms"
                )


def _queues(topology: Topology, existing: Existing, place: Place) -> Iterator[Sequence[Change]]:
    topics = writers(topology)
    for level in levels(topology):
        yield [
            change
            for queue in level
            for change in queue_changes(
                queue,
                [place.topic_arn(topic) for topic in topics.get(queue.name, ())],
                existing.queues.get(queue.name),
                place,
            )
        ]


def _subscriptions(topology: Topology, existing: Existing, place: Place) -> Iterator[Change]:
    for subscription in topology.subscriptions:
        found = existing.subscriptions.get(place.topic_arn(subscription.topic), ())
        yield from subscription_changes(subscription, found, place)
    for topic in topology.topics:
        arn = place.topic_arn(topic.name)
        wanted = frozenset(
            place.queue_arn(each.queue) for each in topology.subscriptions if place.topic_arn(each.topic) == arn
        )
        yield from foreign_subscriptions(topic.name, wanted, existing.subscriptions.get(arn, ()))
