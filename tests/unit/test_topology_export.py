"""Exports of the wanted topology: names that last, references in place of what others own, sentences for what cannot be."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import UsageError
from worker.topology import Alarm, Queue, Subscription, Topic, Topology
from worker.topology.export import cloudformation, place_in, terraform
from worker.topology.export.hcl import Expression, attributes, json_of, quoted
from worker.topology.export.labels import joined, words
from worker.topology.policies import statement_for

HERE = place_in("eu-west-1", "123456789012")
THEIRS = "arn:aws:sns:eu-west-1:999999999999:payments"
TOPOLOGY = Topology(
    topics=[Topic("events"), Topic("ledger.fifo")],
    queues=[
        Queue("orders", dead_letter="orders-dlq", max_receive_count=7, tags={"team": "shop"}),
        Queue("mail", kms_key="alias/mail"),
        Queue("books.fifo"),
    ],
    subscriptions=[
        Subscription("events", "orders", filter_policy={"a": ["b"]}, dead_letter="lost"),
        Subscription("events", "mail", raw=True),
        Subscription("refunds", "mail"),
        Subscription(THEIRS, "orders"),
        Subscription("ledger.fifo", "books.fifo"),
    ],
    alarms=[Alarm("orders-depth", "orders", "ApproximateNumberOfMessagesVisible", 5, topics=["events", "pages"])],
)
Resources = Mapping[str, Any]


def resources(topology: Topology = TOPOLOGY, **options: Any) -> Resources:
    found: Resources = cloudformation(topology, **options)["Resources"]
    return found


names = st.from_regex(r"[A-Za-z0-9_-]{1,12}(\.fifo)?", fullmatch=True)


@given(st.sets(names | st.sampled_from(["a-b", "a_b", "A-B", "ab", "a--b", "a-fifo", "a.fifo", "from", "a1b", "a-1b"])))
def test_no_two_names_share_a_label(found: set[str]) -> None:
    """In neither of the ways that words are joined."""
    assert len({joined(words(name)) for name in found}) == len(found)
    assert len({"_".join(words(name)).lower() for name in found}) == len(found)


@pytest.mark.parametrize(
    ("name", "label"),
    [("order-events", "OrderEvents"), ("orders.fifo", "OrdersFifo"), ("orders-fifo", "OrdersFifoF0708fb8")],
)
def test_a_label_follows_from_the_name_alone(name: str, label: str) -> None:
    assert joined(words(name)) == label


def test_labels_stay_as_short_as_cloudformation_takes() -> None:
    topology = Topology([Topic("t" * 256)], [Queue("q" * 80)], [Subscription("t" * 256, "q" * 80)])
    assert max(map(len, resources(topology))) < 255


def test_what_is_external_is_referred_to_and_not_made() -> None:
    """A name is one in the stack's own account and region; an ARN is taken as it is."""
    found = resources()
    topics = [each["Properties"]["TopicName"] for each in found.values() if each["Type"] == "AWS::SNS::Topic"]
    assert topics == ["events", "ledger.fifo"]
    name = {"Fn::Sub": "arn:${AWS::Partition}:sns:${AWS::Region}:${AWS::AccountId}:refunds"}
    assert found["MailFromRefundsSubscription"]["Properties"]["TopicArn"] == name
    assert found["OrdersFromPaymentsSubscription"]["Properties"]["TopicArn"] == THEIRS
    text = terraform(TOPOLOGY)
    assert 'data "aws_sns_topic" "refunds"' in text
    assert 'data "aws_sns_topic" "pages"' in text
    assert text.count('data "aws_sns_topic"') == 2
    assert f'topic_arn            = "{THEIRS}"' in text


def test_an_own_topic_is_known_by_its_arn_where_an_own_arn_tells_the_account() -> None:
    arn = HERE.topic_arn("events")
    topology = Topology([Topic("events")], [Queue("mail")], [Subscription(arn, "mail")])
    assert resources(topology)["MailFromEventsSubscription"]["Properties"]["TopicArn"] == arn
    for address in (arn, HERE.queue_arn("mail")):
        found = resources(replace(topology, addresses=[address]))
        assert found["MailFromEventsSubscription"]["Properties"]["TopicArn"] == {"Ref": "EventsTopic"}
    elsewhere = replace(topology, addresses=[HERE.queue_arn("mail").replace("eu-west-1", "eu-west-2")])
    assert resources(elsewhere) == resources(topology)


