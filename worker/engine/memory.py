"""What one process remembers of messages that are not in hand: those that are done, and how often the others have failed."""

from collections import OrderedDict
from typing import Generic, TypeVar

from worker.engine.clock import Clock
from worker.message import Received

__all__ = ["AttemptMemory", "DoneMemory"]

SIZE = 10_000
AGE_SECONDS = 43_200.0
"""SQS's longest visibility timeout."""

Note = TypeVar("Note")


class _Memory(Generic[Note]):
    """A note on each of the last ten thousand message ids of one queue, for twelve hours."""

    def __init__(self, clock: Clock, *, size: int = SIZE, age_seconds: float = AGE_SECONDS) -> None:
        self._clock = clock
        self._size = size
        self._age_seconds = age_seconds
        self._notes: OrderedDict[str, tuple[float, Note]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._notes)

    def forget(self, message_id: str) -> None:
        """Drop the note."""
        self._notes.pop(message_id, None)

    def _note(self, message_id: str, note: Note) -> None:
        self._notes[message_id] = self._clock.now(), note
        self._notes.move_to_end(message_id)
        if len(self._notes) > self._size:
            self._notes.popitem(last=False)

    def _find(self, message_id: str) -> Note | None:
        noted_at, note = self._notes.get(message_id, (0.0, None))
        return note if note is not None and self._clock.now() - noted_at < self._age_seconds else None


class DoneMemory(_Memory[bool]):
    """Messages whose work is done: when one comes again it is deleted, not run again."""

    def remember(self, message_id: str) -> None:
        """The message's work is done; its delete is not confirmed."""
        self._note(message_id, True)

    def __contains__(self, message_id: str) -> bool:
        return self._find(message_id) is not None


class AttemptMemory(_Memory[int]):
    """How many attempts a message has had, where that is not its receive count.

    SQS counts receives. One that a drain, a lost lease or an open breaker ended without a failure is no attempt; one in
    which the handler failed several times in place is several. What other processes received counts as it came.
    """

    def number(self, received: Received) -> int:
        """Return which attempt the first run of this receive is, from 1 up."""
        if not self._notes:
            return received.receive_count
        return max(1, received.receive_count + (self._find(received.id) or 0))

    def ended(self, message_id: str, failures: int, receives: int = 1) -> None:
        """Note how often the handler failed in a receive, or in several that were one, which may be followed by another."""
        if failures != receives or message_id in self._notes:
            self._note(message_id, (self._find(message_id) or 0) + failures - receives)
