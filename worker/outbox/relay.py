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

__all__ = ["Relay", "pause"]

LOOK_SECONDS: Final = 0.5
"""How often an outbox that was empty is looked at again."""
STEP_SECONDS: Final = 30.0
"""After that long what was sent is noted, before the rest is."""
BASE_SECONDS: Final = 0.5
CAP_SECONDS: Final = 20.0

log = structlog.get_logger("outbox")


class Relay:
    """Carries one topic's events from the outbox to an open publisher.

    1. Lanes go side by side and share calls of ten; within a lane, an event is sent when the one before it was taken.
    2. It is noted after it was sent. Whatever happens between the two, it is sent again, with the same key.
    3. What may pass is tried again, with full jitter up to 20 s, and its lane waits. What SNS will never take is noted with
       the reason, logged as an error, and its lane goes on, as a FIFO queue does after a dead letter.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, stopped: asyncio.Event) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._stopped = stopped
        self._state = LoggedState(log, f"sending the outbox to {publisher.topic}")
        self._failures = 0
        self._ends_at = 0.0

    async def turn(self) -> int:
        """Take one step; wait after it when nothing waited or SNS took none, but not once it is stopped."""
        sent = await self.step()
        if self._failures:
            await pause(self._stopped, random.uniform(0, min(CAP_SECONDS, BASE_SECONDS * 2 ** min(self._failures, 10))))
        elif not sent:
            await pause(self._stopped, LOOK_SECONDS)
        return sent

    async def drain(self) -> int:
        """Send what waits, until nothing does or SNS takes none; return how many were sent or refused for good."""
        total = 0
        while not self._stopped.is_set() and (ended := await self.step()):
            total += ended
        return total

    async def step(self) -> int:
        """Send some of what waits; return how many were sent or refused for good, 0 when nothing waits or SNS takes none."""
        failed: list[PublishError] = []
        self._ends_at = asyncio.get_running_loop().time() + STEP_SECONDS
        async with self._outbox.take() as taken:
            # Started in turn: a lane's first events share calls in the order in which they were stored.
            await asyncio.gather(*(self._send(lane, taken, failed) for lane in taken.lanes))
        self._failures = self._failures + 1 if failed and not taken.sent else 0
        if failed:
            self._state.failed(failed[0].code, str(failed[0]))
        elif taken.sent:
            self._state.recovered()
        return len(taken.sent) + len(taken.refused)

    async def _send(self, lane: Sequence[Stored], taken: Taken, failed: list[PublishError]) -> None:
        for stored in lane:
            if self._stopped.is_set() or asyncio.get_running_loop().time() > self._ends_at:
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


async def pause(stopped: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until `stopped` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped.wait()
