"""Rules of `compare`: what differs between a topology and what AWS has; no server is asked."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from worker.aws.session import AwsClients
from worker.errors import UsageError
from worker.topology import Action, Alarm, Change, Difference, Queue, Subscription, Topic, Topology, carry_out
from worker.topology.change import Call, Plan
from worker.topology.existing import Existing, Found, FoundSubscription
from worker.topology.place import Place
from worker.topology.plan import compare
from worker.topology.policies import statement_for

HERE = Place("aws", "us-east-1", "123456789012")
EVENTS, ORDERS, DEAD = HERE.topic_arn("events"), HERE.queue_arn("orders"), HERE.queue_arn("orders-dlq")
STATEMENT = statement_for(EVENTS, ORDERS)
POLICY = {"Version": "2012-10-17", "Statement": [STATEMENT]}
THEIRS = {"Sid": "Theirs", "Effect": "Allow"}
FILTER = {"event_type": ["order.created"]}

QUEUE = Queue("orders", dead_letter="orders-dlq", max_receive_count=10)
SUBSCRIPTION = Subscription("events", "orders", filter_policy=FILTER)
ALARM = Alarm("shop-orders-depth", "orders", "ApproximateNumberOfMessagesVisible", 1000, 5, ["events"], "Too deep.")
WANTED = Topology([Topic("events")], [QUEUE], [SUBSCRIPTION], [ALARM])

QUEUE_ATTRIBUTES = {
    "QueueArn": ORDERS,
    "ApproximateNumberOfMessages": "7",
    "DelaySeconds": "0",
    "MaximumMessageSize": "262144",
    "SqsManagedSseEnabled": "true",
    "VisibilityTimeout": "30",
    "MessageRetentionPeriod": "1209600",
    "ReceiveMessageWaitTimeSeconds": "20",
    "RedrivePolicy": json.dumps({"maxReceiveCount": "10", "deadLetterTargetArn": DEAD}),
    "Policy": json.dumps(POLICY),
}
SUBSCRIPTION_ATTRIBUTES = {
    "FilterPolicy": '{ "event_type" : [ "order.created" ] }',
    "FilterPolicyScope": "MessageAttributes",
    "RawMessageDelivery": "false",
}
ALARM_FOUND = {
    "AlarmName": "shop-orders-depth",
    "AlarmDescription": "Too deep.",
    "ActionsEnabled": True,
    "OKActions": [],
    "AlarmActions": [EVENTS],
    "Namespace": "AWS/SQS",
    "MetricName": "ApproximateNumberOfMessagesVisible",
    "Dimensions": [{"Value": "orders", "Name": "QueueName"}],
    "Statistic": "Maximum",
    "Period": 60,
    "EvaluationPeriods": 5,
    "Threshold": 1000.0,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
}


def found_queue(tags: Mapping[str, str] | None = None, **attributes: str) -> Found:
    return Found("https://sqs/orders", {**QUEUE_ATTRIBUTES, **attributes}, tags or {})


def found_subscription(arn: str = f"{EVENTS}:1", **attributes: str) -> FoundSubscription:
    return FoundSubscription(arn, "sqs", ORDERS, {**SUBSCRIPTION_ATTRIBUTES, **attributes})


def found_topic(**attributes: str) -> Found:
    return Found(EVENTS, {"TopicArn": EVENTS, "DisplayName": "", **attributes})


EVERYTHING = Existing(
    topics={EVENTS: found_topic()},
    queues={
        "orders": found_queue(),
        "orders-dlq": Found("https://sqs/orders-dlq", {"QueueArn": DEAD, "MessageRetentionPeriod": "1209600"}),
    },
    subscriptions={EVENTS: [found_subscription()]},
    alarms={"shop-orders-depth": ALARM_FOUND},
)


def with_queue(found: Found) -> Existing:
    return replace(EVERYTHING, queues={**EVERYTHING.queues, "orders": found})


def with_subscriptions(*found: FoundSubscription) -> Existing:
    return replace(EVERYTHING, subscriptions={EVENTS: found})


def with_dead_letters_encrypted() -> Existing:
    dead = EVERYTHING.queues["orders-dlq"]
    dead = replace(dead, attributes={**dead.attributes, "KmsMasterKeyId": "alias/ours"})
    return replace(EVERYTHING, queues={"orders": found_queue(KmsMasterKeyId="alias/theirs"), "orders-dlq": dead})


def changes(wanted: Topology, existing: Existing) -> list[Change]:
    return compare(wanted, existing, HERE).changes


def the_change(wanted: Topology, existing: Existing) -> Change:
    (change,) = changes(wanted, existing)
    return change


def parameters(change: Change) -> list[Any]:
    return [call.parameters for call in change.calls]


def test_where_everything_is_as_wanted_nothing_is_to_be_done() -> None:
    """JSON in another order, counts as text: what means the same is the same."""
    assert compare(WANTED, EVERYTHING, HERE).is_empty
    assert changes(WANTED, EVERYTHING) == []


def test_where_there_is_nothing_everything_is_made_in_an_order_that_works() -> None:
    plan = compare(WANTED, Existing(), HERE)
    assert [[str(change) for change in wave] for wave in plan.waves] == [
        ["create topic events"],
        ["create queue orders-dlq"],
        ["create queue orders"],
        ["create subscription events -> orders"],
        ["create alarm shop-orders-depth"],
    ]
    (queue,) = plan.waves[2]
    assert parameters(queue) == [
        {
            "QueueName": "orders",
            "Attributes": {
                "MessageRetentionPeriod": "1209600",
                "VisibilityTimeout": "30",
                "ReceiveMessageWaitTimeSeconds": "20",
                "RedrivePolicy": json.dumps({"deadLetterTargetArn": DEAD, "maxReceiveCount": 10}),
                "Policy": json.dumps(POLICY),
            },
            "tags": {},
        }
    ]
    (alarm,) = plan.waves[4]
    assert parameters(alarm)[0]["Dimensions"] == [{"Name": "QueueName", "Value": "orders"}]


def test_what_differs_is_shown_old_and_new_and_set_in_one_call() -> None:
    wanted = replace(WANTED, queues=[replace(QUEUE, visibility_timeout_seconds=60, max_receive_count=12)])
    change = the_change(wanted, EVERYTHING)
    assert str(change) == "change queue orders (VisibilityTimeout, RedrivePolicy)"
    assert change.differences[0] == Difference("VisibilityTimeout", "30", "60")
    assert str(change.differences[0]) == "VisibilityTimeout: 30 -> 60"
    ((call),) = parameters(change)
    assert call["QueueUrl"] == "https://sqs/orders"
    assert set(call["Attributes"]) == {"VisibilityTimeout", "RedrivePolicy"}


def test_a_net_that_is_given_up_on_purpose_is_taken_off() -> None:
    change = the_change(replace(WANTED, queues=[replace(QUEUE, dead_letter=None)]), EVERYTHING)
    assert [(difference.name, difference.new) for difference in change.differences] == [("RedrivePolicy", None)]
    assert parameters(change)[0]["Attributes"] == {"RedrivePolicy": ""}


def test_statements_of_others_are_shown_and_kept() -> None:
    """A policy is merged by statement id, never overwritten."""
    policy = json.dumps({"Version": "2008-10-17", "Statement": THEIRS})
    correction, shown = changes(WANTED, with_queue(found_queue(Policy=policy)))
    written = json.loads(parameters(correction)[0]["Attributes"]["Policy"])
    assert written == {"Version": "2008-10-17", "Statement": [THEIRS, STATEMENT]}
    assert [difference.name for difference in correction.differences] == [f"Policy.{STATEMENT['Sid']}"]
    assert (shown.action, [str(difference) for difference in shown.differences]) == (
        Action.FOREIGN,
        [f"Policy.Theirs: {json.dumps(THEIRS)}"],
    )
    assert shown.calls == ()


def test_a_statement_of_ours_that_was_changed_is_put_right() -> None:
    changed = {**STATEMENT, "Condition": {}}
    change = the_change(WANTED, with_queue(found_queue(Policy=json.dumps({**POLICY, "Statement": [changed]}))))
    (difference,) = change.differences
    assert (difference.old, difference.new) == (json.dumps(changed), json.dumps(STATEMENT))


def test_attributes_that_the_file_cannot_say_are_shown_and_kept() -> None:
    existing = with_queue(found_queue(DelaySeconds="60", KmsMasterKeyId="alias/theirs"))
    change = the_change(WANTED, existing)
    assert change == Change(
        Action.FOREIGN,
        "queue",
        "orders",
        (Difference("DelaySeconds", "60", "60"), Difference("KmsMasterKeyId", "alias/theirs", "alias/theirs")),
    )
    assert compare(WANTED, existing, HERE).is_empty


def test_of_a_queue_that_is_only_named_nothing_but_retention_and_policy_is_looked_after() -> None:
    """It is someone's dead-letter queue, and its visibility timeout may be meant."""
    dead = Found("https://sqs/orders-dlq", {"VisibilityTimeout": "5", "MessageRetentionPeriod": "345600"})
    existing = replace(EVERYTHING, queues={**EVERYTHING.queues, "orders-dlq": dead})
    assert the_change(WANTED, existing).differences == [Difference("MessageRetentionPeriod", "345600", "1209600")]


