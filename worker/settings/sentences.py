"""One sentence for what is wrong with a fleet: the key or variable, what was found, what is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.settings.base import KeyPath, found
from worker.settings.environment import Variables
from worker.settings.keys import dotted
from worker.settings.schema import allowed, find

__all__ = ["Origin", "sentence"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values came from: the file, its `defaults`, or environment variables."""

    file: str
    raw: Mapping[Any, Any]
    """The content after the environment was put over it, queues and topics by their bare names."""
    variables: Variables

    def subject(self, path: KeyPath) -> str:
        """Return what a sentence about the value starts with: the variable, or the file and the key."""
        return self.variable(path) or f"{self.file}: {dotted(self.written(path))}"

    def variable(self, path: KeyPath) -> str | None:
        """Return the variable that gave the value, if one did."""
        return self.variables.get(self.written(path))

    def written(self, path: KeyPath) -> KeyPath:
        """Return where the value stands: a queue's own key, or the one in `defaults` that it took it from."""
        match path:
            case ("queues", queue, *rest) if rest and not self._has(("queues", queue, *rest)):
                return ("defaults", *rest) if self._has(("defaults", *rest)) else path
        return path

    def remark(self, path: KeyPath) -> str:
        """Return who set the value, where that is not the key itself."""
        written = self.written(path)
        if written in self.variables:
            return f"{path[-1]} is set by {self.variables[written]}"
        return f"{path[-1]} is set by {dotted(written)}" if written != path else ""

    def _has(self, path: KeyPath) -> bool:
        value: Any = self.raw
        for key in path:
            members = dict(enumerate(value)) if isinstance(value, list) else value
            if not isinstance(members, Mapping) or key not in members:
                return False
            value = members[key]
        return True


def sentence(error: ValidationError, origin: Origin) -> str:
    """Return the sentence for the first mistake of a validation."""
    first = _most_telling(error)
    at, node = find(first["loc"])
    if first["type"] == "refused":
        return _refused(first["ctx"], at, origin)
    if first["type"] == "missing":
        return f"{origin.subject(at)} is missing, but must be {allowed(node)}"
    reason = node.get("x-because")
    because = f": {reason}" if reason else ""
    return f"{origin.subject(at)} is {found(first['input'])}, but must be {allowed(node)}{because}"


def _most_telling(error: ValidationError) -> ErrorDetails:
    """Return the first mistake; where a value may be one of several things, what is wrong with the one that it is like."""
    errors = error.errors(include_url=False)
    at = find(errors[0]["loc"])[0]
    same = [each for each in errors if find(each["loc"])[0][: len(at)] == at]
    return max(same, key=lambda each: (len(find(each["loc"])[0]), each["type"] == "refused"))


def _refused(told: Mapping[str, Any], at: KeyPath, origin: Origin) -> str:
    """A combination is about several keys: whoever set one of them from elsewhere is named at the end."""
    paths = [(*at, *key) for key in told["keys"]]
    if not paths:
        return f"{origin.subject(at)} {told['sentence']}"
    remarks = ", ".join(filter(None, map(origin.remark, paths)))
    return f"{origin.file}: {dotted(paths[0])} {told['sentence']}" + (f" ({remarks})" if remarks else "")