@pytest.mark.parametrize(
    ("topic", "addresses", "written_by_apply"),
    [
        ("events", [], HERE.topic_arn("events")),
        ("ledger.fifo", [], HERE.topic_arn("ledger.fifo")),
        ("refunds", [], HERE.topic_arn("refunds")),
        (THEIRS, [], THEIRS),
        (HERE.topic_arn("refunds"), [HERE.queue_arn("orders")], HERE.topic_arn("refunds")),
    ],
    ids=["own", "FIFO", "external by name", "external by ARN", "external by ARN in the fleet's own account"],
)
def test_the_ids_of_statements_are_those_that_apply_writes(
    topic: str, addresses: list[str], written_by_apply: str
) -> None:
    """Though the account is not known."""
    topology = Topology(TOPOLOGY.topics, [Queue("orders")], [Subscription(topic, "orders")], addresses=addresses)
    wanted = statement_for(written_by_apply, HERE.queue_arn("orders"))["Sid"]
    for options in ({}, {"one_policy": True}):
        (statement,) = resources(topology, **options)["OrdersQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
        assert statement["Sid"] == wanted
    assert re.findall(r'"Sid" += "(\w+)"', terraform(topology)) == [wanted]


def test_a_subscription_waits_for_the_policies_that_let_it_deliver() -> None:
    assert resources()["OrdersFromEventsSubscription"]["DependsOn"] == ["LostQueuePolicy", "OrdersQueuePolicy"]
    assert "depends_on = [aws_sqs_queue_policy.orders, aws_sqs_queue_policy.lost]" in terraform(TOPOLOGY)


def test_a_policy_lets_in_only_the_topics_that_are_subscribed_to() -> None:
    (statement,) = resources()["LostQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Resource"] == {"Fn::GetAtt": ["LostQueue", "Arn"]}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Ref": "EventsTopic"}}}
    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}


def test_one_policy_is_shared_only_by_queues_of_the_same_topics() -> None:
    """Else it would let a topic into a queue that is not subscribed to it."""
    fan = Topology(
        [Topic("events"), Topic("other")],
        [Queue("a"), Queue("b"), Queue("c")],
        [*(Subscription("events", queue) for queue in "abc"), Subscription("other", "c")],
    )
    found = [each["Properties"] for each in resources(fan, one_policy=True).values() if "Policy" in each["Type"]]
    assert [[queue["Ref"] for queue in each["Queues"]] for each in found] == [["AQueue", "BQueue"], ["CQueue"]]
    assert [each["PolicyDocument"]["Statement"][0]["Resource"] for each in found] == [
        "*",
        {"Fn::GetAtt": ["CQueue", "Arn"]},
    ]
    assert resources(fan, one_policy=True)["BFromEventsSubscription"]["DependsOn"] == ["AQueuePolicy"]


def test_a_topology_without_anything_of_its_own_is_refused() -> None:
    for export in (cloudformation, terraform):
        with pytest.raises(UsageError, match=r"^there is nothing to export: every topic and queue"):
            export(Topology())


def test_more_than_cloudformation_takes_is_refused() -> None:
    queues = [Queue(f"q{number}") for number in range(501)]
    with pytest.raises(
        UsageError, match=r"^the template would have 501 resources, but CloudFormation takes at most 500"
    ):
        cloudformation(Topology(queues=queues))


def test_more_topics_than_a_policy_takes_are_refused() -> None:
    topics = [f"t{number}" for number in range(21)]
    topology = Topology([*map(Topic, topics)], [Queue("q")], [Subscription(topic, "q") for topic in topics])
    for export in (cloudformation, terraform):
        with pytest.raises(UsageError, match=r"^the policy of the queue q would have 21 statements"):
            export(topology)


@pytest.mark.parametrize(
    ("region", "account", "sentence"),
    [
        ("nowhere", "123456789012", "the region 'nowhere' must be one of AWS"),
        ("us-east-1", "12345", "the account '12345' must be twelve digits"),
    ],
)
def test_a_place_that_cannot_be_is_refused(region: str, account: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=rf"^{sentence}"):
        place_in(region, account)


@pytest.mark.parametrize(
    ("region", "partition"), [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_the_partition_follows_from_the_region(region: str, partition: str) -> None:
    assert place_in(region, "123456789012").partition == partition


def test_nothing_in_a_string_is_computed() -> None:
    """Neither by Terraform's templates nor by its escapes."""
    assert quoted('a "b" \\ ${c} %{d} \n\x01 é') == '"a \\"b\\" \\\\ $${c} %%{d} \\n\\u0001 é"'


def test_signs_of_neighbours_stand_in_one_column() -> None:
    lines = attributes({"a": 1, "long": True, "policy": json_of({"x": [1, {"y": Expression("z.arn")}]}), "b": 0.5})
    assert lines == [
        "a    = 1",
        "long = true",
        "policy = jsonencode({",
        '  "x" = [',
        "    1,",
        "    {",
        '      "y" = z.arn',
        "    },",
        "  ]",
        "})",
        "b = 0.5",
    ]


def test_an_empty_value_stands_on_one_line() -> None:
    assert attributes({"a": {}, "b": [], "c": None, "d": json_of([])}) == [
        "a = {}",
        "b = []",
        "c = null",
        "d = jsonencode([])",
    ]


def test_the_same_topology_gives_the_same_text() -> None:
    assert json.dumps(cloudformation(TOPOLOGY)) == json.dumps(cloudformation(TOPOLOGY))
    assert terraform(TOPOLOGY) == terraform(TOPOLOGY)