def test_what_cannot_be_changed_is_for_a_person_to_replace() -> None:
    wanted = Topology([Topic("e.fifo")], [Queue("o.fifo")])
    existing = Existing(
        topics={HERE.topic_arn("e.fifo"): Found("arn", {})},
        queues={"o.fifo": Found("url", {"FifoQueue": "false", "VisibilityTimeout": "1"})},
    )
    topic, queue = changes(wanted, existing)
    assert (topic.action, topic.differences) == (Action.REPLACE, [Difference("FifoTopic", "false", "true")])
    assert (queue.action, queue.differences) == (Action.REPLACE, [Difference("FifoQueue", "false", "true")])
    assert queue.note.startswith(
        "the queue o.fifo exists as a standard queue, but must be a FIFO one, which SQS cannot"
    )
    assert not topic.calls
    assert not queue.calls
    assert not compare(wanted, existing, HERE).is_empty


async def test_what_a_person_must_do_stops_everything_before_anything_is_done() -> None:
    """`apply` never deletes, and does not half of what the file says (X1)."""
    create = Change(Action.CREATE, "topic", "t", calls=[Call("sns", "create_topic", {}, "topic t")])
    replace_ = Change(Action.REPLACE, "queue", "q", note="the queue q exists")
    with pytest.raises(UsageError, match=r"^nothing was changed: the queue q exists$"):
        await carry_out(Plan([[create], [replace_]]), AwsClients())


