"""The stub: SQS's JSON protocol over HTTP on loopback, in a process of its own: `python -m benchmarks.stub`.

It prints its address and ends when its standard input does. `GET /` tells what it has counted; `GET /QUEUE` does so,
too, after the queue was supplied with messages and all others were not any more: their receives wait.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from typing import cast

import orjson

from benchmarks.sqs import Refusal, Request, StubSqs

__all__ = ["Polls", "StubProtocol", "loop_factory", "serve"]

_TARGET = re.compile(rb"\r\nx-amz-target: *AmazonSQS\.(\w+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: %s\r\nContent-Length: %d\r\n\r\n%s"
)
_REQUEST_ID = b"9c0e5d1e-3b7a-5f0a-8a52-00a1b2c3d4e5"


class Polls:
    """The receives that wait for messages, each with the call that answers it."""

    def __init__(self, sqs: StubSqs) -> None:
        self._sqs = sqs
        self._waiting: dict[Callable[[], None], Request] = {}

    def wait(self, request: Request, end: Callable[[], None]) -> None:
        """Call `end` once the queue has messages."""
        self._waiting[end] = request

    def forget(self, end: Callable[[], None]) -> Request:
        """Return the call that waits no longer."""
        return self._waiting.pop(end, {})

    def supply(self, queue: str) -> None:
        """Give messages to this queue alone, and to those who wait for them."""
        self._sqs.supplied = queue
        self.wake()

    def wake(self) -> None:
        """End the receives that need not wait any longer; each may take what another one waits for."""
        for end, request in list(self._waiting.items()):
            if self._sqs.has_messages(request):
                end()


class StubProtocol(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, sqs: StubSqs, polls: Polls) -> None:
        self._sqs = sqs
        self._polls = polls
        self._transport: asyncio.WriteTransport
        self._unread = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the poll whose caller is gone."""
        del exc
        if self._timer is not None:
            self._timer.cancel()
            self._polls.forget(self._end_poll)

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end]
            length = _LENGTH.search(head)
            ends = end + 4 + (int(length[1]) if length else 0)
            if len(self._unread) < ends:
                return
            body, self._unread = self._unread[end + 4 : ends], self._unread[ends:]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        target = _TARGET.search(head)
        if target is None:
            self._tell(head.split(b" ", 2)[1].decode().removeprefix("/"))
            return
        operation, request = target[1].decode(), orjson.loads(body)
        seconds = request.get("WaitTimeSeconds", 0) if operation == "ReceiveMessage" else 0
        if seconds and not self._sqs.has_messages(request):
            self._poll(request, seconds)
        else:
            self._answer(operation, request)
        if operation != "ReceiveMessage":  # a group of a FIFO queue may have been unlocked
            self._polls.wake()

    def _tell(self, queue: str) -> None:
        if queue:
            self._polls.supply(queue)
        sqs = self._sqs
        self._write(b"200 OK", orjson.dumps({"received": sqs.received, "deleted": sqs.deleted, "calls": sqs.calls}))

    def _poll(self, request: Request, seconds: float) -> None:
        """Answer once the queue has messages, and after so many seconds in any case."""
        self._polls.wait(request, self._end_poll)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end_poll)

    def _end_poll(self) -> None:
        assert self._timer is not None  # noqa: S101  # it polls
        self._timer.cancel()
        self._answer("ReceiveMessage", self._polls.forget(self._end_poll))

    def _answer(self, operation: str, request: Request) -> None:
        try:
            self._write(b"200 OK", self._sqs.answer(operation, request))
        except Refusal as refusal:
            self._write(b"400 Bad Request", refusal.body)

    def _write(self, status: bytes, body: bytes) -> None:
        self._transport.write(_HEAD % (status, _REQUEST_ID, len(body), body))


async def serve(sqs: StubSqs) -> asyncio.Server:
    """Listen on a free port of loopback; the queues' URLs lead there."""
    polls = Polls(sqs)
    server = await asyncio.get_running_loop().create_server(lambda: StubProtocol(sqs, polls), "127.0.0.1", 0)
    sqs.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    return server


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it is installed, as `longshore run` does; every process of a benchmark runs on the same."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _main() -> None:
    sqs = StubSqs()
    server = await serve(sqs)
    print(sqs.endpoint, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main())
