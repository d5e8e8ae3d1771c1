"""Topology against the AWS of the tests: planned, applied, and events that arrive."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from worker.aws.session import AwsClients
from worker.aws.sns import Publication, publish_batch, topic_arn
from worker.aws.sqs import SqsSource
from worker.errors import EntryError, SourceError, UsageError
from worker.local import EmbeddedAws
from worker.message import Attribute, Received
from worker.source import ReceiveRequest
from worker.topology import Action, Alarm, Change, Queue, Subscription, Topic, Topology, apply, plan
from worker.topology.calls import Calls

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
            Queue(
                orders, visibility_timeout_seconds=45, dead_letter=f"{orders}-dlq", max_receive_count=9, tags={"a": "b"}
            ),
            Queue(mail, retention_seconds=3600, wait_time_seconds=5),
        ],
        subscriptions=[
            Subscription(events, orders, raw=True),
            Subscription(events, mail, filter_policy={"event_type": ["order.created"]}),
        ],
        alarms=[Alarm(f"{orders}-depth", orders, "ApproximateNumberOfMessagesVisible", 1000, 5, [events], "Deep.")],
    )


async def url_of(clients: AwsClients, queue: str) -> str:
    return str((await clients.settle.call("get_queue_url", QueueName=queue))["QueueUrl"])


async def attributes_of(clients: AwsClients, queue: str) -> Mapping[str, str]:
    answer = await clients.settle.call(
        "get_queue_attributes", QueueUrl=await url_of(clients, queue), AttributeNames=["All"]
    )
    attributes: Mapping[str, str] = answer["Attributes"]
    return attributes


async def set_attributes(clients: AwsClients, queue: str, **attributes: str) -> None:
    await clients.settle.call("set_queue_attributes", QueueUrl=await url_of(clients, queue), Attributes=attributes)


async def subscription_of(clients: AwsClients, topic: str) -> Mapping[str, Any]:
    """Return the attributes of a topic's only subscription."""
    arn = await topic_arn(clients, topic)
    (listed,) = (await clients.sns.call("list_subscriptions_by_topic", TopicArn=arn))["Subscriptions"]
    said = await clients.sns.call("get_subscription_attributes", SubscriptionArn=listed["SubscriptionArn"])
    attributes: Mapping[str, Any] = said["Attributes"]
    return attributes


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


def told(changes: list[Change]) -> list[str]:
    return [str(change) for change in changes]


async def test_applied_once_everything_is_there(aws_clients: AwsClients, topology: Topology) -> None:
    """`apply` does what `plan` has shown, in its order."""
    planned = await plan(topology, aws_clients)
    done: list[Change] = []
    changes = await apply(topology, aws_clients, done=done.append)
    assert changes == planned.changes
    assert sorted(told(done)) == sorted(told(changes))
    (orders, mail), (topic,) = topology.queues, topology.topics
    assert told(changes) == [
        f"create topic {topic.name}",
        f"create queue {mail.name}",
        f"create queue {orders.dead_letter}",
        f"create queue {orders.name}",
        f"create subscription {topic.name} -> {orders.name}",
        f"create subscription {topic.name} -> {mail.name}",
        f"create alarm {orders.name}-depth",
    ]
    facts = await SqsSource(aws_clients, orders.name, dead_letter=orders.dead_letter).describe()
    assert (facts.visibility_timeout_seconds, facts.retention_seconds) == (45, 1_209_600)
    assert (facts.redrive_target, facts.max_receive_count, facts.dead_letter_found) == (orders.dead_letter, 9, True)
    found = await attributes_of(aws_clients, mail.name)
    assert (found["MessageRetentionPeriod"], found["ReceiveMessageWaitTimeSeconds"]) == ("3600", "5")


async def test_applied_twice_changes_nothing(aws_clients: AwsClients, topology: Topology) -> None:
    await apply(topology, aws_clients)
    assert await apply(topology, aws_clients) == []
    assert (await plan(topology, aws_clients)).is_empty


