"""Publishing to the embedded AWS, and what real clients make of its refusals."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from worker import Outgoing, Publisher, PublishError, UsageError
from worker.aws.envelope import decode
from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.aws.sqs import SqsSource
from worker.errors import Fault
from worker.local import EmbeddedAws
from worker.message import Received
from worker.settings import AwsSettings
from worker.source import ReceiveRequest
from worker.topology import Queue, Subscription, Topic, Topology, apply

pytestmark = pytest.mark.integration

Name = Callable[[str], str]
Made = Callable[..., Awaitable[tuple[str, str]]]


class OrderCreated(BaseModel):
    order_id: str
    amount: Decimal


@pytest.fixture
def make(aws_clients: AwsClients, unique_name: Name) -> Made:
    """Return a function that makes a topic and a queue behind it, and returns their names."""

    async def make(topic: str = "events", queue: str = "orders", *, raw: bool = False) -> tuple[str, str]:
        topic, queue = unique_name(topic), unique_name(queue)
        await apply(Topology([Topic(topic)], [Queue(queue)], [Subscription(topic, queue, raw=raw)]), aws_clients)
        return topic, queue

    return make


async def drain(clients: AwsClients, queue: str) -> list[Received]:
    source, drained = SqsSource(clients, queue), []
    while messages := await source.receive(ReceiveRequest(limit=10, wait_seconds=0, visibility_timeout_seconds=30)):
        drained += messages
        await source.delete([message.receipt for message in messages])  # else a FIFO group gives no more
    return drained


@pytest.mark.parametrize("raw", [True, False])
async def test_an_event_arrives_as_it_was_published(
    aws_clients: AwsClients, embedded_aws: EmbeddedAws, make: Made, *, raw: bool
) -> None:
    """The same for the handler, enveloped and raw: payload, attributes, event type, time (E2)."""
    topic, queue = await make(raw=raw)
    async with Publisher(topic, aws=embedded_aws.access) as publisher:
        message_id = await publisher.publish(
            "order.created",
            OrderCreated(order_id="Ærø & 100% = +1;", amount=Decimal("9.90")),
            attributes={"country": "DE", "items": 3},  # the emulator loses binary ones of a batch
        )
    (received,) = await drain(aws_clients, queue)
    decoded = decode(received, "auto")
    assert json.loads(decoded.payload) == {"order_id": "Ærø & 100% = +1;", "amount": "9.90"}
    assert decoded.event_type == "order.created"
    assert {**decoded.attributes, "published_at": ""} == {
        "event_type": "order.created",
        "published_at": "",
        "country": "DE",
        "items": "3",
    }
    assert decoded.published_at is not None
    assert abs(datetime.now(UTC) - decoded.published_at) < timedelta(minutes=1)
    if not raw:
        assert json.loads(received.body)["MessageId"] == message_id


async def test_many_arrive_once_each(aws_clients: AwsClients, embedded_aws: EmbeddedAws, make: Made) -> None:
    """Whatever their characters and sizes: the form of the request is written for every one of them."""
    topic, queue = await make(raw=True)
    texts = [f"{number}: " + chr(0x20 + number * 7) * (number * 40) for number in range(205)]
    async with Publisher(topic, aws=embedded_aws.access) as publisher:
        ids = await publisher.publish_many(("text.sent", text) for text in texts)
    assert len(set(ids)) == len(texts)
    assert sorted(message.body for message in await drain(aws_clients, queue)) == sorted(texts)


async def test_large_events_share_calls_within_the_limit(
    aws_clients: AwsClients, embedded_aws: EmbeddedAws, make: Made
) -> None:
    topic, queue = await make(raw=True)
    async with Publisher(topic, aws=embedded_aws.access) as publisher:
        await publisher.publish_many(("text.sent", str(number) * 100_000) for number in range(7))
        with pytest.raises(PublishError, match=r"it is 263,\d\d\d bytes with its attributes, but .* at most 262,144"):
            await publisher.publish("text.sent", "x" * 263_000)
    assert len(await drain(aws_clients, queue)) == 7


async def test_a_fifo_group_keeps_its_order(aws_clients: AwsClients, embedded_aws: EmbeddedAws, make: Made) -> None:
    topic, queue = await make("events.fifo", "orders.fifo", raw=True)
    async with Publisher(topic, aws=embedded_aws.access) as publisher:
        await publisher.publish_many(
            Outgoing("order.created", str(number), group_id="g", deduplication_id=f"d{number % 30}")
            for number in range(35)
        )
        with pytest.raises(PublishError, match=r"SNS refuses it .*MessageDeduplicationId"):
            await publisher.publish("order.created", {}, group_id="g")
    assert [message.body for message in await drain(aws_clients, queue)] == [str(number) for number in range(30)]


async def test_a_topic_is_named_by_arn_too_and_tells_its_region(embedded_aws: EmbeddedAws, make: Made) -> None:
    topic, _ = await make()
    access = AwsAccess(endpoint_url=embedded_aws.endpoint_url, credentials=embedded_aws.access.credentials)
    async with Publisher(f"arn:aws:sns:us-east-1:000000000000:{topic}", aws=access) as publisher:
        assert await publisher.publish("order.created", {})


async def test_the_environment_says_where_aws_is(
    embedded_aws: EmbeddedAws, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AWS_REGION` alone is enough, as containers have it."""
    topic, _ = await make()
    for name, value in embedded_aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    async with Publisher(topic) as publisher:
        assert await publisher.publish("order.created", {})
    async with Publisher(topic, aws=AwsSettings(region="us-east-1")) as publisher:
        assert await publisher.publish("order.created", {})


