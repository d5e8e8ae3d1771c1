"""A bad road to AWS: a reverse proxy that throttles, fails, resets and forgets, by chance from a seed, or goes dark."""

import json
import random
from collections import Counter
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientSession, ClientTimeout, web

__all__ = ["BadRoad"]

BATCHES = {"DeleteMessageBatch", "ChangeMessageVisibilityBatch"}


class BadRoad:
    """An endpoint in front of another one; `share` of all calls get each kind of trouble."""

    def __init__(self, upstream: str, *, share: float = 0.0, seed: int = 1) -> None:
        self.share = share
        self.is_dark = False
        self.url = ""
        self.troubles: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        """Calls by operation while dark."""
        self._upstream = upstream
        self._chance = random.Random(seed)
        self._open: list[web.BaseRequest] = []  # requests have no hash

    async def __aenter__(self) -> Self:
        self._session = ClientSession(timeout=ClientTimeout(total=60), auto_decompress=False)
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def go_dark(self) -> None:
        """Drop every connection, those that wait in a long poll too."""
        self.is_dark = True
        for request in list(self._open):
            _reset(request)

    def light_up(self) -> None:
        """Let calls through again."""
        self.is_dark = False

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "?").rpartition(".")[2]
        if self.is_dark:
            self.calls[operation] += 1
            _reset(request)
            return web.Response(status=500)
        match self._trouble(operation):
            case "throttle":
                return _error(400, "com.amazonaws.sqs#RequestThrottled")
            case "throttle as 403":
                return _error(403, "com.amazonaws.sqs#ThrottlingException")
            case "500 before":
                return _error(500, "InternalFailure")
            case "500 after":
                await self._forward(request)
                return _error(500, "InternalFailure")
            case "reset before":
                _reset(request)
                return web.Response(status=500)
            case "reset after":
                await self._forward(request)
                _reset(request)
                return web.Response(status=500)
            case "partial":
                return _partial(await self._forward(request))
            case _:
                return await self._forward(request)

    def _trouble(self, operation: str) -> str | None:
        kinds = ["throttle", "throttle as 403", "500 before", "500 after", "reset before", "reset after"]
        if operation in BATCHES:
            kinds.append("partial")
        for kind in kinds:
            if self._chance.random() < self.share * (0.5 if kind.startswith("throttle") else 1):
                self.troubles[kind] += 1
                return kind
        return None

    async def _forward(self, request: web.BaseRequest) -> web.Response:
        self._open.append(request)
        try:
            body = await request.read()
            async with self._session.request(
                request.method, self._upstream + request.raw_path, headers=request.headers, data=body
            ) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        finally:
            self._open.remove(request)


def _reset(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _error(status: int, code: str) -> web.Response:
    body = json.dumps({"__type": code, "message": "trouble on the road"})
    return web.Response(status=status, text=body, content_type="application/x-amz-json-1.0")


def _partial(answer: web.Response) -> web.Response:
    """Tell of one entry that it failed; its effect has happened."""
    assert isinstance(answer.body, bytes)
    told: dict[str, Any] = json.loads(answer.body)
    if told.get("Successful"):
        unlucky = told["Successful"].pop()
        failure = {"Id": unlucky["Id"], "Code": "InternalError", "SenderFault": False, "Message": "trouble"}
        told.setdefault("Failed", []).append(failure)
    return web.Response(status=answer.status, text=json.dumps(told), content_type="application/x-amz-json-1.0")
