"""The wanted topology in Terraform's language, for the provider `hashicorp/aws`: what it makes is what `apply` makes."""

from collections.abc import Iterator, Mapping
from typing import Any

from worker.idempotency.dynamodb import EXPIRY, PARTITION_KEY
from worker.topology.alarms import alarm_changes
from worker.topology.desired import Alarm, Bucket, Queue, Subscription, Table, Topic, Topology, levels, writers
from worker.topology.export.hcl import Expression, attributes, block, json_of, quoted
from worker.topology.export.labels import words
from worker.topology.export.ownership import Topics, check_not_empty
from worker.topology.place import Place

__all__ = ["terraform"]

_HEAD = """\
# Written by longshore topology export terraform: change the fleet file and export again.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}
"""
_ALARM = {
    "AlarmName": "alarm_name",
    "AlarmDescription": "alarm_description",
    "Namespace": "namespace",
    "MetricName": "metric_name",
    "Dimensions": "dimensions",
    "Statistic": "statistic",
    "Period": "period",
    "EvaluationPeriods": "evaluation_periods",
    "Threshold": "threshold",
    "ComparisonOperator": "comparison_operator",
    "TreatMissingData": "treat_missing_data",
    "AlarmActions": "alarm_actions",
}
"""How the provider names what CloudWatch takes."""


def terraform(topology: Topology) -> str:
    """Return the text of a `.tf` file; it can be applied in any account and region, and a second time does nothing.

    Topics of others that are known by name are looked up; those known by ARN are taken as they are. Raises
    `UsageError` when there is nothing to make, or more than SQS takes as a policy.
    """
    check_not_empty(topology)
    return "\n".join([_HEAD, *("\n".join([*lines, ""]) for lines in _Module(topology).blocks())])


