"""Subscriptions: what one is to have, and how far AWS is from it."""

import json
from collections.abc import Iterator, Mapping, Sequence

from worker.topology.attributes import differences, foreign
from worker.topology.change import Action, Call, Change, Difference
from worker.topology.desired import Subscription
from worker.topology.existing import FoundSubscription
from worker.topology.place import Place

__all__ = ["foreign_subscriptions", "subscription_changes"]

_DEFAULTS = {"FilterPolicyScope": "MessageAttributes", "RawMessageDelivery": "false"}
"""What SNS leaves out where nobody has set it."""
_LEFT_ALONE = ("DeliveryPolicy", "ReplayPolicy")
_NO_FILTER = "{}"
"""SNS knows no other way to remove one."""


def subscription_changes(
    subscription: Subscription, found: Sequence[FoundSubscription], place: Place
) -> Iterator[Change]:
    """Yield what is to be done so that the queue is subscribed as wanted; `found` is all that the topic has."""
    name = f"{subscription.topic} -> {subscription.queue}"
    endpoint = place.queue_arn(subscription.queue)
    wanted = _attributes(subscription, place)
    ours = next((each for each in found if each.protocol == "sqs" and each.endpoint == endpoint), None)
    if ours is None:
        yield _creation(name, place.topic_arn(subscription.topic), endpoint, wanted)
    elif not ours.is_confirmed:
        yield from foreign("subscription", name, [("waits for its confirmation", "SNS shows no attributes before")])
    else:
        yield from _correction(name, wanted, ours)
        left_alone = [(each, ours.attributes[each]) for each in _LEFT_ALONE if ours.attributes.get(each)]
        yield from foreign("subscription", name, left_alone)


def foreign_subscriptions(topic: str, wanted: frozenset[str], found: Sequence[FoundSubscription]) -> Iterator[Change]:
    """Yield those of a topic of the fleet whose endpoints are not `wanted` by it."""
    for each in found:
        if each.endpoint not in wanted:
            yield from foreign("subscription", f"{topic} -> {each.endpoint}", [("Protocol", each.protocol)])


def _attributes(subscription: Subscription, place: Place) -> dict[str, str | None]:
    """Write what SNS is to have; the scope comes first, the policy is checked against it."""
    attributes: dict[str, str | None] = {"RawMessageDelivery": str(subscription.raw).lower()}
    policy = subscription.filter_policy
    if policy is not None:
        attributes["FilterPolicyScope"] = subscription.filter_scope
    attributes["FilterPolicy"] = None if policy is None else json.dumps(policy)
    behind = subscription.dead_letter
    attributes["RedrivePolicy"] = behind and json.dumps({"deadLetterTargetArn": place.queue_arn(behind)})
    return attributes


def _creation(name: str, topic: str, endpoint: str, wanted: Mapping[str, str | None]) -> Change:
    attributes = {key: value for key, value in wanted.items() if value is not None}
    parameters = {
        "TopicArn": topic,
        "Protocol": "sqs",
        "Endpoint": endpoint,
        "Attributes": attributes,
        "ReturnSubscriptionArn": True,
    }
    call = Call("sns", "subscribe", parameters, f"subscription {name}")
    return Change(Action.CREATE, "subscription", name, differences(attributes, {}), calls=[call])


def _correction(name: str, wanted: Mapping[str, str | None], found: FoundSubscription) -> Iterator[Change]:
    differing = differences(wanted, {**_DEFAULTS, **found.attributes})
    if differing:
        calls = [
            Call(
                "sns",
                "set_subscription_attributes",
                {"SubscriptionArn": found.arn, "AttributeName": key, "AttributeValue": value},
                f"subscription {name}",
            )
            for key, value in _steps(differing, wanted, found)
        ]
        yield Change(Action.CHANGE, "subscription", name, differing, calls=calls)


def _steps(
    differing: Sequence[Difference], wanted: Mapping[str, str | None], found: FoundSubscription
) -> Iterator[tuple[str, str]]:
    """Yield attributes in an order that SNS takes and that loses no message.

    A policy must fit its scope before and after each step, so the old one is taken off before the scope changes:
    for a moment too much is delivered, which is better than too little.
    """
    names = {difference.name for difference in differing}
    if "FilterPolicyScope" in names:
        if found.attributes.get("FilterPolicy"):
            yield "FilterPolicy", _NO_FILTER
        names.add("FilterPolicy")
    for name in wanted:
        if name in names:
            yield name, wanted[name] or (_NO_FILTER if name == "FilterPolicy" else "")
