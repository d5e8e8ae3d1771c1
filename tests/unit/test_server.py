"""Probes, metrics and status over HTTP (D3, M1, X1, X2)."""

import asyncio
import errno
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest

from worker.errors import UsageError
from worker.server import StatusServer, StatusView
from worker.telemetry.metrics import Metrics

pytestmark = pytest.mark.real_time  # sockets


@dataclass
class View:
    """What a test lets the worker say of itself."""

    dead: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    report: dict[str, object] = field(default_factory=dict)

    def liveness(self) -> list[str]:
        return self.dead

    def readiness(self) -> list[str]:
        return self.unready

    def warnings(self) -> list[str]:
        return self.odd

    def status(self) -> dict[str, object]:
        if "raise" in self.report:
            raise RuntimeError("broken view")
        return self.report


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def server(view: View, metrics: Metrics) -> AsyncIterator[StatusServer]:
    async with StatusServer("127.0.0.1", 0, status=view, metrics=metrics) as server:
        yield server


@pytest.fixture
async def client(server: StatusServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_the_view_of_a_test_is_a_view(view: View) -> None:
    as_protocol: StatusView = view
    assert as_protocol.liveness() == []


async def test_livez_is_503_and_names_the_loops_that_hang(client: aiohttp.ClientSession, view: View) -> None:
    """Liveness is about our loops (D3)."""
    assert await get(client, "/livez") == (200, {"alive": True, "problems": []})
    view.dead = ["orders: no receive has completed for 95 s"]
    view.unready = ["orders: access denied"]
    assert await get(client, "/livez") == (503, {"alive": False, "problems": view.dead})


async def test_readyz_is_503_and_names_each_queue_and_warnings_alone_do_not_matter(
    client: aiohttp.ClientSession, view: View
) -> None:
    """Readiness names what is wrong; what is merely odd is said and not counted (D3, R6)."""
    view.odd = ["orders: max_receive_count is 5, the file says 10"]
    assert await get(client, "/readyz") == (200, {"ready": True, "problems": [], "warnings": view.odd})
    view.unready = ["orders: the queue does not exist", "mails: access denied"]
    status, answer = await get(client, "/readyz")
    assert (status, answer["problems"], answer["warnings"]) == (503, view.unready, view.odd)


async def test_metrics_are_prometheus_text_or_openmetrics(client: aiohttp.ClientSession, metrics: Metrics) -> None:
    metrics.queue("orders").received(3)
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == metrics.render()[1]
        assert 'longshore_received_total{queue="orders"} 3.0' in await response.text()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with client.get("/metrics", headers=accept) as response:
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")


async def test_status_is_what_the_view_says_as_json(client: aiohttp.ClientSession, view: View) -> None:
    view.report = {"service": "orders", "state": "running", "queues": {"orders": {"received": 1}}}
    assert await get(client, "/api/status") == (200, view.report)


async def test_a_view_that_fails_is_a_500_without_details(client: aiohttp.ClientSession, view: View) -> None:
    view.report = {"raise": True}
    status, answer = await get(client, "/api/status")
    assert status == 500
    assert "broken view" not in str(answer)
    assert (await get(client, "/livez"))[0] == 200


async def test_the_page_is_the_status_for_eyes_and_may_load_nothing(client: aiohttp.ClientSession, view: View) -> None:
    """Even if something slipped through the escaping, a browser would run and fetch nothing (X2)."""
    view.report = {"service": "orders", "version": "1.2.3", "state": "ready", "uptime_seconds": 1.0, "queues": {}}
    async with client.get("/") as response:
        assert (response.status, response.content_type, response.charset) == (200, "text/html", "utf-8")
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
        assert response.headers["Cache-Control"] == "no-store"
        text = await response.text()
    assert "<title>orders: ready</title>" in text
    assert "longshore 1.2.3, up 1.0 s" in text


@pytest.mark.parametrize("path", ["/index.html", "/nothing", "/livez/", "/../etc/passwd"])
async def test_any_other_path_is_404_and_lists_the_routes(client: aiohttp.ClientSession, path: str) -> None:
    status, answer = await get(client, path)
    assert (status, answer["routes"]) == (404, ["/", "/livez", "/readyz", "/metrics", "/api/status"])


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/api/status", "/", "/nothing"])
async def test_head_answers_as_get_does_without_the_body(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as full, client.head(path) as head:
        assert head.status == full.status
        assert head.headers["Content-Type"] == full.headers["Content-Type"]
        assert int(head.headers["Content-Length"]) > 0
        assert await head.read() == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/livez", "/api/status", "/"])
async def test_any_other_method_is_405(client: aiohttp.ClientSession, method: str, path: str) -> None:
    """Everything here is read-only (X2)."""
    async with client.request(method, path, data=b"x" * 10_000) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_no_answer_tells_the_software_not_even_to_nonsense(server: StatusServer) -> None:
    for request, status in (
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"404"),
        (b"\x16\x03\x01 nonsense\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nbroken header\r\n\r\n", b"400"),
    ):
        answer = await exchange(server.port, request)
        assert answer.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status))
        assert b"server:" not in answer.lower()
        assert b"aiohttp" not in answer.lower()


