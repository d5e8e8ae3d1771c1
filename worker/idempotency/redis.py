"""`RedisStore`: marks in Redis or Valkey, for the processes of many machines."""

from collections.abc import Sequence
from typing import Any, Final

from worker.errors import ConfigError
from worker.eviction import doubts_of
from worker.idempotency.store import VERSION, Answer, Begun, Done, Mark, Other, Running, StoreError
from worker.settings.base import masked

__all__ = ["RedisStore"]

PREFIX: Final = "longshore:idempotency:"
VERSION_KEY: Final = f"{PREFIX}version"
CALL_SECONDS: Final = 4.0

# A key holds its fingerprint, a colon and its owner; nobody owns what is done. It expires with its mark or with the retention.
_BEGIN: Final = """
local kept, ours = redis.call('GET', KEYS[1]), ARGV[1] .. ':' .. ARGV[2]
if not kept or kept == ours then
    redis.call('SET', KEYS[1], ours, 'PX', ARGV[3])
    return {'begun', 0}
end
local colon = string.find(kept, ':', 1, true)
if string.sub(kept, 1, colon - 1) ~= ARGV[1] then return {'other', 0} end
if colon == #kept then return {'done', 0} end
return {'running', redis.call('PTTL', KEYS[1])}
"""
_FINISH: Final = "redis.call('SET', KEYS[1], ARGV[1] .. ':', 'PX', ARGV[3])"
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then redis.call('DEL', KEYS[1]) end
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
"""


class RedisStore:
    """One key for each mark, and one script for each step, so that it is atomic; a call is one round trip.

    The clock is the server's. It must not evict keys (`maxmemory-policy noeviction`): what it forgets is run again.
    """

    def __init__(self, url: str, *, retention_seconds: float) -> None:
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError:
            raise ConfigError(
                "idempotency.store is a Redis, but its client is not installed: pip install 'longshore[redis]'"
            ) from None
        self._place = masked(url)
        self._retention_seconds = retention_seconds
        self._errors = (RedisError, OSError)
        try:
            self._client: Any = redis.Redis.from_url(
                url, decode_responses=True, socket_timeout=CALL_SECONDS, socket_connect_timeout=CALL_SECONDS
            )
        except ValueError:  # its text quotes what it could not read, which may be a part of the password
            raise ConfigError(
                "idempotency.store is no URL of Redis, and is not quoted as it may hold a password: "
                "write redis://HOST:PORT/NUMBER, and %40, %2F or %3A for @, / or : in a password"
            ) from None

    async def open(self) -> None:
        """Reach the server, and refuse what another version of Longshore has written."""
        try:
            await self._client.set(VERSION_KEY, VERSION, nx=True)
        except self._errors as error:
            raise self._failure(error) from error
        await self.is_made()

    async def is_made(self) -> bool:
        """Look whether a worker has written here yet."""
        try:
            version = await self._client.get(VERSION_KEY)
        except self._errors as error:
            raise self._failure(error) from error
        if version not in {None, str(VERSION)}:
            raise ConfigError(
                f"the idempotency store {self._place} has version {version}, but this release reads {VERSION}: "
                f"run the release that wrote it, or name another database"
            )
        return version is not None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        """Mark as in progress what is free."""
        return [_answer(*said) for said in await self._each(_BEGIN, marks)]

    async def finish(self, marks: Sequence[Mark]) -> None:
        """Mark as done."""
        await self._each(_FINISH, [mark._replace(seconds=self._retention_seconds) for mark in marks])

    async def release(self, marks: Sequence[Mark]) -> None:
        """Free the keys."""
        await self._each(_RELEASE, marks)

    async def renew(self, marks: Sequence[Mark]) -> None:
        """Push the ends back."""
        await self._each(_RENEW, marks)

    async def prune(self) -> int:
        """Leave it to the server, whose keys expire."""
        return 0

    async def doubts(self) -> list[str]:
        """Ask the server whether it evicts keys."""
        return await doubts_of(self._client, self._errors)

    async def _each(self, script: str, marks: Sequence[Mark]) -> list[Any]:
        """Run the script for each mark, all of them in one round trip."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for mark in marks:
                    milliseconds = max(1, round(mark.seconds * 1000))
                    pipeline.eval(script, 1, PREFIX + mark.key, mark.fingerprint, mark.owner, milliseconds)
                said: list[Any] = await pipeline.execute()
        except self._errors as error:
            raise self._failure(error) from error
        return said

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"{self._place} ({str(error) or type(error).__name__})")


def _answer(kind: str, milliseconds: int) -> Answer:
    match kind:
        case "begun":
            return Begun()
        case "done":
            return Done()
        case "other":
            return Other()
        case _:
            return Running(max(0, milliseconds) / 1000)
