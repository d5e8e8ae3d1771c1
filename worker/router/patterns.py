"""Which event types a route takes: `order.created`, `order.*` or `*`; the most specific pattern wins."""

from typing import Final, Generic, TypeVar

from worker.errors import ConfigError

__all__ = ["ANY", "Patterns", "check_pattern"]

ANY: Final = "*"
_MAX_CHARACTERS: Final = 256
_ALLOWED: Final = (
    "allowed are an exact event type such as `order.created`, a prefix up to a dot such as `order.*`, or `*`"
)

T = TypeVar("T")


def check_pattern(pattern: str, *, owner: str) -> None:
    """Raise `ConfigError`, which names the owner, unless the pattern is exact, a prefix up to a dot, or `*`."""
    prefix = pattern.removesuffix(".*")
    if not pattern or pattern != pattern.strip() or not pattern.isprintable():
        fault = "is empty, or has blanks around it or control characters in it"
    elif len(pattern) > _MAX_CHARACTERS:
        fault = f"is longer than {_MAX_CHARACTERS} characters"
    elif pattern != ANY and (not prefix or "*" in prefix):
        fault = "has a `*` in a place where it means nothing"
    else:
        return
    raise ConfigError(f"{owner} has the pattern {pattern[:_MAX_CHARACTERS]!r}, which {fault}; {_ALLOWED}")


class Patterns(Generic[T]):
    """A table from patterns to whatever takes their events."""

    def __init__(self) -> None:
        self._exact: dict[str, T] = {}
        self._prefixes: list[tuple[str, T]] = []  # longest first
        self._any: T | None = None

    def add(self, pattern: str, taker: T) -> None:
        """Add a pattern that was checked and is not in the table yet."""
        if pattern == ANY:
            self._any = taker
        elif pattern.endswith(".*"):
            self._prefixes.append((pattern.removesuffix("*"), taker))
            self._prefixes.sort(key=lambda entry: -len(entry[0]))
        else:
            self._exact[pattern] = taker

    def find(self, event_type: str | None) -> T | None:
        """Return the most specific taker of an event type; an event without a type is taken by `*` only.

        Nothing is remembered between calls: event types come from outside, and a cache of them would grow.
        """
        if event_type is None:
            return self._any
        taker = self._exact.get(event_type)
        if taker is not None:
            return taker
        for prefix, prefix_taker in self._prefixes:
            if event_type.startswith(prefix):
                return prefix_taker
        return self._any
