"""Rules of `worker.topology.policies`."""

from typing import Any

import pytest

from worker.errors import UsageError
from worker.topology.policies import check_size, merged, statement_for

QUEUE = "arn:aws:sqs:us-east-1:123456789012:orders"
TOPIC = "arn:aws:sns:us-east-1:123456789012:order-events"
THEIRS: dict[str, Any] = {"Sid": "Theirs", "Effect": "Deny"}


def test_a_statement_allows_one_topic_and_names_itself() -> None:
    statement = statement_for(TOPIC, QUEUE)
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": TOPIC}}
    assert statement["Sid"].startswith("LongshoreOrderEvents")
    assert statement["Sid"].isalnum()


@pytest.mark.parametrize("name", ["order_events", "order-events.fifo", "orderEvents"])
def test_topics_that_differ_in_punctuation_have_statements_of_their_own(name: str) -> None:
    assert statement_for(TOPIC, QUEUE)["Sid"] != statement_for(TOPIC.replace("order-events", name), QUEUE)["Sid"]


def test_the_id_is_the_same_in_every_place_where_topic_and_queue_lie_together() -> None:
    """So that exports write it without knowing the place."""
    elsewhere = [arn.replace("us-east-1:123456789012", "eu-west-1:999999999999") for arn in (TOPIC, QUEUE)]
    assert statement_for(TOPIC, QUEUE)["Sid"] == statement_for(*elsewhere)["Sid"] == "LongshoreOrderEvents684dc626"


def test_topics_of_one_name_in_several_places_have_statements_of_their_own() -> None:
    places = ["us-east-1:123456789012", "us-east-1:999999999999", "us-east-1:999999999998", "eu-west-1:123456789012"]
    assert len({statement_for(f"arn:aws:sns:{place}:order-events", QUEUE)["Sid"] for place in places}) == 4


def test_merging_replaces_ours_in_place_and_keeps_the_others() -> None:
    ours = statement_for(TOPIC, QUEUE)
    nameless = {"Effect": "Allow"}
    policy = {"Version": "2008-10-17", "Id": "x", "Statement": [THEIRS, {**ours, "Action": "sqs:*"}, nameless]}
    result = merged(policy, [ours])
    assert result == {"Version": "2008-10-17", "Id": "x", "Statement": [THEIRS, ours, nameless]}
    assert merged(result, [ours]) == result


def test_merging_into_nothing_or_into_a_single_bare_statement() -> None:
    ours = statement_for(TOPIC, QUEUE)
    assert merged({}, [ours]) == {"Version": "2012-10-17", "Statement": [ours]}
    assert merged({"Statement": THEIRS}, [ours])["Statement"] == [THEIRS, ours]


def test_a_policy_that_sqs_would_refuse_is_refused() -> None:
    """Before anything is changed (X1)."""
    check_size("orders", merged({}, [statement_for(f"{TOPIC}{n}", QUEUE) for n in range(20)]))
    with pytest.raises(UsageError, match=r"the policy of the queue orders would have 21 statements in .* at most 20"):
        check_size("orders", merged({}, [statement_for(f"{TOPIC}{n}", QUEUE) for n in range(21)]))
    with pytest.raises(UsageError, match=r"1 statements in 9.* bytes"):
        check_size("orders", {"Statement": {"Sid": "x" * 9000}})
