"""The relays of a process: they send what its handlers stored in the outbox, and end after them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from worker.errors import LongshoreError
from worker.outbox.serving import PATIENCE_SECONDS, Serving
from worker.publisher import Publisher, Topic
from worker.settings import Address, FleetSettings
from worker.telemetry.metrics import Metrics

__all__ = ["OpenTopic", "Relays", "open_relays"]

RESTART_SECONDS = 1.0
LAST_CALL_SECONDS = 1.0
"""What a call that is on the wire may take at the end; after that it is not noted, and sent again."""

OpenTopic = Callable[[str], Topic]
"""Opens a topic by its name or ARN."""

log = structlog.get_logger("outbox")


@asynccontextmanager
async def open_relays(settings: FleetSettings, open_topic: OpenTopic, metrics: Metrics) -> AsyncIterator["Relays"]:
    """Run a relay for each topic of `outbox.topics` while inside; `UsageError` for missing tables, and what else cannot work."""
    async with AsyncExitStack() as stack:
        relays = []
        for text in settings.outbox.topics:
            declared = settings.topics[Address.of_topic(text).name]
            address = text if text != declared.name else declared.address
            publisher = Publisher(
                open_topic(address), patience_seconds=PATIENCE_SECONDS, large_payloads=declared.large_payloads
            )
            relays.append(
                await stack.enter_async_context(Serving(str(settings.outbox.database), publisher, metrics.outbox(text)))
            )
        running = Relays(relays)
        try:
            yield running
        finally:
            await running.end()


class Relays:
    """The relays that run."""

    def __init__(self, relays: Sequence[Serving] = ()) -> None:
        self._relays = relays
        self._tasks = {asyncio.create_task(_kept(relay), name=f"outbox-{relay.topic}") for relay in relays}

    def problems(self) -> list[str]:
        """Return why events do not go out, one sentence for each outbox that is in trouble."""
        return [problem for relay in self._relays for problem in relay.problems()]

    async def drain(self, ends_at: float) -> None:
        """Send what waits, until a moment of the loop's clock at most; what does not make it stays in its table."""
        for relay in self._relays:
            relay.stop.when_empty()
        await self._ended(ends_at - LAST_CALL_SECONDS)
        self.hasten()
        await self._ended(ends_at)

    def hasten(self) -> None:
        """Send nothing more."""
        for relay in self._relays:
            relay.stop.now()

    async def end(self) -> None:
        """Leave nothing running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ended(self, at: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, at - asyncio.get_running_loop().time()))


async def _kept(relay: Serving) -> None:
    """Run a relay, and start it again when it crashes."""
    while True:
        try:
            return await relay.run()
        except Exception as error:
            log.exception("a relay crashed", topic=relay.topic)
            relay.fails(LongshoreError(f"it crashed with {type(error).__name__}, and the log says where"))
        if relay.stop.is_asked:
            return None
        await relay.stop.pause(RESTART_SECONDS)
