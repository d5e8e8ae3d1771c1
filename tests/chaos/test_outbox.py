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

GROUPS, EACH, KILLS = 7, 40, 5


async def waits(url: str) -> bool:
    """Whether the outbox holds anything that is to be sent."""
    return bool(await execute(url, "SELECT 1 FROM longshore_outbox WHERE sent_at IS NULL LIMIT 1"))


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
        relay = await asyncio.create_subprocess_exec(
            *(*COMMAND, "outbox", "--database", orders_url, "--topic", topic),
            cwd=tmp_path,
            env=clean_environment(tmp_path, aws_environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert relay.stdout is not None
        async with asyncio.timeout(60):
            while b'"started"' not in (line := await relay.stdout.readline()):
                assert line, "the relay ended"
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
