"""Events that are too large for a message: their payload goes to S3, and a pointer to it travels."""

import asyncio
import random
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from worker.errors import SourceError
from worker.objects import Objects, S3Pointer
from worker.publisher.errors import not_stored

__all__ = ["LargePayloads", "Storage"]

UPLOADS: Final = 8
"""Payloads on their way at once; whatever more there is waits for its turn, not for its deadline."""
_BASE_SECONDS: Final = 0.1
_CAP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LargePayloads:
    """Asks a publisher to put large payloads into S3: `Publisher("orders", large_payloads=LargePayloads("my-bucket"))`."""

    bucket: str
    above_bytes: int = 262_144
    """Events that are larger than this, with their attributes, go through S3; 0 sends all of them there."""
    objects: Objects | None = None
    """Where they are put instead: `worker.testing.MemoryObjects`."""


class Storage:
    """Puts payloads into one bucket; what may pass is tried again with full jitter for `patience_seconds`."""

    def __init__(self, bucket: str, objects: Objects, patience_seconds: float) -> None:
        self._bucket = bucket
        self._objects = objects
        self._patience_seconds = patience_seconds
        self._room = asyncio.Semaphore(UPLOADS)

    async def put(self, event_type: str, body: str) -> S3Pointer:
        """Store a payload under a key that nobody guesses, and return where it is; raise `PublishError`."""
        pointer = S3Pointer(self._bucket, str(uuid4()))
        async with self._room:
            error = await self._insist(pointer, body.encode())
        if error is not None:
            raise not_stored(event_type, self._bucket, error, self._patience_seconds)
        return pointer

    async def close(self) -> None:
        """Close the connections."""
        await self._objects.close()

    async def _insist(self, pointer: S3Pointer, body: bytes) -> SourceError | None:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + self._patience_seconds
        failures = 0
        while True:
            try:
                await self._objects.put(pointer, body)
            except SourceError as error:
                failures += 1
                delay = random.uniform(0, min(_CAP_SECONDS, _BASE_SECONDS * 2 ** min(failures, 10)))
                if not error.fault.may_pass or clock() + delay >= ends_at:
                    return error
            else:
                return None
            await asyncio.sleep(delay)