async def test_a_plan_changes_nothing(aws_clients: AwsClients, topology: Topology) -> None:
    planned = await plan(topology, aws_clients)
    assert await plan(topology, aws_clients) == planned
    with pytest.raises(SourceError):
        await url_of(aws_clients, topology.queues[0].name)


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


async def test_without_a_queue_policy_nothing_arrives(embedded_aws: EmbeddedAws, topology: Topology) -> None:
    """SNS drops silently what a queue's policy does not allow, so apply must write one, and corrects a lost one."""
    (orders, _), (topic,) = topology.queues, topology.topics
    async with AwsClients(embedded_aws.access) as clients:
        await apply(topology, clients)
        await set_attributes(clients, orders.name, Policy="")
        await publish(clients, topic.name, *["order.created"] * 5)
        assert await drain(clients, orders.name) == []
        (change,) = await apply(topology, clients)
        assert (change.action, change.name) == (Action.CHANGE, orders.name)
        await publish(clients, topic.name, *["order.created"] * 5)
        assert len(await drain(clients, orders.name)) == 5


async def test_statements_of_others_stay(aws_clients: AwsClients, topology: Topology) -> None:
    """A queue's policy may carry what other teams wrote; it is merged by statement id, not overwritten."""
    queue, (topic,) = topology.queues[1], topology.topics
    await apply(Topology(queues=[queue]), aws_clients)
    await set_attributes(aws_clients, queue.name, Policy=json.dumps({"Version": "2012-10-17", "Statement": STATEMENT}))
    subscribed = Topology([topic], [queue], topology.subscriptions[1:])
    assert f"foreign queue {queue.name}" in told((await plan(subscribed, aws_clients)).changes)
    await apply(subscribed, aws_clients)
    statements = json.loads((await attributes_of(aws_clients, queue.name))["Policy"])["Statement"]
    assert statements[0] == STATEMENT
    assert statements[1]["Condition"] == {"ArnEquals": {"aws:SourceArn": await topic_arn(aws_clients, topic.name)}}
    assert await apply(subscribed, aws_clients) == []


async def test_what_differs_is_corrected(aws_clients: AwsClients, topology: Topology) -> None:
    await apply(topology, aws_clients)
    (orders, mail), (topic,) = topology.queues, topology.topics
    changed = replace(
        topology,
        queues=[replace(orders, visibility_timeout_seconds=60, max_receive_count=12, tags={"a": "c"}), mail],
        subscriptions=[
            replace(topology.subscriptions[0], raw=False),
            replace(topology.subscriptions[1], filter_policy={"kind": {"deep": ["a"]}}, filter_scope="MessageBody"),
        ],
        alarms=[replace(topology.alarms[0], threshold=50)],
    )
    assert told(await apply(changed, aws_clients)) == [
        f"change queue {orders.dead_letter} (tag a)",
        f"change queue {orders.name} (VisibilityTimeout, RedrivePolicy, tag a)",
        f"change subscription {topic.name} -> {orders.name} (RawMessageDelivery)",
        f"change subscription {topic.name} -> {mail.name} (FilterPolicyScope, FilterPolicy)",
        f"change alarm {orders.name}-depth (Threshold)",
    ]
    assert await apply(changed, aws_clients) == []
    assert len(await apply(topology, aws_clients)) == 5


async def test_a_filter_that_is_taken_out_of_the_file_is_taken_off_the_subscription(
    aws_clients: AwsClients, topology: Topology
) -> None:
    await apply(topology, aws_clients)
    mail, (topic,) = topology.queues[1], topology.topics
    unfiltered = replace(topology.subscriptions[1], filter_policy=None)
    without = replace(topology, subscriptions=[topology.subscriptions[0], unfiltered])
    await apply(without, aws_clients)
    await publish(aws_clients, topic.name, "order.updated")
    assert len(await drain(aws_clients, mail.name)) == 1
    assert await apply(without, aws_clients) == []


