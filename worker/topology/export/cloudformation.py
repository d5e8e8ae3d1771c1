"""The wanted topology as a CloudFormation template: what it makes is what `apply` makes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.errors import UsageError
from worker.idempotency.dynamodb import EXPIRY, PARTITION_KEY
from worker.topology.alarms import alarm_changes
from worker.topology.desired import Alarm, Bucket, Queue, Subscription, Table, Topic, Topology, levels, writers
from worker.topology.export.labels import joined, words
from worker.topology.export.ownership import Topics, check_not_empty
from worker.topology.place import Place

__all__ = ["cloudformation"]

Resources = Iterator[tuple[str, dict[str, Any]]]

MAX_RESOURCES = 500
"""What CloudFormation takes in one template."""
_ANYWHERE = Place("${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}")
"""As `Fn::Sub` fills it in."""


def cloudformation(topology: Topology, *, one_policy: bool = False) -> dict[str, Any]:
    """Return the template; it can be applied in any account and region.

    `one_policy` lets queues that the same topics write to share one policy, whose statements then name no queue, but
    apply to the one that each is attached to. Raises `UsageError` when there is nothing to make, or more than
    CloudFormation or SQS takes.
    """
    check_not_empty(topology)
    resources = dict(_Template(topology).resources(is_shared=one_policy))
    if len(resources) > MAX_RESOURCES:
        raise UsageError(
            f"the template would have {len(resources)} resources, but CloudFormation takes at most {MAX_RESOURCES}: "
            f"split the fleet file, or use longshore topology apply"
        )
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Written by longshore topology export cloudformation: change the fleet file and export again.",
        "Resources": resources,
    }


class _Template:
    """Writes resources that refer to each other by label, so that CloudFormation makes them in order."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._topics = Topics(topology)
        self._policies: dict[str, str] = {}
        """By queue, the label of its policy."""

    def resources(self, *, is_shared: bool) -> Resources:
        for topic in self._topology.topics:
            yield _label(topic.name, "Topic"), _resource("AWS::SNS::Topic", _topic(topic))
        for queue in (queue for level in levels(self._topology) for queue in level):
            # What waits in a queue outlives its stack; only a creation that fails leaves nothing behind.
            kept = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
            yield _label(queue.name, "Queue"), {**_resource("AWS::SQS::Queue", _queue(queue)), **kept}
        yield from self._shared_policies() if is_shared else self._own_policies()
        for subscription in self._topology.subscriptions:
            yield self._subscription(subscription)
        for alarm in self._topology.alarms:
            yield _label(alarm.name, "Alarm"), _resource("AWS::CloudWatch::Alarm", self._alarm(alarm))
        for bucket in self._topology.buckets:
            kept = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
            yield _label(bucket.name, "Bucket"), {**_resource("AWS::S3::Bucket", _bucket(bucket)), **kept}
        for table in self._topology.tables:
            kept = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
            yield _label(table.name, "Table"), {**_resource("AWS::DynamoDB::Table", _table(table)), **kept}

    def _own_policies(self) -> Resources:
        for queue, topics in writers(self._topology).items():
            label = self._policies[queue] = _label(queue, "QueuePolicy")
            yield label, self._policy([queue], topics, _arn(queue))

    def _shared_policies(self) -> Resources:
        """Yield one policy for all queues of the same writers: a queue with others would let too many in."""
        groups: dict[frozenset[str], list[str]] = {}
        found = writers(self._topology)
        for queue, topics in found.items():
            groups.setdefault(frozenset(topics), []).append(queue)
        for queues in groups.values():
            topics, label = found[queues[0]], _label(queues[0], "QueuePolicy")
            self._policies.update(dict.fromkeys(queues, label))
            # SQS takes no list of queues in a statement: `*` is the queue that the policy is attached to.
            yield label, self._policy(queues, topics, _arn(queues[0]) if len(queues) == 1 else "*")

    def _policy(self, queues: Sequence[str], topics: Sequence[str], resource: Any) -> dict[str, Any]:
        written = self._topics.statements(max(queues, key=len), topics)  # the longest name makes the largest policy
        statements = [
            {**statement, "Resource": resource, "Condition": {"ArnEquals": {"aws:SourceArn": self._topic_arn(topic)}}}
            for topic, statement in zip(topics, written, strict=True)
        ]
        document = {"Version": "2012-10-17", "Statement": statements}
        attached = [{"Ref": _label(queue, "Queue")} for queue in queues]
        return _resource("AWS::SQS::QueuePolicy", {"Queues": attached, "PolicyDocument": document})

    def _subscription(self, subscription: Subscription) -> tuple[str, dict[str, Any]]:
        parts = [*words(subscription.queue), "from", *words(subscription.topic.rpartition(":")[2])]
        properties: dict[str, Any] = {
            "TopicArn": self._topic_arn(subscription.topic),
            "Protocol": "sqs",
            "Endpoint": _arn(subscription.queue),
            "RawMessageDelivery": subscription.raw,
        }
        if subscription.filter_policy is not None:
            properties["FilterPolicyScope"] = subscription.filter_scope
            properties["FilterPolicy"] = dict(subscription.filter_policy)
        allowing = {self._policies[subscription.queue]}
        if subscription.dead_letter is not None:
            properties["RedrivePolicy"] = {"deadLetterTargetArn": _arn(subscription.dead_letter)}
            allowing.add(self._policies[subscription.dead_letter])
        # Nothing is delivered before the queue lets it in.
        return f"{joined(parts)}Subscription", {
            **_resource("AWS::SNS::Subscription", properties),
            "DependsOn": sorted(allowing),
        }

    def _alarm(self, alarm: Alarm) -> dict[str, Any]:
        (change,) = alarm_changes(alarm, None, _ANYWHERE)
        (call,) = change.calls
        named = [{"Name": "QueueName", "Value": {"Fn::GetAtt": [_label(alarm.queue, "Queue"), "QueueName"]}}]
        told = [self._topic_arn(topic) for topic in alarm.topics]
        return {**call.parameters, "Dimensions": named, "AlarmActions": told}

    def _topic_arn(self, address: str) -> Any:
        own = self._topics.own(address)
        if own is not None:
            return {"Ref": _label(own, "Topic")}
        return address if address.startswith("arn:") else {"Fn::Sub": _ANYWHERE.topic_arn(address)}