async def test_nonsense_from_strangers_does_not_fill_the_log(
    server: StatusServer, caplog: pytest.LogCaptureFixture
) -> None:
    await exchange(server.port, b"GET /livez HTTP/1.1\r\nbroken header\r\n\r\n")
    await exchange(server.port, b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert not caplog.records


async def test_a_client_that_keeps_its_connection_does_not_hold_up_the_end(view: View, metrics: Metrics) -> None:
    """The drain has seconds, and a scraper's idle connection must not take them (D1)."""
    async with StatusServer("127.0.0.1", 0, status=view, metrics=metrics) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        half_reader, half_writer = await asyncio.open_connection("127.0.0.1", server.port)
        half_writer.write(b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        await half_reader.readuntil(b"\r\n\r\n")
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert server.port == 0
    for end in (writer, half_writer):
        end.close()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(view: View) -> None:
    """An answer that nobody takes is given up (D1)."""

    class Huge(Metrics):
        def render(self, accept: str = "") -> tuple[bytes, str]:
            _, content_type = super().render(accept)
            return b"#" * 50_000_000, content_type

    async with StatusServer("127.0.0.1", 0, status=view, metrics=Huge()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        began = time.monotonic()
    assert time.monotonic() - began < 3
    writer.close()


async def test_a_body_is_not_waited_for(server: StatusServer) -> None:
    async with asyncio.timeout(3):
        answer = await exchange(server.port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405")


async def test_a_scrape_does_not_hold_up_the_loop(view: View) -> None:
    """The exposition is made in a thread: the loop beats leases meanwhile (L6)."""
    answered = threading.Event()

    class Slow(Metrics):
        def render(self, accept: str = "") -> tuple[bytes, str]:
            assert answered.wait(5)
            return super().render(accept)

    async with (
        StatusServer("127.0.0.1", 0, status=view, metrics=Slow()) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client,
    ):
        scrape = asyncio.create_task(exchange(server.port, b"GET /metrics HTTP/1.0\r\n\r\n"))
        assert (await get(client, "/livez"))[0] == 200
        answered.set()
        assert b"python_info" in await scrape


async def test_a_port_that_is_taken_is_one_sentence(server: StatusServer, view: View, metrics: Metrics) -> None:
    """It names host, port and what to do (X1)."""
    second = StatusServer("127.0.0.1", server.port, status=view, metrics=metrics)
    with pytest.raises(UsageError) as raised:
        await second.__aenter__()
    assert str(raised.value) == (
        f"server.port {server.port} on 127.0.0.1 is taken by another process; "
        "stop it, choose another port, or set server.port: 0 to take a free one"
    )


async def test_a_host_that_is_not_ours_is_one_sentence(view: View, metrics: Metrics) -> None:
    """203.0.113.0/24 is reserved for documentation: nobody has it (X1)."""
    with pytest.raises(UsageError, match=r"^server\.host 203\.0\.113\.7 is not an address of this machine; use 127"):
        await StatusServer("203.0.113.7", 0, status=view, metrics=metrics).__aenter__()


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (socket.gaierror(-2, "Name or service not known"), "is not an address of this machine"),
        (PermissionError(errno.EACCES, "Permission denied"), "needs rights that this process does not have"),
        (OSError(errno.ENFILE, "Too many open files"), "cannot be listened on (Too many open files)"),
    ],
)
def test_any_reason_not_to_listen_is_one_sentence_that_says_what_to_do(error: OSError, part: str) -> None:
    from worker.server.status import _explain

    sentence = _explain("example.invalid", 80, error, ("server.host:", "server.port:"))
    assert part in sentence
    assert "\n" not in sentence
    assert "; " in sentence


async def test_starting_and_stopping_leaves_nothing_behind(view: View, metrics: Metrics) -> None:
    """Sockets, tasks and threads are back to what they were (D5)."""
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for _ in range(20):
        async with (
            StatusServer("127.0.0.1", 0, status=view, metrics=metrics) as server,
            aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client,
            client.get("/metrics") as response,
        ):
            assert response.status == 200
    await asyncio.sleep(0)
    gc.collect()
    assert threading.active_count() == threads
    assert len(asyncio.all_tasks()) == tasks


def test_json_says_everything() -> None:
    """A status may hold what JSON has no word for; it is said by its text."""
    from worker.server.status import _json

    body = _json({"numbers": {1: {2}}}).body
    assert isinstance(body, bytes)
    assert orjson.loads(body) == {"numbers": {"1": "{2}"}}
