"""What is done but not surely deleted: when it comes again it is deleted, not run again."""

from collections import OrderedDict

from worker.engine.clock import Clock

__all__ = ["DoneMemory"]


class DoneMemory:
    """The last 10,000 message ids of one queue whose work is done, for twelve hours (SQS's longest visibility)."""

    def __init__(self, clock: Clock, *, size: int = 10_000, age_seconds: float = 43_200) -> None:
        self._clock = clock
        self._size = size
        self._age_seconds = age_seconds
        self._done: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._done)

    def remember(self, message_id: str) -> None:
        """The message's work is done; its delete is not confirmed."""
        self._done[message_id] = self._clock.now()
        self._done.move_to_end(message_id)
        if len(self._done) > self._size:
            self._done.popitem(last=False)

    def forget(self, message_id: str) -> None:
        """The message is surely deleted."""
        self._done.pop(message_id, None)

    def __contains__(self, message_id: str) -> bool:
        done_at = self._done.get(message_id)
        return done_at is not None and self._clock.now() - done_at < self._age_seconds
