"""`Serving`: a relay with its database and its publisher, which goes on when the database was away."""

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

import structlog

from worker.errors import LongshoreError
from worker.outbox.relay import Relay, Stop
from worker.outbox.store import OtherRelayError, Outbox, sole_relay
from worker.publisher import Publisher
from worker.sql.database import Database, UnreachableError, open_database
from worker.sql.tables import prune, require_tables
from worker.telemetry.logged_state import LoggedState
from worker.telemetry.metrics import OutboxMetrics

__all__ = ["PATIENCE_SECONDS", "Drained", "Serving", "drain"]

PATIENCE_SECONDS: Final = 10.0
"""How long an event is tried before its row is let go of, for this relay or another one."""
OPEN_SECONDS: Final = 5.0
"""How long a start waits for the database before it goes on without it."""
CALL_SECONDS: Final = 8.0
"""How long a statement of the relay's may take: a database that hangs is told of when `LASTING_SECONDS` are over."""
CLOSE_SECONDS: Final = 0.2
AGAIN_SECONDS: Final = 5.0
STAND_BY_SECONDS: Final = 1.0
LASTING_SECONDS: Final = 10.0
"""What fails for a shorter time is nobody's business."""
COUNT_SECONDS: Final = 30.0
PRUNE_SECONDS: Final = 3600.0

log = structlog.get_logger("outbox")


class Drained(NamedTuple):
    """What became of the events that waited for one topic."""

    sent: int
    refused: int
    """How many SNS will never take."""
    waiting: int
    """How many wait still, because SNS did not take them."""
    problem: str | None
    """What it said to that."""


async def drain(url: str, publisher: Publisher, *, topic: str, stop: Stop) -> Drained:
    """Send what waits for one topic. Raises `UsageError` for what cannot work, `UnreachableError` for a database that is away."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sole_relay(url, topic))
        database = await _opened(stack, url)
        await stack.enter_async_context(publisher)
        outbox = Outbox(database, topic)
        relay = Relay(outbox, publisher, OutboxMetrics(topic), stop)
        await relay.drain()
        waiting = 0 if relay.problem is None else (await outbox.waiting()).events
        return Drained(relay.sent, relay.refused, waiting, relay.problem)


class Serving:
    """The relay of one topic; `async with`, and inside of it `run`.

    1. Entering raises `UsageError` for what cannot work: missing tables, or those of another version. A database that is
       away is tried again by `run`; with `needs_database` entering raises `UnreachableError`.
    2. On SQLite there is one relay a topic. Whoever comes second stands by until the first one's process has ended.
    3. What fails later is tried again for ever; `problems` tells what has failed for a while.
    """

    def __init__(
        self,
        url: str,
        publisher: Publisher,
        metrics: OutboxMetrics,
        *,
        stop: Stop | None = None,
        needs_database: bool = False,
    ) -> None:
        self.topic = metrics.topic
        self.stop = stop or Stop()
        """How `run` is ended."""
        self._url = url
        self._publisher = publisher
        self._metrics = metrics
        self._needs_database = needs_database
        self._state = LoggedState(log, f"the outbox of {self.topic}")
        self._said: str | None = None
        self._worked_at = 0.0
        self._pruned_at = float("-inf")
        self._is_reached = False

    async def __aenter__(self) -> Self:
        await self._publisher.open()
        try:
            await self._look()
        except BaseException:
            await self._publisher.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TimeoutError):  # then the last ones stay in the table
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._publisher.close()

    def problems(self) -> list[str]:
        """Return why events do not go out: what was never reached, and what has failed for a while."""
        is_told = self._said and (not self._is_reached or time.monotonic() - self._worked_at > LASTING_SECONDS)
        return [f"outbox {self.topic}: {self._said}"] if is_told else []

    async def run(self) -> None:
        """Send events until `stop`."""
        async with AsyncExitStack() as stack:
            if not await self._is_alone(stack):
                return None
            log.info("started", topic=self.topic)
            while True:
                try:
                    async with AsyncExitStack() as session:
                        return await self._send(await _opened(session, self._url))
                except (LongshoreError, OSError) as error:  # it is away, or was for now
                    self.fails(error)
                if self.stop.is_asked:
                    return None
                await self.stop.pause(random.uniform(0, AGAIN_SECONDS))

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(OPEN_SECONDS), AsyncExitStack() as session:
                await _opened(session, self._url)
        except (UnreachableError, TimeoutError) as error:
            silent = f"the database of the outbox did not answer within {OPEN_SECONDS:g} s: see whether it is there"
            away = UnreachableError(str(error) or silent)
            if self._needs_database:
                raise away from None
            self.fails(away)
        else:
            self._works()

    async def _is_alone(self, stack: AsyncExitStack) -> bool:
        """Wait until there is no other relay where there can be but one; false when it was told to end before."""
        is_said = False
        while True:
            try:
                await stack.enter_async_context(sole_relay(self._url, self.topic))
            except OtherRelayError:
                if self.stop.is_asked:
                    return False
                if not is_said:
                    log.info("another process sends the outbox, this one stands by", topic=self.topic)
                is_said = True
                await self.stop.pause(STAND_BY_SECONDS)
            else:
                return True

    async def _send(self, database: Database) -> None:
        """Send until `stop`; count what waits now and then, and prune once an hour."""
        outbox = Outbox(database, self.topic)
        relay = Relay(outbox, self._publisher, self._metrics, self.stop)
        counted_at = float("-inf")
        self._works()
        while not self.stop.is_now:
            now = time.monotonic()
            if now - self._pruned_at > PRUNE_SECONDS:
                self._pruned_at = now  # also when it fails: sending goes first
                async with open_database(self._url) as patient:  # to delete a lot may take long
                    await prune(patient)
            if now - counted_at > COUNT_SECONDS:
                self._metrics.waiting(*await outbox.waiting())
                counted_at = now
            is_last = self.stop.is_asked  # a look that began before does not count
            ended = await relay.turn()
            self._tell(relay.problem)
            if is_last and not ended:
                return

    def _works(self) -> None:
        self._is_reached = True
        self._tell(None)
        self._state.recovered()

    def fails(self, error: Exception) -> None:
        """Take note that it does not work now."""
        said = str(error) or type(error).__name__
        self._tell(said)
        self._metrics.unknown()
        self._state.failed(type(error).__name__, said)

    def _tell(self, said: str | None) -> None:
        """Take note of what is wrong now; how long it has been counts from when it last worked."""
        if said is None:
            self._worked_at = time.monotonic()
        self._said = said


async def _opened(stack: AsyncExitStack, url: str) -> Database:
    database = await stack.enter_async_context(open_database(url, statement_seconds=CALL_SECONDS))
    await require_tables(database)
    return database
