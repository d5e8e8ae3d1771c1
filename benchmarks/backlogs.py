"""What the stub's queues have: messages as numbers, which are received, deleted and given back as SQS does it."""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

__all__ = ["GROUPS", "Backlog", "GroupedBacklog", "backlog_of"]

GROUPS: Final = 100
"""Message groups of a FIFO queue; a message's number, modulo this, is its group."""


class Backlog:
    """A standard queue's: as many messages as a receive asks for. What is given back does not come again."""

    def __init__(self) -> None:
        self._next = 0
        self._in_flight: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Messages that were received and neither deleted nor given back."""
        return len(self._in_flight)

    @property
    def has_messages(self) -> bool:
        """Whether a receive would get any."""
        return True

    def take(self, limit: int) -> Collection[int]:
        """Receive."""
        numbers = range(self._next, self._next + limit)
        self._next += limit
        self._in_flight.update(numbers)
        return numbers

    def delete(self, numbers: Iterable[int]) -> int:
        """Delete what is in flight of these and return how many that were."""
        found = self._in_flight.intersection(numbers)
        self._in_flight -= found
        return len(found)

    def give_back(self, numbers: Iterable[int]) -> None:
        """End the visibility timeout of these."""
        self._in_flight.difference_update(numbers)


class GroupedBacklog(Backlog):
    """A FIFO queue's: a hundred message groups, each with as many messages as a receive asks for.

    1. A receive gets messages of as few groups as possible, and no group ever has too few: it gets those of one, in order.
    2. A group is locked while a message of it is in flight: it is not received from.
    3. What is given back comes again, in its place. No visibility timeout ends by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unlocked = deque(range(GROUPS))
        self._locked: dict[int, set[int]] = {}
        """The messages in flight of each group that has any."""
        self._positions = [0] * GROUPS
        """How many messages of each group have ever been received."""
        self._returned: list[list[int]] = [[] for _ in range(GROUPS)]

    @property
    def in_flight(self) -> int:
        """Messages that were received and neither deleted nor given back."""
        return sum(map(len, self._locked.values()))

    @property
    def has_messages(self) -> bool:
        """Whether any group is not locked."""
        return bool(self._unlocked)

    def take(self, limit: int) -> Collection[int]:
        """Receive from the group that was unlocked the longest; nothing when all are locked."""
        if not self._unlocked:
            return []
        group = self._unlocked.popleft()
        returned = sorted(self._returned[group])
        numbers, self._returned[group] = returned[:limit], returned[limit:]
        first, missing = self._positions[group], limit - len(numbers)
        numbers += [position * GROUPS + group for position in range(first, first + missing)]
        self._positions[group] += missing
        self._locked[group] = set(numbers)
        return numbers

    def delete(self, numbers: Iterable[int]) -> int:
        """Delete what is in flight of these, unlock the groups that have nothing in flight any more; return how many that were."""
        return len(self._end(numbers))

    def give_back(self, numbers: Iterable[int]) -> None:
        """End the visibility timeout of these; what is in flight of them comes again."""
        for number in self._end(numbers):
            self._returned[number % GROUPS].append(number)

    def _end(self, numbers: Iterable[int]) -> list[int]:
        ended = []
        for number in set(numbers):
            group = number % GROUPS
            in_flight = self._locked.get(group, set())
            if number not in in_flight:
                continue
            ended.append(number)
            in_flight.remove(number)
            if not in_flight:
                del self._locked[group]
                self._unlocked.append(group)
        return ended


def backlog_of(queue: str) -> Backlog:
    """Return the backlog of a new queue: grouped when its name ends in `.fifo`."""
    return GroupedBacklog() if queue.endswith(".fifo") else Backlog()
