"""The stub: SQS's JSON protocol over HTTP on loopback, in a process of its own: `python -m benchmarks.stub [--empty]`.

It prints its port and ends when its standard input does. `GET /` tells what it has counted.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from typing import cast

import orjson

from benchmarks.sqs import Refusal, StubSqs

__all__ = ["StubProtocol", "loop_factory", "serve"]

_TARGET = re.compile(rb"\r\nx-amz-target: *AmazonSQS\.(\w+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: %s\r\nContent-Length: %d\r\n\r\n%s"
)
_REQUEST_ID = b"9c0e5d1e-3b7a-5f0a-8a52-00a1b2c3d4e5"


class StubProtocol(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, sqs: StubSqs) -> None:
        self._sqs = sqs
        self._transport: asyncio.WriteTransport
        self._unread = b""
        self._poll: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the poll whose caller is gone."""
        del exc
        if self._poll is not None:
            self._poll.cancel()

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
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        target = _TARGET.search(head)
        if target is None:
            counted = {"received": self._sqs.received, "deleted": self._sqs.deleted, "calls": self._sqs.calls}
            self._write(b"200 OK", orjson.dumps(counted))
            return
        operation = target[1].decode()
        try:
            answer = self._sqs.answer(operation, body)
        except Refusal as refusal:
            self._write(b"400 Bad Request", refusal.body)
            return
        if operation == "ReceiveMessage" and self._sqs.is_empty:
            wait_seconds = orjson.loads(body).get("WaitTimeSeconds", 0)
            self._poll = asyncio.get_running_loop().call_later(wait_seconds, self._write, b"200 OK", answer)
        else:
            self._write(b"200 OK", answer)

    def _write(self, status: bytes, body: bytes) -> None:
        self._transport.write(_HEAD % (status, _REQUEST_ID, len(body), body))


async def serve(sqs: StubSqs) -> asyncio.Server:
    """Listen on a free port of loopback; the queues' URLs lead there."""
    server = await asyncio.get_running_loop().create_server(lambda: StubProtocol(sqs), "127.0.0.1", 0)
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
    sqs = StubSqs(is_empty="--empty" in sys.argv)
    server = await serve(sqs)
    print(sqs.endpoint, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main())
