"""`serve`: a relay with its database and its publisher, which goes on when the database was away."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import structlog

from worker.errors import UsageError
from worker.outbox.relay import Relay, pause
from worker.outbox.store import Outbox, sole_relay
from worker.publisher import Publisher
from worker.sql.database import Database, open_database
from worker.sql.tables import prune, require_tables
from worker.telemetry.logged_state import LoggedState

__all__ = ["drain", "serve"]

PRUNE_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 5.0

log = structlog.get_logger("outbox")


async def drain(url: str, topic: str, publisher: Publisher, stopped: asyncio.Event) -> int:
    """Send what waits for one topic, and return how many events that were. Raises `UsageError` for what cannot work."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sole_relay(url, topic))
        database = await _opened(stack, url)
        await stack.enter_async_context(publisher)
        return await Relay(Outbox(database, topic), publisher, stopped).drain()


async def serve(url: str, topic: str, publisher: Publisher, stopped: asyncio.Event) -> int:
    """Send one topic's events until `stopped` is set; return how many were sent or refused for good.

    Raises `UsageError` for what cannot work at the start; later, a database that is away is tried again.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sole_relay(url, topic))
        await _opened(stack, url)  # a mistake is told before anything runs
        await stack.enter_async_context(publisher)
        log.info("started", topic=topic)
        state = LoggedState(log, f"the outbox of {topic}")
        total = 0
        while not stopped.is_set():
            try:
                async with AsyncExitStack() as session:
                    database = await _opened(session, url)
                    state.recovered()
                    async for ended in _steps(database, topic, publisher, stopped):
                        total += ended
            except (UsageError, OSError) as error:  # it is away, or was for now
                state.failed(type(error).__name__, str(error))
                await pause(stopped, random.uniform(0, AGAIN_SECONDS))
        return total


async def _steps(database: Database, topic: str, publisher: Publisher, stopped: asyncio.Event) -> AsyncIterator[int]:
    """Send, and prune once an hour."""
    relay = Relay(Outbox(database, topic), publisher, stopped)
    pruned_at = float("-inf")
    while not stopped.is_set():
        if time.monotonic() - pruned_at > PRUNE_SECONDS:
            await prune(database)
            pruned_at = time.monotonic()
        yield await relay.turn()


async def _opened(stack: AsyncExitStack, url: str) -> Database:
    database = await stack.enter_async_context(open_database(url))
    await require_tables(database)
    return database