def test_tags_are_added_and_others_kept() -> None:
    wanted = replace(WANTED, queues=[replace(QUEUE, tags={"team": "shop", "tier": "1"})])
    existing = with_queue(found_queue({"team": "mail", "tier": "1", "theirs": "x"}))
    existing = replace(
        existing,
        queues={
            **existing.queues,
            "orders-dlq": replace(EVERYTHING.queues["orders-dlq"], tags={"team": "shop", "tier": "1"}),
        },
    )
    change = the_change(wanted, existing)
    assert change.differences == [Difference("tag team", "mail", "shop")]
    assert parameters(change) == [{"QueueUrl": "https://sqs/orders", "Tags": {"team": "shop", "tier": "1"}}]


def test_a_tag_that_looks_like_json_is_text() -> None:
    queue = replace(QUEUE, tags={"odd": "{"}, dead_letter=None)
    found = found_queue({"odd": "{"}, RedrivePolicy="")
    assert compare(Topology(queues=[queue]), Existing(queues={"orders": found}), HERE).is_empty


def test_a_queue_is_encrypted_with_the_key_that_the_file_names() -> None:
    change = the_change(replace(WANTED, queues=[replace(QUEUE, kms_key="alias/ours")]), with_dead_letters_encrypted())
    assert change.differences == [Difference("KmsMasterKeyId", "alias/theirs", "alias/ours")]