async def test_fifo_topics_feed_fifo_queues(aws_clients: AwsClients, unique_name: Name) -> None:
    topic, queue, dead = unique_name("events.fifo"), unique_name("orders.fifo"), unique_name("dead.fifo")
    topology = Topology([Topic(topic)], [Queue(queue, dead_letter=dead)], [Subscription(topic, queue, raw=True)])
    await apply(topology, aws_clients)
    assert await apply(topology, aws_clients) == []
    publications = [Publication(str(n), group_id="g", deduplication_id=str(n)) for n in range(3)]
    assert await publish_batch(aws_clients, await topic_arn(aws_clients, topic), publications) == [None] * 3
    assert [message.body for message in await drain(aws_clients, queue)] == ["0", "1", "2"]


async def test_what_sns_cannot_deliver_has_a_place_until_the_file_takes_it_away(
    aws_clients: AwsClients, unique_name: Name
) -> None:
    """A subscription's own dead-letter queue is made, named in its RedrivePolicy, and open to the topic."""
    topic, queue, undelivered = unique_name("events"), unique_name("orders"), unique_name("undelivered")
    topology = Topology([Topic(topic)], [Queue(queue)], [Subscription(topic, queue, dead_letter=undelivered)])
    await apply(topology, aws_clients)
    assert await apply(topology, aws_clients) == []
    found = await attributes_of(aws_clients, undelivered)
    assert json.loads(found["Policy"])["Statement"][0]["Resource"] == found["QueueArn"]
    redrive = json.loads((await subscription_of(aws_clients, topic))["RedrivePolicy"])
    assert redrive == {"deadLetterTargetArn": found["QueueArn"]}


async def test_a_net_is_taken_off_on_purpose(aws_clients: AwsClients, unique_name: Name) -> None:
    queue = Queue(unique_name("orders"), dead_letter=unique_name("dead"))
    await apply(Topology(queues=[queue]), aws_clients)
    bare = Topology(queues=[replace(queue, dead_letter=None)])
    assert told(await apply(bare, aws_clients)) == [f"change queue {queue.name} (RedrivePolicy)"]
    assert await apply(bare, aws_clients) == []


async def test_subscriptions_and_attributes_of_others_are_shown_and_stay(
    aws_clients: AwsClients, unique_name: Name
) -> None:
    topic, ours, theirs = unique_name("events"), unique_name("orders"), unique_name("theirs")
    both = Topology(
        [Topic(topic)], [Queue(ours), Queue(theirs)], [Subscription(topic, ours), Subscription(topic, theirs)]
    )
    await apply(both, aws_clients)
    await set_attributes(aws_clients, ours, DelaySeconds="7")
    found = await plan(Topology([Topic(topic)], [Queue(ours)], [Subscription(topic, ours)]), aws_clients)
    assert found.is_empty
    assert {(change.action, change.kind) for change in found.changes} == {
        (Action.FOREIGN, "queue"),
        (Action.FOREIGN, "subscription"),
    }
    (queue, subscription) = found.changes
    assert [str(difference) for difference in queue.differences] == ["DelaySeconds: 7"]
    assert subscription.name.endswith(f":{theirs}")


async def test_an_alarm_watches_its_queue_and_tells_its_topic(aws_clients: AwsClients, topology: Topology) -> None:
    """With the queue's dimension (M5)."""
    await apply(topology, aws_clients)
    (alarm,), (topic,) = topology.alarms, topology.topics
    async with Calls(aws_clients) as calls:
        (found,) = (await calls._cloudwatch.call("describe_alarms", AlarmNames=[alarm.name]))["MetricAlarms"]
    assert found["Dimensions"] == [{"Name": "QueueName", "Value": alarm.queue}]
    assert found["AlarmActions"] == [await topic_arn(aws_clients, topic.name)]
    assert (found["Namespace"], found["Threshold"], found["EvaluationPeriods"]) == ("AWS/SQS", 1000.0, 5)


