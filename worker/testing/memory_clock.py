"""The clock of an in-memory queue: the running loop's, so it goes with virtual time."""

import asyncio
import time

__all__ = ["Clock"]


class Clock:
    """The running loop's clock; outside of any loop, and from one loop to the next, it stands still."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0
        self._last = 0.0
        self._was_read = False
        self._epoch = time.time()

    def now(self) -> float:
        """Return seconds, those of the first running loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._was_read = True
            return self._last
        if loop is not self._loop:
            self._offset = loop.time() - self._last if self._was_read else 0.0
            self._epoch -= 0.0 if self._was_read else loop.time()
            self._loop, self._was_read = loop, True
        self._last = loop.time() - self._offset
        return self._last

    def unix_time(self) -> float:
        """Return the Unix time, which advances with virtual time."""
        return self._epoch + self.now()
