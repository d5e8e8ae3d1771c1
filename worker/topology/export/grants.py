"""Grants, and the policy document that they make."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.errors import UsageError

__all__ = ["Grant", "document"]

MAX_CHARACTERS = 6144
"""What IAM takes as a managed policy, white space not counted."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One statement: these actions on these resources."""

    name: str
    actions: Sequence[str]
    resources: Sequence[str]
    """ARNs, in any order and as often as it comes; none: the statement is left out."""
    condition: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def document(role: str, grants: Sequence[Grant]) -> dict[str, Any]:
    """Return the policy; raise `UsageError` when IAM would refuse it for its size."""
    found = {"Version": "2012-10-17", "Statement": [_statement(grant) for grant in grants]}
    size = len(json.dumps(found, separators=(",", ":")))
    if size > MAX_CHARACTERS:
        raise UsageError(
            f"the policy of the {role} would have {size} characters, but IAM takes at most {MAX_CHARACTERS}: "
            f"give each deployment a role of its own, for its queues alone (--queue NAME), or split the fleet file"
        )
    return found


def _statement(grant: Grant) -> dict[str, Any]:
    statement = {
        "Sid": grant.name,
        "Effect": "Allow",
        "Action": list(grant.actions),
        "Resource": sorted(set(grant.resources)),
    }
    return {**statement, "Condition": grant.condition} if grant.condition else statement