async def test_what_does_not_exist_and_is_not_made_is_named(aws_clients: AwsClients, topology: Topology) -> None:
    """Before anything is changed (X1)."""
    queue = topology.queues[0]
    wanted = replace(topology, subscriptions=[Subscription("no-such-topic", queue.name)])
    with pytest.raises(UsageError, match=f"the topic no-such-topic, which {queue.name} subscribes to, does not exist"):
        await apply(wanted, aws_clients)
    wanted = replace(topology, alarms=[replace(topology.alarms[0], topics=["no-such-topic"])])
    with pytest.raises(UsageError, match=r"the topic no-such-topic, which the alarm .* is to tell, does not exist"):
        await apply(wanted, aws_clients)
    with pytest.raises(SourceError):
        await url_of(aws_clients, queue.name)


async def test_what_aws_refuses_is_named(embedded_aws: EmbeddedAws, unique_name: Name) -> None:
    """The call and the resource, and that nothing is lost (X1)."""
    queue, other = unique_name("orders"), unique_name("other")
    wanted = Topology(queues=[Queue(queue, visibility_timeout_seconds=99_999), Queue(other)])
    refused = f"^AWS refused sqs:CreateQueue on the queue {queue}: .*; what was done before stays"
    async with AwsClients(embedded_aws.access) as clients:
        with pytest.raises(UsageError, match=refused):
            await apply(wanted, clients)
        corrected = Topology(queues=[Queue(queue), Queue(other)])
        assert told(await apply(corrected, clients)) == [f"create queue {queue}"]


async def test_what_a_person_must_replace_stops_everything(embedded_aws: EmbeddedAws, unique_name: Name) -> None:
    """Before anything is changed (X1)."""
    queue, other = unique_name("orders.fifo"), unique_name("other")
    async with AwsClients(embedded_aws.access) as clients:
        await apply(Topology(queues=[Queue(queue)]), clients)
        await set_attributes(clients, queue, FifoQueue="false")  # only an emulator lets itself be told
        wanted = Topology(queues=[Queue(other), Queue(queue)])
        assert [change.action for change in (await plan(wanted, clients)).changes] == [Action.CREATE, Action.REPLACE]
        with pytest.raises(UsageError, match=f"nothing was changed: the queue {queue} exists as a standard queue"):
            await apply(wanted, clients)
        with pytest.raises(SourceError):
            await url_of(clients, other)


async def test_names_arns_and_urls_lead_to_the_same(aws_clients: AwsClients, unique_name: Name) -> None:
    topic, queue = unique_name("events"), unique_name("orders")
    named = Topology([Topic(topic)], [Queue(queue)], [Subscription(topic, queue)])
    await apply(named, aws_clients)
    arn, url = await topic_arn(aws_clients, topic), await url_of(aws_clients, queue)
    addressed = Topology([Topic(topic)], [Queue(queue)], [Subscription(arn, queue)], addresses=[arn, url])
    assert await apply(addressed, aws_clients) == []
    elsewhere = Topology(queues=[Queue(queue)], addresses=[f"arn:aws:sqs:us-east-1:123456789012:{queue}"])
    with pytest.raises(UsageError, match="lies in the account 123456789012, but the credentials belong to"):
        await plan(elsewhere, aws_clients)
    abroad = Topology(queues=[Queue(queue)], subscriptions=[Subscription(arn.replace("us-east-1", "eu-west-1"), queue)])
    with pytest.raises(UsageError, match="lies in the region eu-west-1, but this fleet runs in us-east-1"):
        await plan(abroad, aws_clients)


async def test_publishing_answers_for_each_entry(aws_clients: AwsClients, unique_name: Name) -> None:
    arn = await topic_arn(aws_clients, unique_name("events"))
    assert await topic_arn(aws_clients, arn) == arn
    assert await publish_batch(aws_clients, arn, []) == []
    with pytest.raises(ValueError, match="11 publications"):
        await publish_batch(aws_clients, arn, [Publication("x")] * 11)
    with pytest.raises(SourceError):
        await publish_batch(aws_clients, arn, [Publication("x")])
