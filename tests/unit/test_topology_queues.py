"""Rules of `worker.topology.queues` that need no server."""

from typing import Any

from worker.topology.queues import merge_statements, statement_for

QUEUE = "arn:aws:sqs:us-east-1:123456789012:orders"
TOPIC = "arn:aws:sns:us-east-1:123456789012:order-events"
THEIRS: dict[str, Any] = {"Sid": "Theirs", "Effect": "Deny"}


def test_a_statement_allows_one_topic_and_names_itself() -> None:
    statement = statement_for(TOPIC, QUEUE)
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": TOPIC}}
    assert statement["Sid"].startswith("LongshoreOrderEvents")
    assert statement["Sid"].isalnum()


def test_topics_that_differ_in_punctuation_have_statements_of_their_own() -> None:
    assert statement_for(TOPIC, QUEUE)["Sid"] != statement_for(TOPIC.replace("-events", "_events"), QUEUE)["Sid"]


def test_merging_replaces_ours_in_place_and_keeps_the_others() -> None:
    ours = statement_for(TOPIC, QUEUE)
    nameless = {"Effect": "Allow"}
    policy = {"Version": "2008-10-17", "Id": "x", "Statement": [THEIRS, {**ours, "Action": "sqs:*"}, nameless]}
    merged = merge_statements(policy, [ours])
    assert merged == {"Version": "2008-10-17", "Id": "x", "Statement": [THEIRS, ours, nameless]}
    assert merge_statements(merged, [ours]) == merged


def test_merging_into_nothing_or_into_a_single_bare_statement() -> None:
    ours = statement_for(TOPIC, QUEUE)
    assert merge_statements({}, [ours]) == {"Version": "2012-10-17", "Statement": [ours]}
    assert merge_statements({"Statement": THEIRS}, [ours])["Statement"] == [THEIRS, ours]
