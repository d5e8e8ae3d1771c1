"""CPU per published event: `Publisher` against a bare aiobotocore loop, on the same stub of SNS, in turns.

`python -m benchmarks.publishing ROLE` plays one part of it: the stub, or a sender.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from benchmarks.figures import Figures, goal
from benchmarks.programs import CONSUMER_CORE, STUB_CORE, Program
from benchmarks.stub import loop_factory

__all__ = ["MICROSECONDS_GOAL", "RATIO_GOAL", "Published", "Sender", "SnsStub", "run"]

MICROSECONDS_GOAL = 333.0
"""Of CPU per event: 3,000 events a second on a core."""
RATIO_GOAL = 0.9
TOPIC = "arn:aws:sns:us-east-1:000000000000:order-events"
WARM_UP_EVENTS = 3_000
CALLERS = 200
LOOPS = 4
EVENT = {
    "order_id": "ord-7f3a2c91-5b1e-4f60-9d27-c4a8e0b91d55",
    "user_id": "usr-1f0c9b7e-22aa-4a54-8d4e-7d0b6a3f9c10",
    "amount": "129.90",
    "currency": "EUR",
    "items": [{"sku": f"sku-{number:05}", "quantity": number, "price": "43.30"} for number in (1, 2, 3)],
    "note": "Please ring twice; the bell is shy.",
}
_START_SECONDS = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s"
_ENTRY = b"<member><Id>%d</Id><MessageId>5a1d7c0e-6b0f-5d0c-9b7e-%012x</MessageId></member>"
_ANSWER = (
    b'<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult><Failed/><Successful>%s'
    b"</Successful></PublishBatchResult><ResponseMetadata><RequestId>9c0e5d1e-3b7a-5f0a-8a52-00a1b2c3d4e5</RequestId>"
    b"</ResponseMetadata></PublishBatchResponse>"
)


@dataclass
class Sender:
    """One way to publish, and what it cost in each round."""

    name: str
    role: str
    microseconds: Figures = field(default_factory=Figures)
    """CPU per event."""
    rate: Figures = field(default_factory=Figures)
    """Events per second."""
    rss_megabytes: Figures = field(default_factory=Figures)

    def add(self, events: int, *, cpu_seconds: float, seconds: float, rss_bytes: int) -> None:
        """Add one round; raise `SystemExit` when nothing was published in it."""
        if events <= 0:
            raise SystemExit(f"{self.name} published nothing in {seconds:.1f} s")
        self.microseconds.values.append(cpu_seconds / events * 1e6)
        self.rate.values.append(events / seconds)
        self.rss_megabytes.values.append(rss_bytes / 1e6)


def run(rounds: int, seconds: float) -> bool:
    """Measure in turns, print, and return whether the goals are met."""
    bare, many, single = senders = (
        Sender("aiobotocore, ten a call", "bare"),
        Sender("publish_many", "many"),
        Sender(f"publish, {CALLERS} callers", "single"),
    )
    with Program(_command("stub"), STUB_CORE, output=subprocess.PIPE) as stub:
        assert stub.process.stdout is not None  # noqa: S101  # it is a pipe
        endpoint = stub.process.stdout.readline().decode().strip()
        for number in range(rounds):
            for sender in senders if number % 2 == 0 else reversed(senders):
                _measure(sender, endpoint, seconds)
    print(f"publishing: {rounds} rounds of {seconds:g} s; min, median and max")
    print(f"{'':<26}{'CPU us per event':>27}{'events per s':>27}{'RSS MB':>9}")
    for sender in senders:
        rss = sender.rss_megabytes.median
        print(f"{sender.name:<26}{sender.microseconds.spread(0)}{sender.rate.spread(0)}{rss:>9.0f}")
    cost = max(many.microseconds.median, single.microseconds.median)
    ratio = many.microseconds.median / bare.microseconds.median
    print(f"CPU per event: {cost:.0f} us, {1e6 / cost:,.0f} events/s on a core; {goal(cost, MICROSECONDS_GOAL, ' us')}")
    print(f"publish_many against aiobotocore: {ratio:.2f}; {goal(ratio, RATIO_GOAL, '')}")
    return cost <= MICROSECONDS_GOAL and ratio <= RATIO_GOAL


def _measure(sender: Sender, endpoint: str, seconds: float) -> None:
    """Run the sender, leave its start out, and add one round to its figures."""
    with Program(_command(sender.role, endpoint), CONSUMER_CORE) as program:
        wanted, ends_at = _counted(endpoint) + WARM_UP_EVENTS, time.monotonic() + _START_SECONDS
        while _counted(endpoint) < wanted:
            if program.process.poll() is not None or time.monotonic() > ends_at:
                raise SystemExit(f"{sender.name} does not publish")
            time.sleep(0.1)
        began, events, cpu = time.monotonic(), _counted(endpoint), program.cpu_seconds()
        time.sleep(seconds)
        events, cpu = _counted(endpoint) - events, program.cpu_seconds() - cpu
        elapsed = time.monotonic() - began
        sender.add(events, cpu_seconds=cpu, seconds=elapsed, rss_bytes=program.rss_bytes())


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.publishing", *arguments)


def _counted(endpoint: str) -> int:
    with urllib.request.urlopen(endpoint, timeout=_START_SECONDS) as answer:  # noqa: S310  # our own, on loopback
        return int(answer.read())


@dataclass
class Published:
    """How many events the stub has taken."""

    events: int = 0


class SnsStub(asyncio.Protocol):
    """One connection: SNS takes every entry of every batch. A request without a body is answered with their number."""

    def __init__(self, published: Published) -> None:
        self._published = published

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one by its methods only
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._unread[:end])
            ends = end + 4 + (int(length[1]) if length else 0)
            if len(self._unread) < ends:
                return
            body, self._unread = self._unread[end + 4 : ends], self._unread[ends:]
            count = len(re.findall(rb"\.Id=", body))
            first = self._published.events
            self._published.events += count
            entries = b"".join(_ENTRY % (position, first + position) for position in range(count))
            answer = _ANSWER % entries if count else b"%d" % self._published.events
            self._transport.write(_HEAD % (len(answer), answer))


async def _stub() -> None:
    published = Published()
    server = await asyncio.get_running_loop().create_server(lambda: SnsStub(published), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


async def _bare(endpoint: str) -> None:
    """Publish as a careful person does with aiobotocore alone: four loops, ten events a call."""
    from aiobotocore.session import get_session

    async def loop(client: Any) -> None:
        while True:
            entries = [
                {"Id": str(n), "Message": json.dumps(EVENT), "MessageAttributes": attributes()} for n in range(10)
            ]
            answer = await client.publish_batch(TopicArn=TOPIC, PublishBatchRequestEntries=entries)
            if answer.get("Failed"):
                raise SystemExit("the stub refuses")

    def attributes() -> Mapping[str, Mapping[str, str]]:
        return {
            "event_type": {"DataType": "String", "StringValue": "order.created"},
            "published_at": {"DataType": "String", "StringValue": datetime.now(UTC).isoformat()},
        }

    keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI"}
    async with get_session().create_client("sns", "us-east-1", endpoint_url=endpoint, **keys) as client:
        await asyncio.gather(*(loop(client) for _ in range(LOOPS)))


async def _many(endpoint: str) -> None:
    """Publish an endless file, five thousand events at a time."""
    from worker import Publisher

    def events() -> Iterator[tuple[str, Any]]:
        for _ in range(5_000):
            yield "order.created", EVENT

    async with Publisher(TOPIC, aws=_access(endpoint), batches_in_flight=LOOPS) as publisher:
        while True:
            await publisher.publish_many(events())


async def _single(endpoint: str) -> None:
    """Publish as the request handlers of a web service do, each its own event."""
    from worker import Publisher

    async def caller(publisher: Publisher) -> None:
        while True:
            await publisher.publish("order.created", EVENT)

    async with Publisher(TOPIC, aws=_access(endpoint)) as publisher:
        await asyncio.gather(*(caller(publisher) for _ in range(CALLERS)))


def _access(endpoint: str) -> Any:
    from worker.aws.session import AwsAccess, Credentials

    return AwsAccess("us-east-1", endpoint, credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI"))


_ROLES: Mapping[str, Callable[[str], Awaitable[None]]] = {"bare": _bare, "many": _many, "single": _single}


if __name__ == "__main__":
    part = _stub() if sys.argv[1] == "stub" else _ROLES[sys.argv[1]](sys.argv[2])
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(cast("Any", part))
