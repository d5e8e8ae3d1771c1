"""Opens the limits of a fleet: what counts in this process, and what counts in a store."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

import structlog

from worker.errors import UsageError
from worker.limits.limiter import Limiter
from worker.limits.local import LocalLimiter
from worker.limits.shared import LEASE_SECONDS, SharedLimiter
from worker.limits.store import Claim, PermitStore
from worker.settings import LimitSettings
from worker.telemetry.metrics import LimitMetrics

__all__ = ["ask_store", "open_limits"]

RESTART_SECONDS = 1.0

log = structlog.get_logger("limits")


@asynccontextmanager
async def open_limits(
    declared: Mapping[str, LimitSettings],
    used: Collection[str],
    *,
    service: str,
    metrics: Callable[[str], LimitMetrics],
    now: Callable[[], float],
) -> AsyncIterator[dict[str, Limiter]]:
    """Keep the limits that are used, by name, while inside; raises `UsageError` when what one needs is not installed."""
    limits: dict[str, Limiter] = {}
    stores: dict[str, PermitStore] = {}
    for name, settings in declared.items():
        if name not in used:
            continue
        if settings.store is None:
            limits[name] = LocalLimiter(name, settings, metrics(name))
        else:
            stores[name] = _redis(settings.store, service, name)
            limits[name] = SharedLimiter(name, settings, stores[name], metrics(name), now=now)
    tasks = [asyncio.create_task(_kept(limit), name=f"limit-{limit.name}") for limit in limits.values()]
    tasks += [asyncio.create_task(_doubted(*each), name=f"limit-doubts-{each[0]}") for each in stores.items()]
    try:
        yield limits
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for store in stores.values():
            await store.close()


async def _doubted(name: str, store: PermitStore) -> None:
    """Say at the start what is doubtful about a store."""
    for doubt in await store.doubts():
        log.warning("the store of a limit may lose permits", limit=name, warning=doubt)


async def _kept(limit: Limiter) -> None:
    """Run a limit's loop, and start it again when it crashes: nothing starts without it, but what runs goes on."""
    while True:
        try:
            return await limit.run()
        except Exception:
            log.exception("a limit's loop crashed", limit=limit.name)
        await asyncio.sleep(RESTART_SECONDS)


async def ask_store(url: str, service: str, name: str, places: int | None) -> list[str]:
    """Claim nothing and leave, as a worker would claim permits: the same script, so its permissions are tried, too.

    Returns what is doubtful about the store; raises `StoreError` when there is no answer, `UsageError` when its client is not installed, or for what is no URL.
    """
    permits = _redis(url, service, name)
    try:
        await permits.claim(Claim(secrets.token_hex(8), 1, 0, 0, places, LEASE_SECONDS, is_leaving=True))
        return await permits.doubts()
    finally:
        await permits.close()


def _redis(url: str, service: str, name: str) -> PermitStore:
    try:
        from worker.limits.redis import RedisPermits
    except ImportError:
        raise UsageError(
            f"limit {name} counts in Redis, whose client is not installed: pip install 'longshore[redis]'"
        ) from None
    try:
        return RedisPermits(url, service, name)
    except ValueError:  # its text quotes what it could not read, which may be a part of the password
        raise UsageError(
            f"limits.{name}.store is no URL of Redis, and is not quoted as it may hold a password: "
            f"write redis://HOST:PORT/NUMBER, and %40, %2F or %3A for @, / or : in a password"
        ) from None
