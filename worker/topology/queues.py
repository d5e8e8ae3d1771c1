"""Queues and the policies that let topics write to them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from worker.aws.session import AwsClients
from worker.errors import Fault, SourceError
from worker.topology.change import Change
from worker.topology.desired import Queue

__all__ = ["allow_topics", "ensure_queue", "merge_statements", "statement_for"]


async def ensure_queue(clients: AwsClients, queue: Queue, arns: Mapping[str, str]) -> tuple[str, list[Change]]:
    """Make or correct a queue; return its ARN and what was done. `arns` knows its dead-letter queue."""
    wanted = _attributes(queue, arns)
    url = await _url(clients, queue.name)
    if url is None:
        creation = {**wanted, "FifoQueue": "true"} if queue.name.endswith(".fifo") else wanted
        answer = await clients.settle.call(
            "create_queue", QueueName=queue.name, Attributes=creation, tags=dict(queue.tags)
        )
        return await _arn(clients, answer["QueueUrl"]), [Change("create", "queue", queue.name)]
    found = await _get_attributes(clients, url, "All")
    differing = {name: value for name, value in wanted.items() if not _is_same(found.get(name), value)}
    changes: list[Change] = []
    if differing:
        await clients.settle.call("set_queue_attributes", QueueUrl=url, Attributes=differing)
        changes.append(Change("update", "queue", queue.name, ", ".join(sorted(differing))))
    return found["QueueArn"], changes


async def allow_topics(clients: AwsClients, name: str, arn: str, topics: Sequence[str]) -> list[Change]:
    """Let the topics (ARNs) send to the queue; statements that are not ours stay as they are."""
    url = await _url(clients, name)
    found = await _get_attributes(clients, url or "", "Policy")
    policy: dict[str, Any] = json.loads(found.get("Policy") or "{}")
    merged = merge_statements(policy, [statement_for(topic, arn) for topic in topics])
    if merged == policy:
        return []
    await clients.settle.call("set_queue_attributes", QueueUrl=url, Attributes={"Policy": json.dumps(merged)})
    return [Change("update" if policy else "create", "queue policy", name)]


def statement_for(topic: str, queue: str) -> dict[str, Any]:
    """Allow SNS to send to `queue` on behalf of `topic` alone (both ARNs); the id tells whose statement it is."""
    words = re.findall(r"[A-Za-z0-9]+", topic.rsplit(":", 1)[-1])
    digest = hashlib.sha256(topic.encode()).hexdigest()[:8]  # two names may differ in punctuation only
    return {
        "Sid": "Longshore" + "".join(word[:1].upper() + word[1:] for word in words) + digest,
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }


def merge_statements(policy: Mapping[str, Any], statements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `policy` with `statements` in it: in the place of those with the same id, else at the end."""
    found = policy.get("Statement", [])
    kept: list[Mapping[str, Any]] = list(found) if isinstance(found, list) else [found]  # AWS allows a single one bare
    ours = {statement["Sid"]: statement for statement in statements}
    merged = [ours.pop(statement.get("Sid", ""), statement) for statement in kept]
    return {"Version": "2012-10-17", **policy, "Statement": [*merged, *ours.values()]}


def _attributes(queue: Queue, arns: Mapping[str, str]) -> dict[str, str]:
    attributes = {
        "VisibilityTimeout": str(queue.visibility_timeout_seconds),
        "MessageRetentionPeriod": str(queue.retention_seconds),
        "ReceiveMessageWaitTimeSeconds": str(queue.wait_time_seconds),
    }
    if queue.dead_letter is not None:
        redrive = {"deadLetterTargetArn": arns[queue.dead_letter], "maxReceiveCount": queue.max_receive_count}
        attributes["RedrivePolicy"] = json.dumps(redrive)
    if queue.kms_key is not None:
        attributes["KmsMasterKeyId"] = queue.kms_key
    return attributes


def _is_same(found: str | None, wanted: str) -> bool:
    """Compare by meaning: AWS writes JSON in its own order, and counts as text or number."""
    if found is None or not wanted.startswith("{"):
        return found == wanted
    said, meant = json.loads(found), json.loads(wanted)
    return {key: str(value) for key, value in said.items()} == {key: str(value) for key, value in meant.items()}


async def _url(clients: AwsClients, name: str) -> str | None:
    try:
        answer = await clients.settle.call("get_queue_url", QueueName=name)
    except SourceError as error:
        if error.fault is Fault.MISSING:
            return None
        raise
    return str(answer["QueueUrl"])


async def _arn(clients: AwsClients, url: str) -> str:
    return (await _get_attributes(clients, url, "QueueArn"))["QueueArn"]


async def _get_attributes(clients: AwsClients, url: str, name: str) -> Mapping[str, str]:
    answer = await clients.settle.call("get_queue_attributes", QueueUrl=url, AttributeNames=[name])
    attributes: Mapping[str, str] = answer.get("Attributes", {})
    return attributes
