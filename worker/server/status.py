"""Probes, metrics and status over HTTP: read-only, on loopback unless said otherwise."""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self

import orjson
import structlog
from aiohttp import web

from worker.errors import UsageError
from worker.server.page import page
from worker.telemetry.metrics import Metrics

__all__ = ["StatusServer", "StatusView"]

_SHUTDOWN_SECONDS = 0.5
_NO_SUCH_HOST = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}

_UNHEARD = logging.getLogger("longshore.server")
_UNHEARD.disabled = True
"""Takes what aiohttp says of malformed requests: whoever sends them could fill the log."""

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("server")

_Route = Callable[[web.BaseRequest], Awaitable[web.Response]]


class StatusView(Protocol):
    """What the server asks. Every answer comes from memory, at once."""

    def liveness(self) -> list[str]:
        """Return why the process should be restarted, one sentence per loop; empty when it is alive."""

    def readiness(self) -> list[str]:
        """Return why it is not ready, one sentence per queue; empty when it is."""

    def warnings(self) -> list[str]:
        """Return what is odd and does not keep it from being ready."""

    def status(self) -> dict[str, object]:
        """Return service, version, state, uptime and queues, as JSON can say them."""


class _Request(web.BaseRequest):
    """A request whose answer does not tell which software of which version wrote it."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return _Request(message, payload, protocol, writer, task, asyncio.get_running_loop())


class StatusServer:
    """Answers `/` (a page for eyes), `/livez`, `/readyz`, `/metrics` and `/api/status` while inside `async with`.

    Entering raises `UsageError` when the address cannot be listened on. Leaving waits for no client.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        status: StatusView,
        metrics: Metrics,
        named: tuple[str, str] = ("server.host:", "server.port:"),
    ) -> None:
        """`named` is what users call host and port, as they write them."""
        self._host = host
        self._port = port
        self._named = named
        self._status = status
        self._metrics = metrics
        self._runner: web.ServerRunner | None = None
        # Its own thread, started by the first scrape: handlers may fill the loop's default ones.
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="longshore-metrics")
        self._routes: dict[str, _Route] = {
            "/": self._page,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._exposition,
            "/api/status": self._report,
        }

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for; 0 when the server does not run."""
        return int(self._runner.addresses[0][1]) if self._runner else 0

    async def __aenter__(self) -> Self:
        server = web.Server(
            self._answer,
            request_factory=_request,
            access_log=None,
            logger=_UNHEARD,
            lingering_time=0,  # nobody waits for a body that nobody reads
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise UsageError(_explain(self._host, self._port, error, self._named)) from error
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, origin: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._renderer.shutdown(cancel_futures=True)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method not in {"GET", "HEAD"}:
            refusal = _json({"error": f"{request.method} is not allowed; use GET or HEAD"}, status=405)
            refusal.headers["Allow"] = "GET, HEAD"
            return refusal
        route = self._routes.get(request.path)
        if route is None:
            return _json({"error": "there is nothing here", "routes": list(self._routes)}, status=404)
        try:
            return await route(request)
        except Exception:  # noqa: BLE001 - the view is not ours; a probe must be answered all the same
            _log.exception("status request failed", path=request.path)
            return _json({"error": "the answer could not be made; the log says why"}, status=500)

    async def _livez(self, _: web.BaseRequest) -> web.Response:
        problems = self._status.liveness()
        return _json({"alive": not problems, "problems": problems}, status=503 if problems else 200)

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        problems = self._status.readiness()
        answer = {"ready": not problems, "problems": problems, "warnings": self._status.warnings()}
        return _json(answer, status=503 if problems else 200)

    async def _exposition(self, request: web.BaseRequest) -> web.Response:
        # With many queues it is milliseconds of work: not on the loop that beats leases.
        loop, accept = asyncio.get_running_loop(), request.headers.get("Accept", "")
        body, content_type = await loop.run_in_executor(self._renderer, self._metrics.render, accept)
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def _report(self, _: web.BaseRequest) -> web.Response:
        return _json(self._status.status())

    async def _page(self, _: web.BaseRequest) -> web.Response:
        text = page(self._status.status())
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=_PAGE_HEADERS)


def _json(answer: Any, *, status: int = 200) -> web.Response:
    body = orjson.dumps(answer, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _explain(host: str, port: int, error: OSError, named: tuple[str, str]) -> str:
    """Say in one sentence why nothing can be listened on there, and what to do."""
    host_name, port_name = (name.rstrip(":") for name in named)
    free = f"or set {named[1]} 0 to take a free one"
    if isinstance(error, socket.gaierror) or error.errno in _NO_SUCH_HOST:
        return (
            f"{host_name} {host} is not an address of this machine; "
            "use 127.0.0.1 for this machine only or 0.0.0.0 for all its addresses"
        )
    if error.errno == errno.EADDRINUSE:
        return f"{port_name} {port} on {host} is taken by another process; stop it, choose another port, {free}"
    if error.errno == errno.EACCES:
        return (
            f"{port_name} {port} on {host} needs rights that this process does not have; "
            f"choose a port from 1024 to 65535, {free}"
        )
    return (
        f"{port_name} {port} on {host} cannot be listened on ({error.strerror or error}); "
        f"choose another host or port, {free}"
    )
