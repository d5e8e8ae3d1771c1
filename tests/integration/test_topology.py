"""Topology against the embedded AWS, which enforces queue policies."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from worker.aws.session import AwsClients
from worker.aws.sns import Publication, publish_batch, topic_arn
from worker.aws.sqs import SqsSource
from worker.errors import EntryError, SourceError, UsageError
from worker.message import Attribute, Received
from worker.source import ReceiveRequest
from worker.topology import Change, Queue, Subscription, Topic, Topology, apply

pytestmark = pytest.mark.integration

Name = Callable[[str], str]
STATEMENT = {"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "sqs:GetQueueUrl", "Resource": "*"}


@pytest.fixture
def topology(unique_name: Name) -> Topology:
    """One topic, two queues: one takes everything raw, one a part of it in SNS's envelope."""
    events, orders, mail = unique_name("events"), unique_name("orders"), unique_name("mail")
    return Topology(
        topics=[Topic(events, tags={"team": "shop"})],
        queues=[
            Queue(orders, visibility_timeout_seconds=45, dead_letter=f"{orders}-dlq", max_receive_count=9),
            Queue(mail, retention_seconds=3600, wait_time_seconds=5),
        ],
        subscriptions=[
            Subscription(events, orders, raw=True),
            Subscription(events, mail, filter_policy={"event_type": ["order.created"]}),
        ],
    )