def _label(name: str, kind: str) -> str:
    return joined(words(name)) + kind


def _resource(kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"Type": kind, "Properties": dict(properties)}


def _arn(queue: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [_label(queue, "Queue"), "Arn"]}


def _topic(topic: Topic) -> dict[str, Any]:
    return {"TopicName": topic.name, **_common(topic, "FifoTopic")}


def _bucket(bucket: Bucket) -> dict[str, Any]:
    rule = {"Id": "large-payloads", "Status": "Enabled", "ExpirationInDays": bucket.expire_days}
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    return {
        "BucketName": bucket.name,
        "LifecycleConfiguration": {"Rules": [rule]},
        "PublicAccessBlockConfiguration": dict.fromkeys(closed, True),
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "TableName": table.name,
        "AttributeDefinitions": [{"AttributeName": PARTITION_KEY, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": PARTITION_KEY, "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "TimeToLiveSpecification": {"AttributeName": EXPIRY, "Enabled": True},
    }


def _queue(queue: Queue) -> dict[str, Any]:
    properties: dict[str, Any] = {"QueueName": queue.name, "MessageRetentionPeriod": queue.retention_seconds}
    if not queue.is_only_named:
        properties["VisibilityTimeout"] = queue.visibility_timeout_seconds
        properties["ReceiveMessageWaitTimeSeconds"] = queue.wait_time_seconds
    if queue.dead_letter is not None:
        target = _arn(queue.dead_letter)
        properties["RedrivePolicy"] = {"deadLetterTargetArn": target, "maxReceiveCount": queue.max_receive_count}
    return {**properties, **_common(queue, "FifoQueue")}


def _common(resource: Topic | Queue, fifo: str) -> dict[str, Any]:
    """Return what both have; what they have not is left out, as AWS leaves it then."""
    properties: dict[str, Any] = {}
    if resource.name.endswith(".fifo"):
        properties[fifo] = True
    if resource.kms_key is not None:
        properties["KmsMasterKeyId"] = resource.kms_key
    if resource.tags:
        properties["Tags"] = [{"Key": key, "Value": value} for key, value in resource.tags.items()]
    return properties
