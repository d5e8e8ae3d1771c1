"""Rules of `worker.topology.wanted`."""

from typing import Any

import pytest

from worker.errors import ConfigError
from worker.settings.fleet import FleetSettings
from worker.topology import Alarm, Queue, Subscription, Topic, Topology, wanted_by

EVENTS = "arn:aws:sns:us-east-1:123456789012:events"
PAGES = "arn:aws:sns:us-east-1:123456789012:pages"


def fleet(**document: Any) -> FleetSettings:
    return FleetSettings.model_validate(document)


def subscribed(*subscriptions: dict[str, Any]) -> FleetSettings:
    return fleet(topics={"t": {}}, queues={"q": {"handlers": "a:b", "subscribe": list(subscriptions)}})


def test_a_fleet_wants_its_topics_queues_nets_and_subscriptions() -> None:
    """The net behind `attempts` leaves seven receives to drains and lapses (S4)."""
    wanted = wanted_by(
        fleet(
            topics={"order-events": {"tags": {"a": "b"}, "kms_key": "alias/x"}},
            queues={
                "orders": {
                    "handlers": "a:b",
                    "attempts": 4,
                    "visibility_timeout_seconds": 60,
                    "subscribe": [{"topic": "order-events", "raw": True, "filter": {"event_type": ["a"]}}],
                }
            },
        )
    )
    assert wanted == Topology(
        topics=(Topic("order-events", "alias/x", {"a": "b"}),),
        queues=(
            Queue(
                "orders",
                visibility_timeout_seconds=60,
                dead_letter="orders-dlq",
                max_receive_count=11,
            ),
        ),
        subscriptions=(Subscription("order-events", "orders", raw=True, filter_policy={"event_type": ["a"]}),),
    )


def test_what_is_external_is_left_alone_but_may_be_subscribed_to() -> None:
    wanted = wanted_by(
        fleet(
            topics={EVENTS: {"external": True}},
            queues={
                "ours": {"handlers": "a:b", "dead_letter": "none", "subscribe": [{"topic": "events"}]},
                "theirs": {"handlers": "a:b", "external": True, "alarms": ["pages"]},
            },
        )
    )
    assert wanted.topics == ()
    assert [(queue.name, queue.dead_letter) for queue in wanted.queues] == [("ours", None)]
    assert wanted.subscriptions == (Subscription(EVENTS, "ours"),)
    assert wanted.alarms == ()


def test_names_arns_and_urls_are_accepted() -> None:
    url = "https://sqs.us-east-1.amazonaws.com/123456789012/by-url"
    arn = "arn:aws:sqs:us-east-1:123456789012:by-arn"
    dead = {"queue": "https://sqs.us-east-1.amazonaws.com/123456789012/dead"}
    wanted = wanted_by(
        fleet(
            topics={EVENTS: {}},
            queues={
                url: {
                    "handlers": "a:b",
                    "dead_letter": dead,
                    "subscribe": [{"topic": EVENTS, "dead_letter": arn + "-u"}],
                },
                arn: {"handlers": "a:b"},
            },
        )
    )
    assert [topic.name for topic in wanted.topics] == ["events"]
    assert [(queue.name, queue.dead_letter) for queue in wanted.queues] == [
        ("by-url", "dead"),
        ("by-arn", "by-arn-dlq"),
    ]
    assert wanted.addresses == (EVENTS, url, dead["queue"], arn + "-u", arn)
    assert wanted.subscriptions == (Subscription(EVENTS, "by-url", dead_letter="by-arn-u"),)


def test_whoever_is_to_be_told_is_told_of_depth_age_and_dead_letters() -> None:
    """The three to watch, each with its queue's dimension (M1, M5)."""
    wanted = wanted_by(
        fleet(
            service="shop",
            queues={
                "orders": {
                    "handlers": "a:b",
                    "attempts": 4,
                    "retry": {"base_seconds": 5, "max_seconds": 18},
                    "alarms": ["pages"],
                }
            },
        )
    )
    assert [(alarm.name, alarm.queue, alarm.metric, alarm.threshold, alarm.minutes) for alarm in wanted.alarms] == [
        ("shop-orders-depth", "orders", "ApproximateNumberOfMessagesVisible", 1000, 5),
        ("shop-orders-age", "orders", "ApproximateAgeOfOldestMessage", 900 + 5 + 10 + 18, 5),
        ("shop-orders-dlq-visible", "orders-dlq", "ApproximateNumberOfMessagesVisible", 0, 1),
    ]
    assert {alarm.topics for alarm in wanted.alarms} == {("pages",)}


def test_queues_that_share_a_dead_letter_queue_share_its_alarm() -> None:
    shared = {"handlers": "a:b", "dead_letter": {"queue": "dead"}}
    wanted = wanted_by(
        fleet(queues={"a": {**shared, "alarms": ["pages"]}, "b": {**shared, "alarms": ["pages", PAGES]}, "c": shared})
    )
    dead = [alarm for alarm in wanted.alarms if alarm.queue == "dead"]
    assert [alarm.topics for alarm in dead] == [("pages", PAGES)]
    assert len(wanted.alarms) == 5


def test_a_queue_that_dead_letters_nothing_has_no_alarm_for_it() -> None:
    wanted = wanted_by(fleet(queues={"a": {"handlers": "a:b", "dead_letter": "none", "alarms": ["pages"]}}))
    assert [alarm.name for alarm in wanted.alarms] == ["longshore-a-depth", "longshore-a-age"]
    assert all(isinstance(alarm, Alarm) for alarm in wanted.alarms)


@pytest.mark.parametrize(
    ("subscriptions", "sentence"),
    [
        (
            [{"topic": "t", "filter": {"a": [{"starts-with": "x"}]}}],
            r"queues\.q\.subscribe\.0\.filter: a\.0 has the operator starts-with, but SNS knows anything-but, cidr, .*",
        ),
        (
            [{"topic": "t", "filter": {f"k{n}": ["x"] for n in range(6)}}],
            r"queues\.q\.subscribe\.0\.filter: the filter has 6 keys, but SNS takes at most 5",
        ),
        (
            [{"topic": "t"}, {"topic": "t", "filter": {"a": ["x"]}}],
            r"queues\.q\.subscribe\.1\.topic is t again, but SNS keeps one subscription of a queue to a topic: .*",
        ),
    ],
)
def test_what_sns_would_refuse_is_refused_before_it_is_asked(
    subscriptions: list[dict[str, Any]], sentence: str
) -> None:
    """One sentence that names the key, what was found and what is allowed (X1)."""
    with pytest.raises(ConfigError, match=f"^{sentence}$"):
        wanted_by(subscribed(*subscriptions))


def test_a_filter_is_checked_in_its_scope() -> None:
    nested = {"topic": "t", "filter": {"a": {"b": ["x"]}}, "filter_scope": "MessageBody"}
    assert wanted_by(subscribed(nested)).subscriptions[0].filter_scope == "MessageBody"
