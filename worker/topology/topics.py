"""Topics and their subscriptions."""

import json
from collections.abc import Mapping
from typing import Any

from worker.aws.session import AwsClients
from worker.aws.sns import topic_arn
from worker.errors import Fault, SourceError
from worker.topology.change import Change
from worker.topology.desired import Subscription, Topic

__all__ = ["ensure_subscription", "ensure_topic"]


async def ensure_topic(clients: AwsClients, topic: Topic) -> list[Change]:
    """Make the topic unless it is there."""
    arn = await topic_arn(clients, topic.name)
    wanted = {} if topic.kms_key is None else {"KmsMasterKeyId": topic.kms_key}
    try:
        answer = await clients.sns.call("get_topic_attributes", TopicArn=arn)
    except SourceError as error:
        if error.fault is not Fault.MISSING:
            raise
        creation = {**wanted, "FifoTopic": "true"} if topic.name.endswith(".fifo") else wanted
        tags = [{"Key": key, "Value": value} for key, value in topic.tags.items()]
        await clients.sns.call("create_topic", Name=topic.name, Attributes=creation, Tags=tags)
        return [Change("create", "topic", topic.name)]
    found = answer["Attributes"]
    differing = {name: value for name, value in wanted.items() if found.get(name) != value}
    for name, value in differing.items():
        await clients.sns.call("set_topic_attributes", TopicArn=arn, AttributeName=name, AttributeValue=value)
    return [Change("update", "topic", topic.name, ", ".join(differing))] if differing else []


async def ensure_subscription(clients: AwsClients, subscription: Subscription, arns: Mapping[str, str]) -> list[Change]:
    """Subscribe the queue to the topic, or correct delivery form, filter and dead letters; `arns` knows the queues."""
    queue = arns[subscription.queue]
    topic = await topic_arn(clients, subscription.topic)
    name = f"{subscription.topic} -> {subscription.queue}"
    wanted = _attributes(subscription, arns)
    arn = await _find(clients, topic, queue)
    if arn is None:
        await clients.sns.call(
            "subscribe", TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=wanted, ReturnSubscriptionArn=True
        )
        return [Change("create", "subscription", name)]
    if not arn.startswith("arn:"):  # another account's topic: it waits for a confirmation, and shows nothing before
        return []
    answer = await clients.sns.call("get_subscription_attributes", SubscriptionArn=arn)
    found = answer["Attributes"]
    if subscription.filter_policy is None and found.get("FilterPolicy"):
        wanted["FilterPolicy"] = "{}"  # SNS knows no other way to remove it
    differing = [key for key, value in wanted.items() if not _is_same(key, found.get(key), value)]
    for key in differing:  # the scope stands before the policy, which is checked against it
        await clients.sns.call(
            "set_subscription_attributes", SubscriptionArn=arn, AttributeName=key, AttributeValue=wanted[key]
        )
    return [Change("update", "subscription", name, ", ".join(differing))] if differing else []


def _attributes(subscription: Subscription, arns: Mapping[str, str]) -> dict[str, str]:
    attributes = {"RawMessageDelivery": "true" if subscription.raw else "false"}
    if subscription.filter_policy is not None:
        attributes["FilterPolicyScope"] = subscription.filter_scope
        attributes["FilterPolicy"] = json.dumps(subscription.filter_policy)
    if subscription.dead_letter is not None:
        attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": arns[subscription.dead_letter]})
    return attributes


_DEFAULTS = {
    "FilterPolicy": "{}",
    "FilterPolicyScope": "MessageAttributes",
    "RawMessageDelivery": "false",
    "RedrivePolicy": "{}",
}


def _is_same(key: str, found: str | None, wanted: str) -> bool:
    found = found or _DEFAULTS[key]
    return bool(json.loads(found) == json.loads(wanted)) if key.endswith("Policy") else found == wanted


async def _find(clients: AwsClients, topic: str, queue: str) -> str | None:
    """Return the ARN of the queue's subscription to the topic."""
    parameters: dict[str, Any] = {"TopicArn": topic}
    while True:
        page = await clients.sns.call("list_subscriptions_by_topic", **parameters)
        for found in page.get("Subscriptions", ()):
            if found["Protocol"] == "sqs" and found["Endpoint"] == queue:
                return str(found["SubscriptionArn"])
        if not page.get("NextToken"):
            return None
        parameters["NextToken"] = page["NextToken"]
