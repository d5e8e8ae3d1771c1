"""Rules of `worker.topology.desired`."""

from typing import Any

from worker.settings.fleet import FleetSettings
from worker.topology import Queue, Subscription, Topic, Topology, wanted_by

EVENTS = "arn:aws:sns:us-east-1:123456789012:events"


def fleet(**document: Any) -> FleetSettings:
    return FleetSettings.model_validate(document)


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
        queues=(Queue("orders", visibility_timeout_seconds=60, dead_letter="orders-dlq", max_receive_count=11),),
        subscriptions=(Subscription("order-events", "orders", raw=True, filter_policy={"event_type": ["a"]}),),
    )


def test_what_is_external_is_left_alone_but_may_be_subscribed_to() -> None:
    wanted = wanted_by(
        fleet(
            topics={EVENTS: {"external": True}},
            queues={
                "ours": {"handlers": "a:b", "dead_letter": "none", "subscribe": [{"topic": "events"}]},
                "theirs": {"handlers": "a:b", "external": True},
            },
        )
    )
    assert wanted.topics == ()
    assert [(queue.name, queue.dead_letter) for queue in wanted.queues] == [("ours", None)]
    assert wanted.subscriptions == (Subscription(EVENTS, "ours"),)