async def attributes_of(clients: AwsClients, queue: str) -> Mapping[str, str]:
    url = (await clients.settle.call("get_queue_url", QueueName=queue))["QueueUrl"]
    answer = await clients.settle.call("get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
    attributes: Mapping[str, str] = answer["Attributes"]
    return attributes


async def set_policy(clients: AwsClients, queue: str, policy: str) -> None:
    url = (await clients.settle.call("get_queue_url", QueueName=queue))["QueueUrl"]
    await clients.settle.call("set_queue_attributes", QueueUrl=url, Attributes={"Policy": policy})


async def publish(clients: AwsClients, topic: str, *event_types: str) -> list[EntryError | None]:
    publications = [
        Publication(json.dumps({"number": number}), {"event_type": Attribute("String", event_type)})
        for number, event_type in enumerate(event_types)
    ]
    return await publish_batch(clients, await topic_arn(clients, topic), publications)


async def drain(clients: AwsClients, queue: str) -> list[Received]:
    source, drained = SqsSource(clients, queue), []
    while messages := await source.receive(ReceiveRequest(limit=10, wait_seconds=0, visibility_timeout_seconds=30)):
        drained += messages
    return drained


async def test_applied_once_everything_is_there(aws_clients: AwsClients, topology: Topology) -> None:
    changes = await apply(topology, aws_clients)
    (orders, mail), (topic,) = topology.queues, topology.topics
    assert [(change.action, change.kind) for change in changes] == [
        ("create", "topic"),
        ("create", "queue"),
        ("create", "queue"),
        ("create", "queue"),
        ("create", "queue policy"),
        ("create", "queue policy"),
        ("create", "subscription"),
        ("create", "subscription"),
    ]
    assert str(changes[0]) == f"create topic {topic.name}"
    facts = await SqsSource(aws_clients, orders.name, dead_letter=orders.dead_letter).describe()
    assert (facts.visibility_timeout_seconds, facts.retention_seconds) == (45, 1_209_600)
    assert (facts.redrive_target, facts.max_receive_count, facts.dead_letter_found) == (orders.dead_letter, 9, True)
    found = await attributes_of(aws_clients, mail.name)
    assert (found["MessageRetentionPeriod"], found["ReceiveMessageWaitTimeSeconds"]) == ("3600", "5")


async def test_applied_twice_changes_nothing(aws_clients: AwsClients, topology: Topology) -> None:
    await apply(topology, aws_clients)
    assert await apply(topology, aws_clients) == []


async def test_events_arrive_where_the_filter_lets_them(aws_clients: AwsClients, topology: Topology) -> None:
    """Raw and enveloped, filtered and not: the policies let everything through that is meant to come."""
    await apply(topology, aws_clients)
    (orders, mail), (topic,) = topology.queues, topology.topics
    assert await publish(aws_clients, topic.name, "order.created", "order.updated", "order.created") == [None] * 3
    raw = await drain(aws_clients, orders.name)
    assert sorted(message.body for message in raw) == [f'{{"number": {number}}}' for number in range(3)]
    assert {message.attributes["event_type"].value for message in raw} == {"order.created", "order.updated"}
    enveloped = [json.loads(message.body) for message in await drain(aws_clients, mail.name)]
    assert [envelope["Type"] for envelope in enveloped] == ["Notification"] * 2
    assert {envelope["MessageAttributes"]["event_type"]["Value"] for envelope in enveloped} == {"order.created"}


async def test_without_a_queue_policy_nothing_arrives(aws_clients: AwsClients, topology: Topology) -> None:
    """SNS drops silently what a queue's policy does not allow, so apply must write one, and corrects a lost one."""
    await apply(topology, aws_clients)
    (orders, _), (topic,) = topology.queues, topology.topics
    await set_policy(aws_clients, orders.name, "")
    await publish(aws_clients, topic.name, *["order.created"] * 5)
    assert await drain(aws_clients, orders.name) == []
    assert await apply(topology, aws_clients) == [Change("create", "queue policy", orders.name)]
    await publish(aws_clients, topic.name, *["order.created"] * 5)
    assert len(await drain(aws_clients, orders.name)) == 5


async def test_statements_of_others_stay(aws_clients: AwsClients, topology: Topology) -> None:
    """A queue's policy may carry what other teams wrote; it is merged by statement id, not overwritten."""
    queue, (topic,) = topology.queues[1], topology.topics
    await apply(Topology(queues=[queue]), aws_clients)
    await set_policy(aws_clients, queue.name, json.dumps({"Version": "2012-10-17", "Statement": STATEMENT}))
    subscribed = Topology([topic], [queue], topology.subscriptions[1:])
    changes = await apply(subscribed, aws_clients)
    assert Change("update", "queue policy", queue.name) in changes
    statements = json.loads((await attributes_of(aws_clients, queue.name))["Policy"])["Statement"]
    assert statements[0] == STATEMENT
    assert statements[1]["Condition"] == {"ArnEquals": {"aws:SourceArn": await topic_arn(aws_clients, topic.name)}}
    assert await apply(subscribed, aws_clients) == []


async def test_what_differs_is_corrected(aws_clients: AwsClients, topology: Topology) -> None:
    await apply(topology, aws_clients)
    orders, mail = topology.queues
    changed = Topology(
        topology.topics,
        [replace(orders, visibility_timeout_seconds=60, max_receive_count=12), mail],
        [
            replace(topology.subscriptions[0], raw=False),
            replace(topology.subscriptions[1], filter_policy={"kind": ["a"]}, filter_scope="MessageBody"),
        ],
    )
    changes = await apply(changed, aws_clients)
    assert [(change.kind, change.detail) for change in changes] == [
        ("queue", "RedrivePolicy, VisibilityTimeout"),
        ("subscription", "RawMessageDelivery"),
        ("subscription", "FilterPolicyScope, FilterPolicy"),
    ]
    assert await apply(changed, aws_clients) == []


async def test_a_filter_that_is_taken_out_of_the_file_is_taken_off_the_subscription(
    aws_clients: AwsClients, topology: Topology
) -> None:
    await apply(topology, aws_clients)
    mail, (topic,) = topology.queues[1], topology.topics
    subscription = replace(topology.subscriptions[1], filter_policy=None)
    await apply(replace(topology, subscriptions=[topology.subscriptions[0], subscription]), aws_clients)
    await publish(aws_clients, topic.name, "order.updated")
    assert len(await drain(aws_clients, mail.name)) == 1


async def test_fifo_topics_feed_fifo_queues(aws_clients: AwsClients, unique_name: Name) -> None:
    topic, queue, dead = unique_name("events.fifo"), unique_name("orders.fifo"), unique_name("dead.fifo")
    topology = Topology([Topic(topic)], [Queue(queue, dead_letter=dead)], [Subscription(topic, queue, raw=True)])
    await apply(topology, aws_clients)
    assert await apply(topology, aws_clients) == []
    publications = [Publication(str(n), group_id="g", deduplication_id=str(n)) for n in range(3)]
    assert await publish_batch(aws_clients, await topic_arn(aws_clients, topic), publications) == [None] * 3
    assert [message.body for message in await drain(aws_clients, queue)] == ["0", "1", "2"]


async def test_what_sns_cannot_deliver_has_a_place(aws_clients: AwsClients, unique_name: Name) -> None:
    """A subscription's own dead-letter queue is made, named in its RedrivePolicy, and open to the topic."""
    topic, queue, undelivered = unique_name("events"), unique_name("orders"), unique_name("undelivered")
    topology = Topology([Topic(topic)], [Queue(queue)], [Subscription(topic, queue, dead_letter=undelivered)])
    await apply(topology, aws_clients)
    assert await apply(topology, aws_clients) == []
    found = await attributes_of(aws_clients, undelivered)
    assert json.loads(found["Policy"])["Statement"][0]["Resource"] == found["QueueArn"]
    (subscription,) = (
        await aws_clients.sns.call("list_subscriptions_by_topic", TopicArn=await topic_arn(aws_clients, topic))
    )["Subscriptions"]
    said = await aws_clients.sns.call("get_subscription_attributes", SubscriptionArn=subscription["SubscriptionArn"])
    assert json.loads(said["Attributes"]["RedrivePolicy"]) == {"deadLetterTargetArn": found["QueueArn"]}


async def test_what_aws_refuses_is_named(aws_clients: AwsClients, topology: Topology) -> None:
    """A refusal names the resource and says that nothing is lost (X1)."""
    subscriptions = [Subscription("no-such-topic", topology.queues[0].name)]
    with pytest.raises(UsageError, match=r"the subscription no-such-topic -> .* could not be made: AWS answered"):
        await apply(replace(topology, subscriptions=subscriptions), aws_clients)


async def test_publishing_answers_for_each_entry(aws_clients: AwsClients, unique_name: Name) -> None:
    arn = await topic_arn(aws_clients, unique_name("events"))
    assert await topic_arn(aws_clients, arn) == arn
    assert await publish_batch(aws_clients, arn, []) == []
    with pytest.raises(ValueError, match="11 publications"):
        await publish_batch(aws_clients, arn, [Publication("x")] * 11)
    with pytest.raises(SourceError):
        await publish_batch(aws_clients, arn, [Publication("x")])
