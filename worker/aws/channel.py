"""One AWS client with its own connection pool: calls with a deadline, errors translated, rebuilt when it is stuck."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from worker.aws.deadline import DeadlineExceededError, within
from worker.aws.faults import source_error
from worker.errors import Fault, SourceError

__all__ = ["CALL_DEADLINE_SECONDS", "Channel"]

CALL_DEADLINE_SECONDS = 10.0
"""For every call but a receive: from the wish to call until the parsed answer."""

_MISSES_BEFORE_REBUILD = 3
_REBUILD_INTERVAL_SECONDS = 10.0
"""Rebuilding costs time on the loop, so a lasting fault must not cause it at every call."""


class Open(Protocol):
    """Makes a client."""

    async def __call__(self, *, is_expired: bool) -> AbstractAsyncContextManager[Any]:
        """Return a client that is not entered yet; `is_expired` asks for credentials that are read anew."""


class _Client:
    """One built client and the calls that are on it."""

    def __init__(self, context: AbstractAsyncContextManager[Any], client: Any, built_at: float) -> None:
        self.context = context
        self.client = client
        self.built_at = built_at
        self.calls = 0
        self.is_retired = False


class Channel:
    """Calls one AWS service through one pool of connections.

    1. Every call has one deadline, which covers waiting for a connection and for credentials.
    2. Whatever goes wrong is a `SourceError`.
    3. After three missed deadlines in a row, or when credentials have expired, the next call builds the client
       anew; the old one is closed when its calls have ended.
    """

    def __init__(self, open_client: Open) -> None:
        self._open = open_client
        self._current: _Client | None = None
        self._building = asyncio.Lock()
        self._misses = 0
        self._has_expired = False
        self._closing: set[asyncio.Task[bool | None]] = set()
        self.rebuilds = 0
        """How often the client was replaced."""
        self.deadline_hits = 0
        """How many calls were given up at their deadline."""

    async def start(self) -> None:
        """Build the client now instead of at the first call."""
        async with self._building:
            if self._current is None:
                self._current = await self._build()

    async def call(
        self,
        operation: str,
        *,
        deadline: float = CALL_DEADLINE_SECONDS,
        read: Callable[[Any], Awaitable[Any]] | None = None,
        **parameters: Any,
    ) -> Any:
        """Call `operation` (as boto names it: `receive_message`) and return the parsed answer.

        `deadline` is in seconds. `read` is for an answer that is a stream: what it returns is the answer then, and the
        deadline is for both. Raises `SourceError` and nothing else.
        """
        try:
            answer = await within(self._send(operation, parameters, read), deadline)
        except DeadlineExceededError:
            self.deadline_hits += 1
            self._misses += 1
            raise SourceError(Fault.TIMEOUT, "Deadline", f"{operation} took longer than {deadline:g} s") from None
        except Exception as error:
            failure = source_error(error)
            self._misses = 0
            self._has_expired |= failure.fault is Fault.EXPIRED
            if failure is error:
                raise
            raise failure from error
        self._misses = 0
        return answer

    async def close(self) -> None:
        """Close the client's connections; calls that are still on it fail."""
        current, self._current = self._current, None
        if current is not None:
            await current.context.__aexit__(None, None, None)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _send(
        self, operation: str, parameters: dict[str, Any], read: Callable[[Any], Awaitable[Any]] | None
    ) -> Any:
        used = await self._ready()
        used.calls += 1
        try:
            answer = await getattr(used.client, operation)(**parameters)
            return answer if read is None else await read(answer)
        finally:
            used.calls -= 1
            self._close_if_idle(used)

    async def _ready(self) -> _Client:
        """Return the client, a new one if the old one is of no more use."""
        current = self._current
        if current is not None and not self._is_stale(current):
            return current
        async with self._building:
            current = self._current
            if current is None:
                self._current = current = await self._build()
            elif self._is_stale(current):
                self._current, old = await self._build(), current
                self.rebuilds += 1
                old.is_retired = True
                self._close_if_idle(old)
                return self._current
            return current

    def _is_stale(self, client: _Client) -> bool:
        is_suspect = self._has_expired or self._misses >= _MISSES_BEFORE_REBUILD
        return is_suspect and _now() - client.built_at >= _REBUILD_INTERVAL_SECONDS

    async def _build(self) -> _Client:
        context = await self._open(is_expired=self._has_expired)
        built = _Client(context, await context.__aenter__(), _now())
        self._has_expired = False
        self._misses = 0
        return built

    def _close_if_idle(self, client: _Client) -> None:
        if client.is_retired and client.calls == 0:
            closing = asyncio.create_task(client.context.__aexit__(None, None, None), name="close-aws-client")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _now() -> float:
    return asyncio.get_running_loop().time()
