"""`MemoryObjects`: an S3 in memory, for tests of large payloads."""

import asyncio
from collections import deque

from worker.errors import Fault, SourceError
from worker.objects import S3Pointer

__all__ = ["MemoryObjects"]


class MemoryObjects:
    """Keeps payloads by pointer. `fail` lets the next calls fail, as S3 does; `seconds` is how long a fetch takes."""

    def __init__(self) -> None:
        self.payloads: dict[S3Pointer, bytes] = {}
        """What is stored."""
        self.fetched: list[S3Pointer] = []
        """What was asked for, in order, also in vain."""
        self.seconds = 0.0
        self._faults: deque[Fault] = deque()

    def fail(self, fault: Fault, *, calls: int = 1) -> None:
        """Let the next calls fail."""
        self._faults.extend([fault] * calls)

    async def fetch(self, pointer: S3Pointer, max_bytes: int) -> str:
        """Return the text of an object."""
        self.fetched.append(pointer)
        await asyncio.sleep(self.seconds)
        self._strike()
        if pointer not in self.payloads:
            raise SourceError(Fault.MISSING, "NoSuchKey")
        body = self.payloads[pointer]
        if len(body) > max_bytes:
            raise SourceError(Fault.INVALID, "TooLarge", f"it is larger than {max_bytes:,} bytes")
        return body.decode()

    async def put(self, pointer: S3Pointer, body: bytes) -> None:
        """Keep a text."""
        self._strike()
        self.payloads[pointer] = body

    async def delete(self, pointer: S3Pointer) -> None:
        """Forget an object."""
        self._strike()
        self.payloads.pop(pointer, None)

    async def close(self) -> None:
        """Do nothing: what was stored stays."""

    def _strike(self) -> None:
        if self._faults:
            fault = self._faults.popleft()
            raise SourceError(fault, f"Memory{fault.name.title()}")
