"""The gate of intake: while nothing can be settled, nothing is received."""

import asyncio

from worker.engine.backoff import full_jitter
from worker.engine.clock import Clock
from worker.errors import Fault, SourceError
from worker.source import Source

__all__ = ["Gate"]

PATIENCE_SECONDS = 10.0
"""How long settlements may fail for passing reasons before intake stops."""
PROBE_CAP_SECONDS = 15.0


class Gate:
    """Closed while deletes or visibility changes are denied, or none has succeeded for ten seconds although some were due.

    Without it every message would run `attempts` times and be dead-lettered although its work was done.
    """

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._failing_since: float | None = None
        self._last_failure = ""
        self._is_denied = False

    @property
    def is_closed(self) -> bool:
        """Whether intake is stopped."""
        if self._failing_since is None:
            return False
        return self._is_denied or self._clock.now() - self._failing_since >= PATIENCE_SECONDS

    @property
    def problem(self) -> str | None:
        """One sentence about why intake is stopped."""
        if not self.is_closed:
            return None
        return f"nothing is received because deletes and visibility changes fail ({self._last_failure})"

    def answered(self) -> None:
        """SQS has taken a settlement call, even if it refused an entry of it."""
        self._failing_since = None
        self._is_denied = False

    def failed(self, fault: Fault, code: str) -> None:
        """A settlement call failed."""
        if fault in {Fault.LOST, Fault.INVALID}:
            self.answered()
            return
        if self._failing_since is None:
            self._failing_since = self._clock.now()
        self._is_denied = self._is_denied or fault is Fault.DENIED
        self._last_failure = code

    async def wait_until_open(self, stopping: asyncio.Event) -> None:
        """Return once a settlement has succeeded, or at the stop; ask SQS with a call that touches no message."""
        failures = 0
        while self.is_closed and not stopping.is_set():
            failures += 1
            try:
                async with asyncio.timeout(1 + full_jitter(failures, base_seconds=1, cap_seconds=PROBE_CAP_SECONDS)):
                    await stopping.wait()
            except TimeoutError:
                if self.is_closed:
                    await self._probe()

    async def _probe(self) -> None:
        try:
            await self._source.check_settlement()
        except SourceError as error:
            self.failed(error.fault, error.code)
        else:
            self.answered()
