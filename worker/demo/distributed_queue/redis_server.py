"""The Redis in which the demo's workers count together: the user's, or one of our own; without either they cannot."""

import asyncio
import importlib.util
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

from worker.demo.tethered import Tethered
from worker.errors import LongshoreError, UsageError
from worker.limits import StoreError, ask_store

__all__ = ["open_redis"]

_HOST: Final = "127.0.0.1"
_SCHEMES: Final = ("redis://", "rediss://")
_START_SECONDS: Final = 10.0
_END_SECONDS: Final = 2.0
_NOBODY: Final = ("longshore-demo", "asked", 1)
"""The service and the limit under which a Redis is asked whether it serves."""


@asynccontextmanager
async def open_redis(given: str | None, folder: Path) -> AsyncIterator[str | None]:
    """Yield the URL of a Redis that answers: the given one, or one that is started and ends with us; `None` without both.

    Raises `UsageError` when the given one does not answer, or when Redis's client is not installed.
    """
    has_client = importlib.util.find_spec("redis") is not None
    if given is not None:
        if not has_client:
            wheel = f"longshore-{metadata.version('longshore')}-py3-none-any.whl"
            raise UsageError(f"--redis needs Redis's client, which is not installed: pip install '{wheel}[redis]'")
        if not given.startswith(_SCHEMES):
            raise _refused()
        try:
            await ask_store(given, *_NOBODY)
        except UsageError:  # its text may quote a part of the password
            raise _refused() from None
        except StoreError as error:
            raise UsageError(
                f"the Redis that --redis names does not serve ({error}); start it, or correct its address"
            ) from None
        yield given
        return
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None or not has_client:
        yield None
        return
    async with _own_redis(program, folder) as url:
        yield url


@asynccontextmanager
async def _own_redis(program: str, folder: Path) -> AsyncIterator[str]:
    """Start a Redis on loopback that keeps nothing; its password is read from standard input, so that nobody sees it."""
    password = secrets.token_urlsafe()
    with socket.create_server((_HOST, 0)) as taken:
        port = taken.getsockname()[1]
    settings = f"bind {_HOST}\nport {port}\nsave ''\nappendonly no\nrequirepass {password}\n"
    redis = await Tethered.start("Redis", (program, "-"), folder / "redis.log", {}, told=settings)
    try:
        url = f"redis://:{password}@{_HOST}:{port}/0"
        await _until_it_answers(url, redis)
        yield url
    finally:
        await redis.end(within_seconds=_END_SECONDS)


async def _until_it_answers(url: str, redis: Tethered) -> None:
    ends_at = time.monotonic() + _START_SECONDS
    while True:
        try:
            await ask_store(url, *_NOBODY)
        except StoreError as error:
            if redis.status is not None or time.monotonic() > ends_at:
                raise LongshoreError(f"Redis did not start: {redis.last_words} ({error})") from None
            await asyncio.sleep(0.05)
        else:
            return


def _refused() -> UsageError:
    return UsageError(
        "the address that --redis gives is none of Redis; allowed is one such as redis://localhost:6379/0, with special "
        "characters of a password written as %XX"
    )