async def test_a_missing_topic_is_named(embedded_aws: EmbeddedAws, unique_name: Name) -> None:
    name = unique_name("events")
    async with Publisher(name, aws=embedded_aws.access) as publisher:
        with pytest.raises(PublishError, match=f"published to {name}: the topic does not exist .NotFound") as raised:
            await publisher.publish("order.created", {})
    assert raised.value.fault is Fault.MISSING


async def test_unknown_credentials_are_said(embedded_aws: EmbeddedAws) -> None:
    access = AwsAccess("us-east-1", embedded_aws.endpoint_url, credentials=Credentials("nobody", "nothing"))
    async with Publisher("events", aws=access, patience_seconds=0) as publisher:
        with pytest.raises(PublishError, match=r"AWS does not take the credentials \(InvalidClientTokenId"):
            await publisher.publish("order.created", {})


async def test_another_region_is_refused_at_once(embedded_aws: EmbeddedAws) -> None:
    publisher = Publisher("arn:aws:sns:eu-west-1:000000000000:events", aws=embedded_aws.access)
    with pytest.raises(UsageError, match="lies in the region eu-west-1"):
        await publisher.open()


async def test_a_publisher_can_be_opened_again(embedded_aws: EmbeddedAws, make: Made) -> None:
    topic, _ = await make()
    publisher = Publisher(topic, aws=embedded_aws.access)
    for _ in range(2):
        async with publisher:
            assert await publisher.publish("order.created", {})


async def test_a_silent_endpoint_ends_at_the_patience_and_leaves_nothing(
    blackhole: Callable[[], AbstractAsyncContextManager[str]],
) -> None:
    """Leaving early gives up the call on the wire."""
    async with blackhole() as url:
        access = AwsAccess("us-east-1", url, credentials=Credentials("a", "b"))
        publisher = Publisher("arn:aws:sns:us-east-1:000000000000:events", aws=access)
        await publisher.open()
        publishing = asyncio.create_task(publisher.publish("order.created", {}))
        await asyncio.sleep(0.2)
        closing = asyncio.create_task(publisher.close())
        await asyncio.sleep(0.2)
        closing.cancel()
        with pytest.raises(PublishError, match="cancelled before SNS had answered"):
            await publishing
        await asyncio.wait({closing})


