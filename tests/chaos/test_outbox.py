"""The relay of the outbox is killed while it sends: every event arrives (D4, I4). Their order is checked where a topic keeps it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.command import COMMAND, clean_environment
from support.inbox import execute, prepare, transaction

from worker import outbox

pytestmark = pytest.mark.integration

Relay = asyncio.subprocess.Process
GROUPS, EACH, KILLS = 7, 40, 5


async def waits(url: str) -> bool:
    """Whether the outbox holds anything that is to be sent."""
    return bool(await execute(url, "SELECT 1 FROM longshore_outbox WHERE sent_at IS NULL LIMIT 1"))


async def start(url: str, topic: str, folder: Path, environment: dict[str, str]) -> Relay:
    """Start a relay of its own."""
    return await asyncio.create_subprocess_exec(
        *(*COMMAND, "outbox", "--database", url, "--topic", topic),
        cwd=folder,
        env=clean_environment(folder, environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def until_said(relay: Relay, words: str) -> None:
    """Read a relay's log until it says so."""
    assert relay.stdout is not None
    async with asyncio.timeout(60):
        while words.encode() not in (line := await relay.stdout.readline()):
            assert line, "the relay ended"


async def test_a_killed_relay_loses_nothing(
    orders_url: str,
    tmp_path: Path,
    make_outlet: Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]],
    aws_environment: dict[str, str],
) -> None:
    await prepare(orders_url)
    topic, arrived = await make_outlet("payments")
    chance = random.Random(7)
    for number in range(EACH):
        async with transaction("sqlite3" if orders_url.startswith("sqlite") else "asyncpg", orders_url) as (held, _):
            for group in range(GROUPS):
                await outbox.publish(held, "order.paid", f"{group} {number}", topic=topic, group_id=f"g{group}")
    kills = 0
    while await waits(orders_url):
        relay = await start(orders_url, topic, tmp_path, aws_environment)
        await until_said(relay, "started")
        if kills < KILLS:
            await asyncio.sleep(chance.uniform(0, 0.3))
            relay.kill()
            kills += 1
        else:
            async with asyncio.timeout(60):
                while await waits(orders_url):  # noqa: ASYNC110 - a database tells nobody
                    await asyncio.sleep(0.1)
            relay.terminate()
            assert await relay.wait() == 0
        await relay.communicate()
    found = {tuple(map(int, body.split())) for body in await arrived()}
    assert found == {(group, number) for group in range(GROUPS) for number in range(EACH)}
    assert kills


async def test_who_stands_by_takes_over_from_a_relay_that_was_killed(
    tmp_path: Path,
    make_outlet: Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]],
    aws_environment: dict[str, str],
) -> None:
    """The lock of SQLite ends with its process, whatever ends that."""
    url = f"sqlite:///{tmp_path}/orders.sqlite"
    await prepare(url)
    topic, arrived = await make_outlet("payments")
    first = await start(url, topic, tmp_path, aws_environment)
    await until_said(first, "started")
    second = await start(url, topic, tmp_path, aws_environment)
    await until_said(second, "stands by")
    first.kill()
    await first.communicate()
    async with transaction("sqlite3", url) as (held, _):
        await outbox.publish(held, "order.paid", "once", topic=topic)
    await until_said(second, "started")
    async with asyncio.timeout(60):
        while await waits(url):  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.1)
    second.terminate()
    await second.communicate()
    assert second.returncode == 0
    assert await arrived() == ["once"]