def test_a_topic_is_encrypted_and_tagged_as_wanted() -> None:
    topic = Topic("events", kms_key="alias/ours", tags={"team": "shop"})
    change = the_change(replace(WANTED, topics=[topic]), EVERYTHING)
    assert [call.operation for call in change.calls] == ["set_topic_attributes", "tag_resource"]
    assert change.differences == [
        Difference("KmsMasterKeyId", None, "alias/ours"),
        Difference("tag team", None, "shop"),
    ]


def test_of_a_topic_too_what_others_wrote_is_shown() -> None:
    policy = json.dumps({"Statement": [{"Sid": "__default_statement_ID"}, THEIRS]})
    existing = replace(EVERYTHING, topics={EVENTS: found_topic(DisplayName="Shop", Policy=policy)})
    assert [difference.name for difference in the_change(WANTED, existing).differences] == [
        "DisplayName",
        "Policy.Theirs",
    ]


@pytest.mark.parametrize(
    ("subscription", "found", "calls"),
    [
        (replace(SUBSCRIPTION, raw=True), {}, [("RawMessageDelivery", "true")]),
        (replace(SUBSCRIPTION, filter_policy={"a": [1]}), {}, [("FilterPolicy", '{"a": [1]}')]),
        (replace(SUBSCRIPTION, filter_policy=None), {}, [("FilterPolicy", "{}")]),
        (
            replace(SUBSCRIPTION, filter_policy={"a": {"b": [1]}}, filter_scope="MessageBody"),
            {},
            [("FilterPolicy", "{}"), ("FilterPolicyScope", "MessageBody"), ("FilterPolicy", '{"a": {"b": [1]}}')],
        ),
        (
            SUBSCRIPTION,
            {"FilterPolicyScope": "MessageBody"},
            [
                ("FilterPolicy", "{}"),
                ("FilterPolicyScope", "MessageAttributes"),
                ("FilterPolicy", '{"event_type": ["order.created"]}'),
            ],
        ),
        (
            SUBSCRIPTION,
            {"FilterPolicyScope": "MessageBody", "FilterPolicy": ""},
            [("FilterPolicyScope", "MessageAttributes"), ("FilterPolicy", '{"event_type": ["order.created"]}')],
        ),
        (
            replace(SUBSCRIPTION, dead_letter="orders-dlq"),
            {},
            [("RedrivePolicy", json.dumps({"deadLetterTargetArn": DEAD}))],
        ),
        (SUBSCRIPTION, {"RedrivePolicy": '{"deadLetterTargetArn": "x"}'}, [("RedrivePolicy", "")]),
    ],
)
def test_a_subscription_is_changed_step_by_step(
    subscription: Subscription, found: dict[str, str], calls: list[tuple[str, str]]
) -> None:
    """Never with a policy that does not fit its scope, which SNS refuses, and never with one that keeps too much away."""
    existing = with_subscriptions(found_subscription(**found))
    change = next(
        each for each in changes(replace(WANTED, subscriptions=[subscription]), existing) if each.kind == "subscription"
    )
    assert [(each["AttributeName"], each["AttributeValue"]) for each in parameters(change)] == calls


def test_true_and_1_are_not_the_same_in_a_filter() -> None:
    wanted = replace(WANTED, subscriptions=[replace(SUBSCRIPTION, filter_policy={"a": [True]})])
    assert the_change(wanted, with_subscriptions(found_subscription(FilterPolicy='{"a": [1]}'))).action is Action.CHANGE


