"""The store of a process, where its queues mark work with an idempotency key."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from worker.aws.session import AwsClients
from worker.idempotency import Store, StoreError, open_store
from worker.router import Router
from worker.settings import FleetSettings

__all__ = ["kept_open", "marks_store"]

OPEN_SECONDS = 5.0
CLOSE_SECONDS = 2.0

log = structlog.get_logger("idempotency")


def marks_store(settings: FleetSettings, routers: Mapping[str, Router], clients: AwsClients) -> Store | None:
    """Return the fleet's store, not yet opened; `None` when none is named or no handler needs it."""
    idempotency = settings.idempotency
    is_needed = any(route.idempotency_key is not None for router in routers.values() for route in router.routes)
    if idempotency.store is None or not is_needed:
        return None
    return open_store(idempotency.store, retention_seconds=idempotency.retention_seconds, dynamodb=clients.dynamodb)


@asynccontextmanager
async def kept_open(store: Store) -> AsyncIterator[None]:
    """Have the store open while inside; where it cannot be reached yet, each queue goes on trying.

    Raises `ConfigError` when it can never be used as it is.
    """
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            await store.open()
            for doubt in await store.doubts():
                log.warning("the idempotency store may hurt", warning=doubt)
    except (StoreError, TimeoutError) as error:
        log.warning("the idempotency store cannot be reached yet: nothing is received until it is", error=str(error) or f"no answer within {OPEN_SECONDS:g} s")  # fmt: skip
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await store.close()
        except TimeoutError:
            log.warning("the idempotency store was not closed in time")
