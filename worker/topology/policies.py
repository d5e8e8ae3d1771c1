"""Queue policies: our statements among those of others, told apart by their ids."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from worker.errors import UsageError

__all__ = ["Statement", "check_size", "merged", "read", "statement_for", "statements_of"]

Statement = Mapping[str, Any]
MAX_STATEMENTS = 20
MAX_BYTES = 8192
"""What SQS takes as a queue's policy."""


def statement_for(topic: str, queue: str) -> Statement:
    """Allow SNS to send to `queue` on behalf of `topic` alone (both ARNs); the id tells whose statement it is.

    Where both lie in one account and region the id follows from the topic's name: it is the same in every place.
    """
    place, _, name = topic.rpartition(":")
    is_beside = place == queue.rpartition(":")[0].replace(":sqs:", ":sns:")
    words = re.findall(r"[A-Za-z0-9]+", name)
    # Two names may differ in punctuation only.
    digest = hashlib.sha256((name if is_beside else topic).encode()).hexdigest()[:8]
    return {
        "Sid": "Longshore" + "".join(word[:1].upper() + word[1:] for word in words) + digest,
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }


def read(policy: str | None) -> dict[str, Any]:
    """Return a policy as SQS gives it; no policy is an empty one."""
    parsed: dict[str, Any] = json.loads(policy or "{}")
    return parsed


def statements_of(policy: Mapping[str, Any]) -> list[Statement]:
    """Return the statements of a policy; AWS allows a single one without a list."""
    found = policy.get("Statement", [])
    return list(found) if isinstance(found, list) else [found]


def merged(policy: Mapping[str, Any], statements: Sequence[Statement]) -> dict[str, Any]:
    """Return `policy` with `statements` in it: in the place of those with the same id, else at the end."""
    ours = {statement["Sid"]: statement for statement in statements}
    kept = [ours.pop(statement.get("Sid", ""), statement) for statement in statements_of(policy)]
    return {"Version": "2012-10-17", **policy, "Statement": [*kept, *ours.values()]}


def check_size(queue: str, policy: Mapping[str, Any]) -> None:
    """Raise `UsageError` when SQS would refuse the policy for its size."""
    count, size = len(statements_of(policy)), len(json.dumps(policy).encode())
    if count > MAX_STATEMENTS or size > MAX_BYTES:
        raise UsageError(
            f"the policy of the queue {queue} would have {count} statements in {size} bytes, but SQS takes at most "
            f"{MAX_STATEMENTS} in {MAX_BYTES}: let fewer topics write to it, or remove statements of others"
        )
