"""Permits and rates in Redis: one atomic script for each, by Redis's clock."""

import asyncio
import math
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.eviction import doubts_of
from worker.limits.store import Answer, Claim, StoreError

__all__ = ["RedisPermits"]

CALL_SECONDS = 2.0
"""One outer deadline for each call, the connection included."""
MILLION = 1_000_000
FOREVER_MILLISECONDS = -1

T = TypeVar("T")

# KEYS: owners (owner -> when its permits end, ms), held (owner -> permits), line (owner -> ticket), numbers (owner -> last claim), hearing
# ARGV: owner, number, held, wanted, places (-1: none), lease ms, whether it is leaving, prefix of the keys that wake, whether it is returning
_CLAIM = """
local owners, held, line, numbers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner, mine, wanted, places, lease = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(who)
  redis.call('ZREM', owners, who); redis.call('ZREM', line, who)
  redis.call('HDEL', held, who); redis.call('HDEL', numbers, who)
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', owners, '-inf', now)) do forget(dead) end

if tonumber(ARGV[2]) <= tonumber(redis.call('HGET', numbers, owner) or 0) then
  return redis.error_reply('LATE a later claim of this owner was answered already')
end

if ARGV[9] == '1' and not redis.call('ZSCORE', owners, owner) then redis.call('SET', KEYS[5], 1, 'NX', 'PX', lease / 2) end
local hearing = redis.call('PTTL', KEYS[5])

local others = 0
local all = redis.call('HGETALL', held)
for i = 1, #all, 2 do
  if all[i] ~= owner then others = others + tonumber(all[i + 1]) end
end
local granted, free = 0, 0
if places >= 0 then
  local known = tonumber(redis.call('HGET', held, owner) or 0)
  if mine > known then mine = known + math.max(0, math.min(mine - known, places - others - known)) end
  if hearing < 0 then free = places - others - mine end
end

if ARGV[7] == '1' then
  forget(owner)
else
  if wanted > 0 then
    if not redis.call('ZSCORE', line, owner) then
      redis.call('ZADD', line, redis.call('HINCRBY', numbers, '', 1), owner)
    end
    local ahead, waiting = redis.call('ZRANK', line, owner), redis.call('ZCARD', line) - 1
    if free > ahead then
      granted = math.max(1, math.min(wanted, free - waiting))
      redis.call('ZREM', line, owner)
    end
  else
    redis.call('ZREM', line, owner)
  end
  redis.call('ZADD', owners, now + lease, owner)
  redis.call('HSET', held, owner, mine + granted)
  redis.call('HSET', numbers, owner, ARGV[2])
end

free = free - granted
if free > 0 then
  for _, next in ipairs(redis.call('ZRANGE', line, 0, free - 1)) do
    if next ~= owner then
      redis.call('LPUSH', ARGV[8] .. next, 1); redis.call('LTRIM', ARGV[8] .. next, 0, 0); redis.call('PEXPIRE', ARGV[8] .. next, lease)
    end
  end
end
local others_wait = redis.call('ZCARD', line)
if redis.call('ZSCORE', line, owner) then others_wait = others_wait - 1 end
local look_again = math.max(-1, hearing)
local first = redis.call('ZRANGE', owners, 0, 1, 'WITHSCORES')
for i = 1, #first, 2 do
  if first[i] ~= owner and look_again < 0 then look_again = tonumber(first[i + 1]) - now end
end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], lease * 4) end
return {mine, granted, others_wait, redis.call('ZCARD', owners), look_again}
"""

# KEYS: the next moment, in microseconds. ARGV: microseconds between two starts, the most to wait
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local wait = at - now
if wait > tonumber(ARGV[2]) then return -1 end
redis.call('SET', KEYS[1], string.format('%.0f', at + tonumber(ARGV[1])), 'PX', math.ceil((wait + tonumber(ARGV[1])) / 1000) + 1000)
return wait
"""


class RedisPermits:
    """The permits of one limit in a Redis, under keys of one hash slot: `longshore:limit:{service/name}:...`."""

    def __init__(self, url: str, service: str, name: str) -> None:
        prefix = f"longshore:limit:{{{service}/{name}}}:"
        self._keys = [prefix + key for key in ("owners", "held", "line", "numbers", "hearing")]
        self._rate_key = f"{prefix}rate"
        self._wake_prefix = f"{prefix}wake:"
        # Each call is tried once: the next claim puts right what a lost answer left, and says the whole truth.
        options: dict[str, Any] = {"retry": None, "socket_connect_timeout": CALL_SECONDS, "decode_responses": True}
        self._redis: Redis = Redis.from_url(url, **options)
        self._claim = self._redis.register_script(_CLAIM)
        self._reserve = self._redis.register_script(_RESERVE)

    async def claim(self, claim: Claim) -> Answer:
        """Keep, take and give back in one step."""
        places = -1 if claim.places is None else claim.places
        lease = math.ceil(claim.lease_seconds * 1000)
        arguments = (claim.owner, claim.number, claim.held, claim.wanted, places, lease, int(claim.is_leaving), self._wake_prefix, int(claim.is_returning))  # fmt: skip
        kept, count, others_wait, owners, look_again = await _answer(self._claim(keys=self._keys, args=arguments))
        again_seconds = math.inf if look_again == FOREVER_MILLISECONDS else max(0.0, look_again / 1000) + 0.01
        return Answer(kept, count, others_wait, owners, again_seconds)

    async def until_woken(self, owner: str, seconds: float) -> None:
        """Return when there may be a permit for the owner."""
        await _answer(self._redis.blpop([self._wake_prefix + owner], timeout=seconds), within=seconds + CALL_SECONDS)

    async def reserve(self, per_second: float, most_seconds: float) -> float | None:
        """Take the next moment at which a call may start."""
        most = MILLION * 86_400 if most_seconds == math.inf else round(most_seconds * MILLION)
        wait = await _answer(self._reserve(keys=[self._rate_key], args=(round(MILLION / per_second), most)))
        return None if wait < 0 else wait / MILLION

    async def doubts(self) -> list[str]:
        """Ask the server whether it evicts keys."""
        return await doubts_of(self._redis, (RedisError, OSError))

    async def close(self) -> None:
        """End the connections."""
        with suppress(RedisError, OSError):
            await self._redis.aclose()


async def _answer(call: Awaitable[T], within: float = CALL_SECONDS) -> T:
    """Return the answer; raises `StoreError`, and our own cancellation also where the client has swallowed it."""
    cancellations = _cancellations()
    failure: StoreError | None = None
    try:
        async with asyncio.timeout(within):
            answer = await call
    except TimeoutError:
        failure = StoreError(f"no answer within {within:g} s")
    except (RedisError, OSError) as error:
        failure = StoreError(f"{type(error).__name__}: {error}")
    if _cancellations() > cancellations:
        raise asyncio.CancelledError
    if failure is not None:
        raise failure
    return answer


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
