"""`Relay`: publishes what the outbox holds, at least once, in order within each group."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from worker.errors import Fault
from worker.outbox.publish import read_attributes
from worker.outbox.store import Outbox, Stored, Taken
from worker.publisher import Outgoing, Publisher, PublishError
from worker.telemetry.logged_state import LoggedState
from worker.telemetry.metrics import OutboxMetrics

__all__ = ["Relay", "Stop"]

LOOK_SECONDS: Final = 0.5
"""How often an outbox that was empty is looked at again."""
STEP_SECONDS: Final = 30.0
"""After that long what was sent is noted, before the rest is."""
BASE_SECONDS: Final = 0.5
CAP_SECONDS: Final = 20.0

log = structlog.get_logger("outbox")


class Stop:
    """How a relay is told to end: at once, or when nothing waits any more. Asking cuts every pause short."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.is_now = False
        """Whether nothing new is sent; what is on the wire is still noted."""

    @property
    def is_asked(self) -> bool:
        """Whether it is to end."""
        return self._asked.is_set()

    def when_empty(self) -> None:
        """End when nothing waits or SNS takes none."""
        self._asked.set()

    def now(self) -> None:
        """End when what is on the wire is noted."""
        self.is_now = True
        self._asked.set()

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until it is asked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asked.wait()


class Relay:
    """Carries one topic's events from the outbox to an open publisher.

    1. Lanes go side by side and share calls of ten; within a lane, an event is sent when the one before it was taken.
    2. It is noted after it was sent. Whatever happens between the two, it is sent again, with the same key.
    3. What may pass is tried again, with full jitter up to 20 s, and its lane waits. What SNS will never take is noted with
       the reason, logged as an error, and its lane goes on, as a FIFO queue does after a dead letter.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, metrics: OutboxMetrics, stop: Stop) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._metrics = metrics
        self._stop = stop
        self.problem: str | None = None
        """What SNS said last, while it does not take everything."""
        self.sent = 0
        """How many events were sent so far."""
        self.refused = 0
        """How many were refused for good so far."""
        self._state = LoggedState(log, f"sending the outbox to {publisher.topic}")
        self._failures = 0
        self._ends_at = 0.0

    async def turn(self) -> int:
        """Take one step; wait after it when nothing waited or SNS took none, but not once it is stopped."""
        sent = await self.step()
        if self._failures:
            await self._stop.pause(random.uniform(0, min(CAP_SECONDS, BASE_SECONDS * 2 ** min(self._failures, 10))))
        elif not sent:
            await self._stop.pause(LOOK_SECONDS)
        return sent

    async def drain(self) -> None:
        """Send what waits, until nothing does or SNS takes none; `problem` tells which."""
        while not self._stop.is_now and await self.step():
            pass

    async def step(self) -> int:
        """Send some of what waits; return how many were sent or refused for good, 0 when nothing waits or SNS takes none."""
        failed: list[PublishError] = []
        self._ends_at = asyncio.get_running_loop().time() + STEP_SECONDS
        async with self._outbox.take() as taken:
            # Started in turn: a lane's first events share calls in the order in which they were stored.
            await asyncio.gather(*(self._send(lane, taken, failed) for lane in taken.lanes))
        self._failures = self._failures + 1 if failed and not taken.sent else 0
        self.sent += len(taken.sent)
        self.refused += len(taken.refused)
        self._metrics.sent(len(taken.sent))
        self._metrics.refused(len(taken.refused))
        if failed:
            self.problem = str(failed[0])
            self._state.failed(failed[0].code, self.problem)
        elif taken.sent or not taken.lanes:
            self.problem = None
            self._state.recovered()
        return len(taken.sent) + len(taken.refused)

    async def _send(self, lane: Sequence[Stored], taken: Taken, failed: list[PublishError]) -> None:
        for stored in lane:
            if self._stop.is_now or asyncio.get_running_loop().time() > self._ends_at:
                return
            try:
                await (await self._publisher.submit(_outgoing(stored)))
            except PublishError as error:
                if error.fault is not Fault.INVALID:
                    failed.append(error)
                    return
                self._refuse(stored, str(error), taken)
            else:
                taken.sent.append(stored.id)

    def _refuse(self, stored: Stored, why: str, taken: Taken) -> None:
        log.error("an event of the outbox was refused", id=stored.id, topic=self._publisher.topic, reason=why)
        taken.refused.append((stored.id, why))


def _outgoing(stored: Stored) -> Outgoing:
    attributes = read_attributes(stored.attributes)
    return Outgoing(stored.event_type, stored.body, attributes, stored.group_id, stored.deduplication_id)
