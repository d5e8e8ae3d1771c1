"""`longshore run` with an outbox, as a process: what handlers stored arrives, or waits for the next one (I4)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.command import COMMAND, clean_environment, longshore, mistake
from support.inbox import execute, prepare, transaction

from worker import outbox
from worker.aws.session import AwsClients
from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration

FLEET = """\
service: shop
aws: {{region: us-east-1}}
drain_seconds: 10
server: {{port: 0}}
topics:
  {topic}: {{}}
queues:
  {queue}: {{handlers: "shop:router", wait_time_seconds: 1, concurrency: 2, dead_letter: none}}
outbox: {{database: "{url}", topics: [{topic}]}}
"""
HANDLERS = """\
import sqlite3
from contextlib import closing

from worker import Message, Router, outbox

router = Router()


@router.on("order.created")
async def pay(message: Message[dict]) -> None:
    with closing(sqlite3.connect("orders.sqlite", timeout=30)) as connection, connection:
        connection.execute("INSERT INTO effects (n) VALUES (?)", (message.event["n"],))
        outbox.publish_sync(connection, "order.paid", message.event, topic="{topic}", group_id="a")
"""
Outlet = tuple[str, Callable[[], Awaitable[list[str]]]]


class Shop:
    """A fleet of one queue whose handler stores an event, and what arrives of these."""

    def __init__(self, folder: Path, aws: EmbeddedAws, queue: str, outlet: Outlet) -> None:
        self.url = f"sqlite:///{folder}/orders.sqlite"
        self.topic, self._arrived = outlet
        self.arrived: list[int] = []
        self._folder, self._aws, self._queue = folder, aws, queue
        names = {"topic": self.topic, "queue": queue, "url": self.url}
        (folder / "fleet.yaml").write_text(FLEET.format_map(names), encoding="utf-8")
        (folder / "shop.py").write_text(HANDLERS.format_map(names), encoding="utf-8")

    async def order(self, *numbers: int) -> None:
        async with AwsClients(self._aws.access) as clients:
            url = (await clients.settle.call("get_queue_url", QueueName=self._queue))["QueueUrl"]
            kind = {"event_type": {"DataType": "String", "StringValue": "order.created"}}
            for number in numbers:
                body = json.dumps({"n": number})
                await clients.settle.call("send_message", QueueUrl=url, MessageBody=body, MessageAttributes=kind)

    async def start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(*COMMAND, "run"),
            cwd=self._folder,
            env=clean_environment(self._folder, self._aws.environment),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def until_arrived(self, *numbers: int) -> None:
        async with asyncio.timeout(60):
            while not {*numbers} <= {*self.arrived}:
                await self.look()
                await asyncio.sleep(0.1)

    async def look(self) -> None:
        self.arrived += [json.loads(body)["n"] for body in await self._arrived()]

    async def numbers(self, ask: str) -> set[int]:
        return {row[0] for row in await execute(self.url, ask)}


@pytest.fixture
async def shop(
    tmp_path: Path,
    embedded_aws: EmbeddedAws,
    make_queue: Callable[..., Awaitable[str]],
    make_outlet: Callable[[str], Awaitable[Outlet]],
) -> Shop:
    return Shop(tmp_path, embedded_aws, await make_queue("orders"), await make_outlet("payments"))


async def stopped(process: asyncio.subprocess.Process) -> int:
    process.terminate()
    async with asyncio.timeout(30):
        return await process.wait()


async def test_what_handlers_store_arrives_and_the_next_process_sends_the_rest(shop: Shop) -> None:
    """SIGTERM at any moment: every event whose transaction was committed was sent, or is sent by the next one."""
    await prepare(shop.url)
    process = await shop.start()
    await shop.order(0)
    await shop.until_arrived(0)
    await shop.order(*range(1, 40))
    await shop.until_arrived(1)
    assert await stopped(process) == 0
    await shop.look()
    committed = await shop.numbers("SELECT n FROM effects")
    waiting = await shop.numbers("SELECT json_extract(body, '$.n') FROM longshore_outbox WHERE sent_at IS NULL")
    assert {*shop.arrived} | waiting == committed
    async with transaction("sqlite3", shop.url) as (connection, _):
        await outbox.publish(connection, "order.paid", {"n": 100}, topic=shop.topic)  # while nobody sends
    process = await shop.start()
    await shop.until_arrived(*range(40), 100)
    assert await stopped(process) == 0


async def test_missing_tables_are_one_sentence(shop: Shop, tmp_path: Path, embedded_aws: EmbeddedAws) -> None:
    await execute(shop.url, "SELECT 1")  # makes the file
    ended = await asyncio.to_thread(longshore, "run", folder=tmp_path, environment=embedded_aws.environment)
    assert "has no tables of Longshore's" in mistake(ended)
