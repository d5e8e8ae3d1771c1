"""Which visible message comes next: best effort on a standard queue, strictly by group on a FIFO queue."""

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from typing import Literal, Protocol

from worker.message import Attribute

__all__ = ["FifoOrder", "Order", "StandardOrder", "State", "Stored"]

SHUFFLE_WINDOW = 16
"""A shuffled standard queue hands out any of its oldest sixteen."""


class State(IntEnum):
    """Where a message is."""

    DELAYED = 0
    VISIBLE = 1
    IN_FLIGHT = 2
    GONE = 3


@dataclass(slots=True, eq=False)
class Stored:
    """One message as the queue keeps it; times are seconds of the queue's clock."""

    id: str
    body: str
    attributes: Mapping[str, Attribute]
    group_id: str | None = None
    deduplication_id: str | None = None
    trace_header: str | None = None
    arrived_by: Literal["send", "copy", "redrive"] = "send"
    sequence: int = 0
    state: State = State.GONE
    sent_at: float = 0.0
    arrived_at: float = 0.0
    """When it came into this queue: later than `sent_at` after a redrive."""
    expires_at: float = 0.0
    due: float = 0.0
    """When it becomes visible, while it is delayed or in flight."""
    received_at: float = 0.0
    receive_count: int = 0
    handle: int = 0
    """Number of the newest receipt handle."""


class Order(Protocol):
    """The visible messages of a queue."""

    def add(self, stored: Stored) -> None:
        """Offer a message that has become visible."""

    def ready(self) -> Iterator[Stored]:
        """Remove and yield what one receive may return, first things first; stop asking when there is enough."""

    def taken(self, stored: Stored) -> None:
        """Note that the message went in flight."""

    def released(self, stored: Stored) -> None:
        """Note that the message is no longer in flight."""


class StandardOrder:
    """In the order of becoming visible, or shuffled within a window when a seed is given."""

    def __init__(self, seed: int | None = None) -> None:
        self._visible: deque[Stored] = deque()
        self._random = None if seed is None else random.Random(seed)

    def add(self, stored: Stored) -> None:
        """Append the message."""
        self._visible.append(stored)

    def ready(self) -> Iterator[Stored]:
        """Yield visible messages; what was deleted or has expired meanwhile is passed over."""
        visible = self._visible
        while visible:
            stored = visible.popleft() if self._random is None else self._any_of_the_oldest(self._random)
            if stored.state is State.VISIBLE:
                yield stored

    def taken(self, stored: Stored) -> None:
        """Nothing waits for a message of a standard queue."""

    def released(self, stored: Stored) -> None:
        """Nothing waits for a message of a standard queue."""

    def _any_of_the_oldest(self, chance: random.Random) -> Stored:
        step = chance.randrange(min(len(self._visible), SHUFFLE_WINDOW))
        self._visible.rotate(-step)
        stored = self._visible.popleft()
        self._visible.rotate(step)
        return stored


@dataclass(slots=True, eq=False)
class _Group:
    visible: list[tuple[int, Stored]] = field(default_factory=list)
    in_flight: int = 0
    is_queued: bool = False


class FifoOrder:
    """By sequence number within a group; a group with a message in flight gives nothing more."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._ready: deque[_Group] = deque()

    def add(self, stored: Stored) -> None:
        """Put the message at its place in its group."""
        group = self._groups.setdefault(stored.group_id or "", _Group())
        heappush(group.visible, (stored.sequence, stored))
        self._offer(group)

    def ready(self) -> Iterator[Stored]:
        """Yield the messages of the group that waits longest, in order, then of the next group."""
        while self._ready:
            group = self._ready.popleft()
            group.is_queued = False
            while group.visible:
                stored = heappop(group.visible)[1]
                if stored.state is State.VISIBLE:
                    yield stored

    def taken(self, stored: Stored) -> None:
        """Block the group."""
        self._groups[stored.group_id or ""].in_flight += 1

    def released(self, stored: Stored) -> None:
        """Unblock the group when nothing of it is in flight any more."""
        group = self._groups[stored.group_id or ""]
        group.in_flight -= 1
        self._offer(group)
        if not group.in_flight and not group.visible and not group.is_queued:
            del self._groups[stored.group_id or ""]

    def _offer(self, group: _Group) -> None:
        if group.visible and not group.in_flight and not group.is_queued:
            group.is_queued = True
            self._ready.append(group)