class _Module:
    """Writes blocks that refer to each other, so that Terraform makes them in order."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._topics = Topics(topology)

    def blocks(self) -> Iterator[list[str]]:
        for name in self._looked_up():
            yield block(f'data "aws_sns_topic" {quoted(_label(name))}', attributes({"name": name}))
        for topic in self._topology.topics:
            yield _resource("aws_sns_topic", _label(topic.name), _topic(topic))
        for queue in (queue for level in levels(self._topology) for queue in level):
            # What waits in a queue is not to go with it.
            kept = block("lifecycle", attributes({"prevent_destroy": True}))
            yield _resource("aws_sqs_queue", _label(queue.name), _queue(queue), *["", *kept])
        for name, topics in writers(self._topology).items():
            yield _resource("aws_sqs_queue_policy", _label(name), self._policy(name, topics))
        for subscription in self._topology.subscriptions:
            label = "_".join((_label(subscription.queue), "from", _label(subscription.topic.rpartition(":")[2])))
            yield _resource("aws_sns_topic_subscription", label, self._subscription(subscription))
        for alarm in self._topology.alarms:
            yield _resource("aws_cloudwatch_metric_alarm", _label(alarm.name), self._alarm(alarm))
        for bucket in self._topology.buckets:
            yield from _bucket(bucket)
        for table in self._topology.tables:
            yield _table(table)

    def _looked_up(self) -> list[str]:
        """Return the names of topics that others make, once each."""
        named = [each.topic for each in self._topology.subscriptions]
        named += [topic for alarm in self._topology.alarms for topic in alarm.topics]
        others = [name for name in named if not name.startswith("arn:") and not self._topics.own(name)]
        return list(dict.fromkeys(others))

    def _policy(self, queue: str, topics: list[str]) -> dict[str, Any]:
        statements = [
            {
                **statement,
                "Resource": _arn(queue),
                "Condition": {"ArnEquals": {"aws:SourceArn": self._topic_arn(topic)}},
            }
            for topic, statement in zip(topics, self._topics.statements(queue, topics), strict=True)
        ]
        document = {"Version": "2012-10-17", "Statement": statements}
        return {"queue_url": Expression(f"aws_sqs_queue.{_label(queue)}.url"), "policy": json_of(document)}

    def _subscription(self, subscription: Subscription) -> dict[str, Any]:
        values: dict[str, Any] = {
            "topic_arn": self._topic_arn(subscription.topic),
            "protocol": "sqs",
            "endpoint": _arn(subscription.queue),
            "raw_message_delivery": subscription.raw,
        }
        allowing = [subscription.queue]
        if subscription.filter_policy is not None:
            values["filter_policy_scope"] = subscription.filter_scope
            values["filter_policy"] = json_of(subscription.filter_policy)
        if subscription.dead_letter is not None:
            values["redrive_policy"] = json_of({"deadLetterTargetArn": _arn(subscription.dead_letter)})
            allowing.append(subscription.dead_letter)
        # Nothing is delivered before the queue lets it in.
        values["depends_on"] = [Expression(f"aws_sqs_queue_policy.{_label(queue)}") for queue in allowing]
        return values

    def _alarm(self, alarm: Alarm) -> dict[str, Any]:
        (change,) = alarm_changes(alarm, None, Place("", "", ""))
        (call,) = change.calls
        values = {_ALARM[name]: value for name, value in call.parameters.items()}
        values["dimensions"] = {"QueueName": Expression(f"aws_sqs_queue.{_label(alarm.queue)}.name")}
        return {**values, "alarm_actions": [self._topic_arn(topic) for topic in alarm.topics]}

    def _topic_arn(self, address: str) -> str | Expression:
        own = self._topics.own(address)
        if own is not None:
            return Expression(f"aws_sns_topic.{_label(own)}.arn")
        return address if address.startswith("arn:") else Expression(f"data.aws_sns_topic.{_label(address)}.arn")


def _label(name: str) -> str:
    label = "_".join(words(name)).lower()
    return label if label[:1].isalpha() else f"_{label}"


def _resource(kind: str, label: str, values: Mapping[str, Any], *more: str) -> list[str]:
    return block(f"resource {quoted(kind)} {quoted(label)}", [*attributes(values), *more])


def _arn(queue: str) -> Expression:
    return Expression(f"aws_sqs_queue.{_label(queue)}.arn")


def _topic(topic: Topic) -> dict[str, Any]:
    return {"name": topic.name, **_common(topic, "fifo_topic")}


def _bucket(bucket: Bucket) -> Iterator[list[str]]:
    label = _label(bucket.name)
    here = {"bucket": Expression(f"aws_s3_bucket.{label}.id")}
    kept = block("lifecycle", attributes({"prevent_destroy": True}))
    yield _resource("aws_s3_bucket", label, {"bucket": bucket.name}, *["", *kept])
    closed = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    yield _resource("aws_s3_bucket_public_access_block", label, {**here, **dict.fromkeys(closed, True)})
    expiration = block("expiration", attributes({"days": bucket.expire_days}))
    named = attributes({"id": "large-payloads", "status": "Enabled"})
    rule = block("rule", [*named, "", "filter {}", "", *expiration])
    yield _resource("aws_s3_bucket_lifecycle_configuration", label, here, *["", *rule])


def _table(table: Table) -> list[str]:
    values = {"name": table.name, "billing_mode": "PAY_PER_REQUEST", "hash_key": PARTITION_KEY}
    key = block("attribute", attributes({"name": PARTITION_KEY, "type": "S"}))
    forgets = block("ttl", attributes({"attribute_name": EXPIRY, "enabled": True}))
    kept = block("lifecycle", attributes({"prevent_destroy": True}))
    return _resource("aws_dynamodb_table", _label(table.name), values, *["", *key, "", *forgets, "", *kept])


def _queue(queue: Queue) -> dict[str, Any]:
    values: dict[str, Any] = {"name": queue.name, "message_retention_seconds": queue.retention_seconds}
    if not queue.is_only_named:
        values["visibility_timeout_seconds"] = queue.visibility_timeout_seconds
        values["receive_wait_time_seconds"] = queue.wait_time_seconds
    if queue.dead_letter is not None:
        net = {"deadLetterTargetArn": _arn(queue.dead_letter), "maxReceiveCount": queue.max_receive_count}
        values["redrive_policy"] = json_of(net)
    return {**values, **_common(queue, "fifo_queue")}


def _common(resource: Topic | Queue, fifo: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if resource.name.endswith(".fifo"):
        values[fifo] = True
    if resource.kms_key is not None:
        values["kms_master_key_id"] = resource.kms_key
    return {**values, "tags": dict(resource.tags)} if resource.tags else values
