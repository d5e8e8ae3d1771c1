"""A plan: what is to be done to AWS, as values that can be shown, compared and carried out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any

__all__ = ["Action", "Call", "Change", "Difference", "Plan"]


class Action(StrEnum):
    """What a change asks for."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"
    """Only a person can do it: delete the thing, with the messages in it, so that it can be made anew."""
    FOREIGN = "foreign"
    """Nothing: someone else has written it, it is shown and stays."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call to AWS, as boto names it: `Call("sqs", "create_queue", {"QueueName": "orders"}, "queue orders")`."""

    service: str
    operation: str
    parameters: Mapping[str, Any]
    about: str
    """The resource, as a sentence names it."""

    @property
    def permission(self) -> str:
        """The IAM action that it needs: `sqs:CreateQueue`."""
        return f"{self.service}:{''.join(word.capitalize() for word in self.operation.split('_'))}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute; the same value twice where it is only shown."""

    name: str
    old: str | None
    """What AWS has; `None`: not set."""
    new: str | None
    """What the fleet file says; `None`: is taken off."""

    def __str__(self) -> str:
        if self.old == self.new:
            return f"{self.name}: {self.old}"
        return f"{self.name}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan."""

    action: Action
    kind: str
    """`topic`, `queue`, `subscription` or `alarm`."""
    name: str
    differences: Sequence[Difference] = ()
    note: str = ""
    """What a person is to know or do."""
    calls: Sequence[Call] = field(default=(), repr=False)
    """What carries it out, one after the other; nothing else does."""

    def __str__(self) -> str:
        names = ", ".join(difference.name for difference in self.differences)
        detail = f" ({names})" if self.action is Action.CHANGE else ""
        return f"{self.action} {self.kind} {self.name}{detail}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done so that AWS has what the fleet file says."""

    waves: Sequence[Sequence[Change]] = ()
    """Changes of one wave do not refer to each other; a wave may refer to all before it."""

    @property
    def changes(self) -> list[Change]:
        """All of them, in order."""
        return list(chain.from_iterable(self.waves))

    def of(self, *actions: Action) -> list[Change]:
        """Return the changes that ask for one of these."""
        return [change for change in self.changes if change.action in actions]

    @property
    def is_empty(self) -> bool:
        """Whether AWS has all that the fleet file says, whatever else it may have."""
        return not self.of(Action.CREATE, Action.CHANGE, Action.REPLACE)


def _shown(value: str | None) -> str:
    return "none" if value in {None, ""} else str(value)
