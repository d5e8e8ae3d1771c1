"""Queues: what one is to have, and how far AWS is from it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.topology import policies
from worker.topology.attributes import differences, foreign, tag_differences
from worker.topology.change import Action, Call, Change, Difference
from worker.topology.desired import Queue
from worker.topology.existing import Found
from worker.topology.place import Place

__all__ = ["queue_changes"]

_LEFT_ALONE = {
    "ContentBasedDeduplication": {"false"},
    "DeduplicationScope": {"queue"},
    "DelaySeconds": {"0"},
    "FifoThroughputLimit": {"perQueue"},
    "KmsDataKeyReusePeriodSeconds": {"300"},
    "KmsMasterKeyId": {""},
    "MaximumMessageSize": {"262144", "1048576"},
    "RedriveAllowPolicy": {""},
    "RedrivePolicy": {""},
}
"""What can be set on a queue and may not be the fleet file's business, with SQS's defaults."""


def queue_changes(queue: Queue, topics: Sequence[str], found: Found | None, place: Place) -> Iterator[Change]:
    """Yield what is to be done so that the queue is as wanted and `topics` (ARNs) may write to it.

    Raises `UsageError` when its policy would become too large.
    """
    wanted = _attributes(queue, place)
    ours = [policies.statement_for(topic, place.queue_arn(queue.name)) for topic in topics]
    if found is None:
        yield _creation(queue, wanted, ours)
        return
    if (found.attributes.get("FifoQueue") == "true") != _is_fifo(queue):
        yield _replacement(queue, found)
        return
    policy = policies.read(found.attributes.get("Policy"))
    yield from _correction(queue, wanted, policies.merged(policy, ours) if ours else policy, found)
    ids = {statement["Sid"] for statement in ours}
    yield from foreign("queue", queue.name, [*_left_alone(wanted, found), *_statements_but(ids, policy)])


def _attributes(queue: Queue, place: Place) -> dict[str, str | None]:
    attributes: dict[str, str | None] = {"MessageRetentionPeriod": str(queue.retention_seconds)}
    if not queue.is_only_named:
        attributes["VisibilityTimeout"] = str(queue.visibility_timeout_seconds)
        attributes["ReceiveMessageWaitTimeSeconds"] = str(queue.wait_time_seconds)
        attributes["RedrivePolicy"] = _redrive(queue, place)
    if queue.kms_key is not None:
        attributes["KmsMasterKeyId"] = queue.kms_key
    return attributes


def _redrive(queue: Queue, place: Place) -> str | None:
    if queue.dead_letter is None:
        return None
    target = place.queue_arn(queue.dead_letter)
    return json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": queue.max_receive_count})


def _is_fifo(queue: Queue) -> bool:
    return queue.name.endswith(".fifo")


def _creation(queue: Queue, wanted: Mapping[str, str | None], ours: Sequence[policies.Statement]) -> Change:
    attributes = {name: value for name, value in wanted.items() if value is not None}
    if _is_fifo(queue):
        attributes["FifoQueue"] = "true"
    policy = policies.merged({}, ours)
    shown = [*differences(attributes, {}), *_policy_differences({}, policy), *tag_differences(queue.tags, {})]
    if ours:
        policies.check_size(queue.name, policy)
        attributes["Policy"] = json.dumps(policy)
    parameters = {"QueueName": queue.name, "Attributes": attributes, "tags": dict(queue.tags)}
    call = Call("sqs", "create_queue", parameters, f"queue {queue.name}")
    return Change(Action.CREATE, "queue", queue.name, shown, calls=[call])


def _replacement(queue: Queue, found: Found) -> Change:
    kind, other = ("FIFO", "standard") if _is_fifo(queue) else ("standard", "FIFO")
    difference = Difference("FifoQueue", found.attributes.get("FifoQueue", "false"), str(_is_fifo(queue)).lower())
    note = (
        f"the queue {queue.name} exists as a {other} queue, but must be a {kind} one, which SQS cannot change: "
        f"empty and delete it, wait a minute, and apply again, or give the queue another name"
    )
    return Change(Action.REPLACE, "queue", queue.name, [difference], note)


def _correction(
    queue: Queue, wanted: Mapping[str, str | None], policy: Mapping[str, Any], found: Found
) -> Iterator[Change]:
    has = {**found.attributes, "RedrivePolicy": _counted(found.attributes.get("RedrivePolicy", ""))}
    differing = differences(wanted, has)
    before = policies.read(found.attributes.get("Policy"))
    parameters = {difference.name: difference.new or "" for difference in differing}
    if policy != before:
        policies.check_size(queue.name, policy)
        parameters["Policy"] = json.dumps(policy)
    tags = tag_differences(queue.tags, found.tags)
    about, url = f"queue {queue.name}", {"QueueUrl": found.address}
    calls = []
    if parameters:
        calls.append(Call("sqs", "set_queue_attributes", {**url, "Attributes": parameters}, about))
    if tags:
        calls.append(Call("sqs", "tag_queue", {**url, "Tags": dict(queue.tags)}, about))
    if calls:
        shown = [*differing, *_policy_differences(before, policy), *tags]
        yield Change(Action.CHANGE, "queue", queue.name, shown, calls=calls)


def _counted(redrive: str) -> str:
    """SQS gives the count as it was given to it, as text or as a number."""
    policy = json.loads(redrive or "{}")
    return json.dumps({**policy, "maxReceiveCount": int(policy.get("maxReceiveCount", 0))}) if policy else ""


def _policy_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    old, new = (dict(map(_named, policies.statements_of(policy))) for policy in (before, after))
    return differences({name: new[name] for name in new if name.startswith("Policy.Longshore")}, old)


def _statements_but(ids: set[str], policy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for statement in policies.statements_of(policy):
        if statement.get("Sid") not in ids:
            yield _named(statement)


def _named(statement: policies.Statement) -> tuple[str, str]:
    return f"Policy.{statement.get('Sid', 'without a Sid')}", json.dumps(statement)


def _left_alone(wanted: Mapping[str, str | None], found: Found) -> Iterator[tuple[str, str]]:
    for name, defaults in _LEFT_ALONE.items():
        value = found.attributes.get(name)
        if name not in wanted and value and value not in defaults:
            yield name, value