@dataclass
class Command:
    """`longshore publish` in a folder and an environment of its own."""

    folder: Path
    environ: Mapping[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = (sys.executable, "-c", "from worker.cli import main; main()", "publish", *arguments)
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    async def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        process = self.start(*arguments)
        stdout, stderr = await asyncio.to_thread(process.communicate, stdin, 60)
        return process.returncode, stdout, stderr


@pytest.fixture
def command(embedded_aws: EmbeddedAws, tmp_path: Path) -> Command:
    """The command on the embedded AWS."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LONGSHORE_"))}
    return Command(tmp_path, {**environ, **embedded_aws.environment})


def events(count: int) -> str:
    return "".join(json.dumps({"event": "order.created", "n": number}) + "\n" for number in range(1, count + 1))


async def numbers(clients: AwsClients, queue: str) -> list[int]:
    return sorted(json.loads(message.body)["n"] for message in await drain(clients, queue))


async def test_one_event_is_published_to_the_fleets_only_topic(
    aws_clients: AwsClients, make: Made, command: Command
) -> None:
    topic, queue = await make(raw=True)
    (command.folder / "fleet.yaml").write_text(
        f'topics: {{{topic}: {{}}}}\nqueues: {{{queue}: {{handlers: "shop:router"}}}}\n'
    )
    status, stdout, stderr = await command("order.created", "--data", '{"n": 1.10}', "--json")
    assert (status, stderr) == (0, "")
    said: dict[str, Any] = json.loads(stdout)
    assert (said["topic"], said["published"]) == (topic, 1)
    (message,) = await drain(aws_clients, queue)
    assert message.body == '{"n": 1.10}'
    assert message.attributes["event_type"].value == "order.created"


async def test_a_file_is_published_and_summed_up(aws_clients: AwsClients, make: Made, command: Command) -> None:
    topic, queue = await make(raw=True)
    (command.folder / "events.jsonl").write_text(events(120))
    status, stdout, stderr = await command("--topic", topic, "--file", "events.jsonl", "--from-line", "21")
    assert (status, stderr) == (0, "")
    assert stdout.startswith(f"published 100 events to {topic} in ")
    assert await numbers(aws_clients, queue) == list(range(21, 121))


async def test_broken_lines_are_left_out_by_number(aws_clients: AwsClients, make: Made, command: Command) -> None:
    topic, queue = await make(raw=True)
    (command.folder / "events.jsonl").write_text(events(2) + "secret\n" + events(3))
    arguments = ("--topic", topic, "--file", "events.jsonl")
    status, stdout, stderr = await command(*arguments)
    assert (status, stdout) == (2, "")
    assert "line 3 is not JSON" in stderr
    assert await drain(aws_clients, queue) == []
    status, stdout, stderr = await command(*arguments, "--skip-bad")
    assert status == 0
    assert stderr == "skipped: line 3 is not JSON (Expecting value, at character 1)\n"
    assert "; 1 broken line skipped" in stdout
    assert await numbers(aws_clients, queue) == [1, 1, 2, 2, 3]


async def test_a_pipe_is_published_up_to_its_broken_line(aws_clients: AwsClients, make: Made, command: Command) -> None:
    """It cannot be read twice, so what came before has gone out, and how to go on is said."""
    topic, queue = await make(raw=True)
    status, stdout, stderr = await command("--topic", topic, "--file", "-", "--json", stdin=events(25) + "{\n")
    assert status == 2
    assert json.loads(stdout)["next_line"] == 26
    assert stderr == (
        "longshore: standard input: line 26 is not JSON (Expecting property name enclosed in double quotes, at "
        "character 2); the lines before 26 were surely published; go on with --from-line 26\n"
    )
    assert await numbers(aws_clients, queue) == list(range(1, 26))


async def test_ctrl_c_says_what_was_published_while_a_pipe_is_silent(
    aws_clients: AwsClients, make: Made, command: Command
) -> None:
    """What came before has gone out already, and the process ends although nobody closes the pipe."""
    topic, queue = await make(raw=True)
    process = command.start("--topic", topic, "--file", "-")
    assert process.stdin is not None
    process.stdin.write(events(3))
    process.stdin.flush()
    found: list[int] = []
    async with asyncio.timeout(20):
        while len(found) < 3:
            found += await numbers(aws_clients, queue)
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(process.wait, 10) == 130
    stdout, stderr = process.communicate()
    assert stdout.startswith("published 3 events to ")
    assert stderr == ("longshore: interrupted: the lines before 4 were surely published; go on with --from-line 4\n")


async def test_a_second_ctrl_c_gives_up_what_has_no_answer(command: Command) -> None:
    """An AWS that does not answer keeps nobody waiting."""
    (command.folder / "events.jsonl").write_text(events(3))
    called = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server, asyncio.timeout(30):
        host, port = server.sockets[0].getsockname()[:2]
        command.environ = {**command.environ, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        process = command.start("--topic", "arn:aws:sns:us-east-1:000000000000:events", "--file", "events.jsonl")
        await called.wait()
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)  # else the two are one
        process.send_signal(signal.SIGINT)
        stdout, stderr = await asyncio.to_thread(process.communicate, None, 20)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert stdout.startswith("published 0 events to events in ")
    assert stderr == "longshore: interrupted: no line was surely published; start again with --from-line 1\n"


async def test_what_aws_refuses_is_one_sentence(command: Command, unique_name: Name) -> None:
    """A missing topic is a user's mistake (2); an AWS that cannot be reached may heal (1)."""
    name = unique_name("events")
    status, stdout, stderr = await command("order.created", "--data", "{}", "--topic", name)
    assert (status, stdout) == (2, "")
    assert stderr.startswith(
        f"longshore: order.created was not published to {name}: the topic does not exist (NotFound"
    )
    (command.folder / "events.jsonl").write_text(events(3))
    status, stdout, stderr = await command("--topic", name, "--file", "events.jsonl")
    assert status == 2
    assert stdout.endswith("; 3 events failed\n")
    assert stderr.startswith("longshore: events.jsonl: line 1: order.created was not published")
    assert stderr.endswith("no line was surely published; start again with --from-line 1\n")
