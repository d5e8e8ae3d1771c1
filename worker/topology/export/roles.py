"""What each role of a fleet may do: IAM policies with nothing to spare."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from worker.errors import UsageError
from worker.settings.fleet import FleetSettings
from worker.topology.export.grants import Grant, document
from worker.topology.export.keys import Keys
from worker.topology.export.reach import Reach
from worker.topology.place import Place
from worker.topology.wanted import marks_tables, wanted_by

__all__ = ["Role", "policies", "policy"]


class Role(StrEnum):
    """Who does something to the resources of a fleet."""

    CONSUMER = "consumer"
    """`longshore run`."""
    PUBLISHER = "publisher"
    """Publishes to the fleet's own topics."""
    SCALER = "scaler"
    """Reads how deep the queues are, as KEDA does."""
    REDRIVER = "redriver"
    """Brings dead letters back into their queues."""
    PROVISIONER = "provisioner"
    """`longshore topology plan` and `apply`."""


def policy(
    role: Role, fleet: FleetSettings, place: Place, *, queues: Iterable[str] = (), keys: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the policy of one role; `queues` names those that it is for, else all of the fleet.

    `keys` tells the id or ARN of the KMS key behind each alias that the fleet file names. Raises `UsageError` where
    there is nothing to allow, where an alias is not told, where something lies elsewhere, and for what IAM would refuse.
    """
    reach = Reach(fleet, place, frozenset(queues))
    if queues and role not in _QUEUES_ROLES:
        raise UsageError(
            f"--queue has no effect on the {role}, whose policy is not about queues that are consumed: leave it out"
        )
    grants = [grant for grant in _GRANTS[role](fleet, reach, Keys(place, keys or {})) if grant.resources]
    if not grants:
        raise UsageError(f"there is nothing to allow to a {role}: {_NOTHING[role]}")
    return document(role, grants)


def policies(fleet: FleetSettings, place: Place, *, keys: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the policy of every role that has something to do; raises as `policy` does."""
    reach, known = Reach(fleet, place), Keys(place, keys or {})
    found = {role: [grant for grant in _GRANTS[role](fleet, reach, known) if grant.resources] for role in Role}
    return {str(role): document(role, grants) for role, grants in found.items() if grants}


def _consumer(fleet: FleetSettings, reach: Reach, keys: Keys) -> Iterator[Grant]:
    used = (
        "sqs:GetQueueUrl",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
    )
    yield Grant("Consume", used, reach.arns(reach.queues))
    yield Grant("DeadLetter", ("sqs:SendMessage",), reach.arns(reach.nets))
    yield Grant("FetchPayloads", ("s3:GetObject",), reach.objects(reach.payloads))
    # Without it, S3 says of an object that is not there that it is denied.
    yield Grant("MissPayloads", ("s3:ListBucket",), [reach.bucket(name) for name in reach.payloads])
    yield Grant("DeletePayloads", ("s3:DeleteObject",), reach.objects(reach.emptied))
    marked = (
        "dynamodb:DescribeTable",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
    )
    yield Grant("MarkWork", marked, [reach.table(name) for name in marks_tables(fleet)])
    yield from keys.grants("sqs", reads=reach.keys(reach.queues), writes=reach.keys(reach.nets))
    sent = [fleet.topics[name] for name in fleet.outbox.names()]
    yield Grant("SendOutbox", ("sns:Publish",), [reach.topic(topic.address) for topic in sent])
    stored = filter(None, (topic.large_payloads.bucket for topic in sent))
    yield Grant("StorePayloads", ("s3:PutObject",), reach.objects(stored))
    yield from keys.grants("sns", writes=[topic.kms_key for topic in sent if topic.kms_key])


def _publisher(fleet: FleetSettings, reach: Reach, keys: Keys) -> Iterator[Grant]:
    topics = wanted_by(fleet).topics
    yield Grant("Publish", ("sns:Publish",), [reach.topic(topic.name) for topic in topics])
    buckets = [topic.large_payloads.bucket for topic in fleet.topics.values() if not topic.external]
    yield Grant("StorePayloads", ("s3:PutObject",), reach.objects(filter(None, buckets)))
    yield from keys.grants("sns", writes=[topic.kms_key for topic in topics if topic.kms_key])


def _scaler(_: FleetSettings, reach: Reach, __: Keys) -> Iterator[Grant]:
    yield Grant("Measure", ("sqs:GetQueueAttributes",), reach.arns(reach.queues))


def _redriver(_: FleetSettings, reach: Reach, keys: Keys) -> Iterator[Grant]:
    taken = (
        "sqs:GetQueueUrl",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:StartMessageMoveTask",
        "sqs:ListMessageMoveTasks",
        "sqs:CancelMessageMoveTask",
    )
    yield Grant("Take", taken, reach.arns(reach.dead_letters))
    yield Grant("Return", ("sqs:GetQueueUrl", "sqs:SendMessage"), reach.arns(reach.mourning))
    yield from keys.grants("sqs", reads=reach.keys(reach.dead_letters), writes=reach.keys(reach.mourning))


def _provisioner(fleet: FleetSettings, reach: Reach, _: Keys) -> Iterator[Grant]:
    topology = wanted_by(fleet)
    own = [reach.topic(topic.name) for topic in topology.topics]
    subscribed = {reach.topic(each.topic) for each in topology.subscriptions}
    told = {reach.topic(topic) for alarm in topology.alarms for topic in alarm.topics}
    queues = reach.provisioned
    made = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:CreateQueue", "sqs:SetQueueAttributes")
    yield Grant("MakeQueues", made, [reach.queue(queue.name) for queue in queues])
    tagged = [reach.queue(queue.name) for queue in queues if queue.tags]
    yield Grant("TagQueues", ("sqs:ListQueueTags", "sqs:TagQueue"), tagged)
    yield Grant("SeeTopics", ("sns:GetTopicAttributes",), [*own, *filter(reach.is_here, told)])
    yield Grant("MakeTopics", ("sns:CreateTopic",), own)
    encrypted = [reach.topic(topic.name) for topic in topology.topics if topic.kms_key is not None]
    yield Grant("EncryptTopics", ("sns:SetTopicAttributes",), encrypted)
    tagged = [reach.topic(topic.name) for topic in topology.topics if topic.tags]
    yield Grant("TagTopics", ("sns:ListTagsForResource", "sns:TagResource"), tagged)
    yield Grant("SeeSubscriptions", ("sns:ListSubscriptionsByTopic",), [*own, *subscribed])
    attributes = ("sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes")
    # SNS checks the permission for a subscription on its topic.
    yield Grant("Subscribe", ("sns:Subscribe", *attributes), list(subscribed))
    watched = ("cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm")
    yield Grant("Watch", watched, [reach.alarm(alarm.name) for alarm in topology.alarms])


_GRANTS: Mapping[Role, Callable[[FleetSettings, Reach, Keys], Iterator[Grant]]] = {
    Role.CONSUMER: _consumer,
    Role.PUBLISHER: _publisher,
    Role.SCALER: _scaler,
    Role.REDRIVER: _redriver,
    Role.PROVISIONER: _provisioner,
}
_QUEUES_ROLES = {Role.CONSUMER, Role.SCALER, Role.REDRIVER}
_NOTHING = {
    Role.CONSUMER: "the fleet file names no queue",
    Role.PUBLISHER: "the fleet file names no topic of its own",
    Role.SCALER: "the fleet file names no queue",
    Role.REDRIVER: "no queue that it is for has a dead-letter queue",
    Role.PROVISIONER: "every topic and queue of the fleet file is external",
}
