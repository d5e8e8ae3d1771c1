"""The client of the SMS API against real HTTP servers: what can be tried again, and what cannot."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import ClientSession, web

from worker import PermanentError, TransientError, UsageError
from worker.demo.distributed_queue.sms_server import SmsServer
from worker.handlers.sms_api import SmsApi, open_sms_api

pytestmark = pytest.mark.real_time

TO, TEXT = "+4915112345678", "Your table is ready."


class Answers:
    """An API that gives one answer to everything, and keeps what it was asked."""

    def __init__(self, status: int = 201, **headers: str) -> None:
        self.asked: list[tuple[str, dict[str, str], object]] = []
        self._status = status
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append((f"{request.method} {request.path}", dict(request.headers), await request.json()))
        return web.Response(status=self._status, headers=self._headers)

    async def send(self, *, token: str | None = None, path: str = "") -> None:
        async with self.serving() as url, open_sms_api(url + path, token) as api:
            await api.send(TO, TEXT, key="notice-1")


async def test_a_call_says_what_to_send_to_whom_under_which_key() -> None:
    api = Answers()
    await api.send(token="secret", path="/v1/")
    ((asked, headers, body),) = api.asked
    assert (asked, body) == ("POST /v1/messages", {"to": TO, "text": TEXT})
    assert (headers["Idempotency-Key"], headers["Authorization"]) == ("notice-1", "Bearer secret")


async def test_without_a_token_none_is_sent() -> None:
    api = Answers()
    await api.send()
    assert "Authorization" not in api.asked[0][1]


@pytest.mark.parametrize("status", [400, 404, 410, 422])
async def test_an_sms_that_is_refused_is_not_tried_again(status: int) -> None:
    with pytest.raises(PermanentError, match=rf"^the SMS API refuses the SMS \({status}\)$"):
        await Answers(status).send()


@pytest.mark.parametrize("status", [302, 401, 403])
async def test_an_api_that_does_not_take_us_is_tried_again(status: int) -> None:
    """It says nothing of the SMS; and nobody follows it to where it points."""
    api = Answers(status, Location="/elsewhere")
    with pytest.raises(TransientError, match=rf"^the SMS API does not serve us \({status}\)$"):
        await api.send()
    assert len(api.asked) == 1


async def test_an_api_that_is_still_at_it_is_tried_again() -> None:
    """As after a worker that was killed in the middle of a call. It says nothing of the API: the breaker stays closed."""
    async with SmsServer(allowance=5, latency_seconds=0.3) as server, open_sms_api(server.url) as api:
        first = asyncio.create_task(api.send(TO, TEXT, key="notice-1"))
        while not server.most_in_flight:  # noqa: ASYNC110 - what is waited for happens in another task
            await asyncio.sleep(0.01)
        with pytest.raises(TransientError, match=r"^the SMS API is still at an earlier call .* \(409\)$") as caught:
            await api.send(TO, TEXT, key="notice-1")
        assert not caught.value.is_downstream
        await first
    assert server.sent == {"notice-1": 1}


@pytest.mark.parametrize("status", [408, 500, 503])
async def test_an_api_that_fails_is_tried_again(status: int) -> None:
    with pytest.raises(TransientError, match=rf"^the SMS API fails \({status}\)$") as caught:
        await Answers(status, Retry_After="7").send()
    assert (caught.value.retry_after, caught.value.is_downstream) == (7, True)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7), ("0", 0), ("9" * 400, 43_200), ("", None), ("soon", None), ("-3", None), ("1.5", None), ("٣", None)],
)
async def test_a_busy_api_says_when_to_come_again(said: str, seconds: float | None) -> None:
    """In seconds, and at most as long as SQS can hide a message; what cannot be read leaves it to the queue's backoff."""
    with pytest.raises(TransientError, match=r"^the SMS API takes no more calls for now \(429\)$") as caught:
        await Answers(429, Retry_After=said).send()
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(("ahead", "least", "most"), [(60, 50, 60), (-60, 0, 0), (10**7, 43_200, 43_200)])
async def test_a_busy_api_may_name_a_date(ahead: int, least: float, most: float) -> None:
    with pytest.raises(TransientError) as caught:
        await Answers(429, Retry_After=formatdate(time.time() + ahead, usegmt=True)).send()
    assert caught.value.retry_after is not None
    assert least <= caught.value.retry_after <= most


async def test_an_api_that_is_not_there_is_tried_again() -> None:
    async with Answers().serving() as url:
        pass
    async with open_sms_api(url) as api:
        with pytest.raises(TransientError, match=r"^the SMS API cannot be reached \(ClientConnectorError\)$"):
            await api.send(TO, TEXT, key="1")


async def test_an_api_that_hangs_up_is_tried_again() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_sms_api(f"http://127.0.0.1:{port}") as api:
            with pytest.raises(TransientError, match=r"^the SMS API cannot be reached \(\w+\)$"):
                await api.send(TO, TEXT, key="1")


async def test_an_api_that_is_too_slow_is_tried_again_and_sends_once() -> None:
    """The SMS may be on its way although nobody waited for the answer; the second call does not send another one."""
    async with SmsServer(allowance=5, latency_seconds=0.2) as server, ClientSession() as session:
        with pytest.raises(TransientError, match=r"^the SMS API did not answer within 0\.05 s$"):
            await SmsApi(session, server.url, timeout_seconds=0.05).send(TO, TEXT, key="notice-1")
        while not server.sent:  # noqa: ASYNC110 - nobody waits for this call any more
            await asyncio.sleep(0.01)
        await SmsApi(session, server.url).send(TO, TEXT, key="notice-1")
    assert server.sent == {"notice-1": 1}


@pytest.mark.parametrize(
    "url", ["", "sms.example", "ftp://sms.example", "http://", "http://:80", "http://h:port", "http://u:secret@h"]
)
async def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"^the address of the SMS API is not one; allowed is") as caught:
        async with open_sms_api(url):
            pass
    assert "secret" not in str(caught.value)


class TestServer:
    """What the demo's API holds against a caller."""

    @pytest.mark.parametrize(
        ("path", "key", "body", "status"),
        [
            ("/messages", "1", {"to": TO, "text": TEXT}, 201),
            ("/messages", "", {"to": TO, "text": TEXT}, 400),
            ("/messages", "1", {"to": TO}, 400),
            ("/messages", "1", [], 400),
            ("/elsewhere", "1", {"to": TO, "text": TEXT}, 404),
        ],
    )
    async def test_it_wants_a_key_a_number_and_a_text(self, path: str, key: str, body: object, status: int) -> None:
        async with SmsServer(allowance=5, latency_seconds=0) as server, ClientSession() as session:
            headers = {"Idempotency-Key": key}
            async with session.post(server.url + path, json=body, headers=headers) as answer:
                assert answer.status == status
            assert server.sent.total() == (status == 201)
