"""`MemoryTopic`: a topic in memory, for tests of code that publishes."""

import json
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Any

from worker.errors import EntryError, Fault, SourceError
from worker.publisher.topic import Publication

__all__ = ["MemoryTopic"]


class MemoryTopic:
    """A `Topic` that keeps what is published; a name that ends in `.fifo` makes it FIFO.

    `fail` lets the next calls fail, as SNS does. It delivers to nobody.
    """

    def __init__(self, name: str = "events") -> None:
        self._name = name
        self._faults: deque[Fault] = deque()
        self._ids = count(1)
        self.publications: list[Publication] = []
        """What was published, as it was sent, in order."""
        self.calls: list[int] = []
        """How many events each call carried, failed ones too."""

    @property
    def name(self) -> str:
        """The bare name."""
        return self._name

    @property
    def published(self) -> list[tuple[str, Any]]:
        """The events in order: event type and payload, parsed if it is JSON."""
        return [(str(one.attributes["event_type"].value), _parsed(one.body)) for one in self.publications]

    def fail(self, fault: Fault, *, calls: int = 1) -> None:
        """Let the next calls fail as a whole."""
        self._faults.extend([fault] * calls)

    async def open(self) -> None:
        """Do nothing: it is ready."""

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        """Keep the messages and return an id for each."""
        self.calls.append(len(publications))
        if self._faults:
            fault = self._faults.popleft()
            raise SourceError(fault, f"Memory{fault.name.title()}")
        self.publications += publications
        return [f"message-{next(self._ids)}" for _ in publications]

    async def close(self) -> None:
        """Do nothing: what was published stays."""


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