def test_subscriptions_of_others_are_shown_and_kept() -> None:
    mail = FoundSubscription(f"{EVENTS}:2", "email", "ops@example.org")
    change = the_change(WANTED, with_subscriptions(found_subscription(), mail))
    assert (change.action, change.name) == (Action.FOREIGN, "events -> ops@example.org")


def test_a_subscription_that_waits_for_its_confirmation_is_shown_and_left() -> None:
    change = the_change(WANTED, with_subscriptions(found_subscription("PendingConfirmation")))
    assert (change.action, change.differences[0].name) == (Action.FOREIGN, "waits for its confirmation")


def test_an_alarm_is_written_whole_and_what_others_added_is_kept() -> None:
    """PutMetricAlarm replaces everything."""
    found = {**ALARM_FOUND, "Threshold": 5.0, "OKActions": ["arn:theirs"], "ActionsEnabled": False}
    correction, shown = changes(WANTED, replace(EVERYTHING, alarms={ALARM.name: found}))
    assert correction.differences == [Difference("Threshold", "5", "1000")]
    (call,) = parameters(correction)
    assert (call["Threshold"], call["OKActions"], call["ActionsEnabled"]) == (1000.0, ["arn:theirs"], False)
    assert [difference.name for difference in shown.differences] == ["ActionsEnabled", "OKActions"]


def test_an_alarm_that_watches_no_queue_is_put_right() -> None:
    """Without its dimension an alarm on AWS/SQS never rings."""
    change = the_change(WANTED, replace(EVERYTHING, alarms={ALARM.name: {**ALARM_FOUND, "Dimensions": []}}))
    assert [difference.name for difference in change.differences] == ["Dimensions"]


def test_a_composite_alarm_of_the_same_name_is_for_a_person_to_replace() -> None:
    change = the_change(WANTED, replace(EVERYTHING, alarms={ALARM.name: {"AlarmName": ALARM.name, "AlarmRule": "x"}}))
    assert change.action is Action.REPLACE
    assert change.note.startswith("the alarm shop-orders-depth exists as a composite alarm")


def test_a_topic_that_neither_exists_nor_is_made_is_refused() -> None:
    with pytest.raises(
        UsageError, match="the topic gone, which orders subscribes to, does not exist, and it is external"
    ):
        changes(replace(WANTED, subscriptions=[replace(SUBSCRIPTION, topic="gone")]), EVERYTHING)
    with pytest.raises(
        UsageError, match="the topic gone, which the alarm shop-orders-depth is to tell, does not exist"
    ):
        changes(replace(WANTED, alarms=[replace(ALARM, topics=["gone"])]), EVERYTHING)
    theirs = "arn:aws:sns:us-east-1:999999999999:pages"
    assert changes(replace(WANTED, alarms=[replace(ALARM, topics=[theirs])]), EVERYTHING)[0].action is Action.CHANGE


def test_what_lies_elsewhere_is_refused() -> None:
    """Another account's queue cannot be made or changed; another region's neither."""
    with pytest.raises(
        UsageError, match=r"arn:.*:999999999999:q lies in the account 999999999999, but the credentials"
    ):
        HERE.check("arn:aws:sqs:us-east-1:999999999999:q")
    with pytest.raises(UsageError, match="lies in the region eu-west-1"):
        HERE.check("arn:aws:sns:eu-west-1:123456789012:t")
    HERE.check("https://sqs.us-east-1.amazonaws.com/123456789012/q")
    HERE.check(EVENTS)
    assert HERE.has(EVENTS)
    assert not HERE.has("arn:aws:sns:us-east-1:999999999999:events")


def test_a_call_names_the_permission_that_it_needs() -> None:
    assert Call("sqs", "get_queue_url", {}, "queue q").permission == "sqs:GetQueueUrl"
