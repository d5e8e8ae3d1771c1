"""The demo's SMS API: real HTTP on loopback, with a latency, a slow spell, and no more calls at once than it allows."""

import asyncio
import json
from collections import Counter
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from aiohttp import web

__all__ = ["SmsServer"]

_HOST: Final = "127.0.0.1"
_RETRY_AFTER_SECONDS: Final = 1


class SmsServer:
    """Takes `POST /messages` while inside `async with`; what exceeds `allowance` calls at once is refused with 429.

    A call takes `latency_seconds`, which may be changed. A key that was sent is not sent again; while its call goes on, it
    is answered 409, as the IETF's draft on the `Idempotency-Key` header wants it.
    """

    def __init__(self, *, allowance: int, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self.sent: Counter[str] = Counter()
        """How often the SMS of each key was sent."""
        self.refused = 0
        """Calls that were answered 429."""
        self.most_in_flight = 0
        """The highest number of calls that were there at once, refused ones among them."""
        self._allowance = allowance
        self._in_flight = 0
        self._keys: set[str] = set()
        """Of the calls that go on."""
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Where it is, once entered."""
        port = self._runner.addresses[0][1] if self._runner else 0
        return f"http://{_HOST}:{port}"

    async def __aenter__(self) -> Self:
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, _HOST, 0).start()
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if (request.method, request.path) != ("POST", "/messages"):
            return _say(HTTPStatus.NOT_FOUND, "there is only POST /messages")
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self._in_flight > self._allowance:
                self.refused += 1
                return _say(HTTPStatus.TOO_MANY_REQUESTS, f"{self._allowance} calls at once are allowed")
            return await self._send(request)
        finally:
            self._in_flight -= 1

    async def _send(self, request: web.BaseRequest) -> web.Response:
        key, body = request.headers.get("Idempotency-Key"), await _json_of(request)
        if not key or not body.get("to") or not body.get("text"):
            return _say(HTTPStatus.BAD_REQUEST, "to, text and the header Idempotency-Key are wanted")
        if key in self._keys:
            return _say(HTTPStatus.CONFLICT, "a call with this key goes on")
        if key not in self.sent:
            self._keys.add(key)
            try:
                await asyncio.sleep(self.latency_seconds)
            finally:
                self._keys.remove(key)
            self.sent[key] += 1
        return _say(HTTPStatus.CREATED, "sent")


async def _json_of(request: web.BaseRequest) -> dict[str, object]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _say(status: HTTPStatus, text: str) -> web.Response:
    busy = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == HTTPStatus.TOO_MANY_REQUESTS else {}
    return web.Response(
        status=status, headers=busy, text=json.dumps({"message": text}), content_type="application/json"
    )
