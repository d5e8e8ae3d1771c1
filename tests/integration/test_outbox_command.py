"""`longshore outbox` as a process tells what it does to whoever asks on its port."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from support.command import COMMAND, clean_environment, longshore, mistake
from support.inbox import prepare, transaction

from worker import outbox

pytestmark = pytest.mark.integration


async def test_its_metrics_and_probes_can_be_read_on_loopback(
    tmp_path: Path,
    make_outlet: Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]],
    aws_environment: dict[str, str],
) -> None:
    url = f"sqlite:///{tmp_path}/orders.sqlite"
    await prepare(url)
    topic, _ = await make_outlet("payments")
    async with transaction("sqlite3", url) as (connection, _):
        await outbox.publish(connection, "order.paid", {"n": 1}, topic=topic)
    relay = await asyncio.create_subprocess_exec(
        *(*COMMAND, "outbox", "--database", url, "--topic", topic, "--port", "0"),
        cwd=tmp_path,
        env=clean_environment(tmp_path, aws_environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert relay.stdout is not None
        async with asyncio.timeout(60):
            while b'"listening"' not in (line := await relay.stdout.readline()):
                assert line, "the relay ended"
        told = json.loads(line)
        assert told["host"] == "127.0.0.1"
        async with asyncio.timeout(60), aiohttp.ClientSession(f"http://127.0.0.1:{told['port']}") as client:
            while f'longshore_outbox_sent_total{{topic="{topic}"}} 1.0' not in await text(client, "/metrics"):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
            assert json.loads(await text(client, "/readyz"))["ready"]
            assert json.loads(await text(client, "/livez"))["alive"]
            assert json.loads(await text(client, "/api/status"))["outboxes"][topic]["sent"] == 1
    finally:
        relay.terminate()
        await relay.communicate()
    assert relay.returncode == 0


async def text(client: aiohttp.ClientSession, path: str) -> str:
    async with client.get(path) as answer:
        return await answer.text()


def test_a_port_is_refused_where_it_has_no_effect(tmp_path: Path) -> None:
    arguments = ("outbox", "--database", f"sqlite:///{tmp_path}/none", "--topic", "payments", "--once", "--port", "0")
    assert "--port has no effect with --once" in mistake(longshore(*arguments, folder=tmp_path))


async def test_a_port_that_is_taken_is_named_as_it_was_given(tmp_path: Path, aws_environment: dict[str, str]) -> None:
    url = f"sqlite:///{tmp_path}/orders.sqlite"
    await prepare(url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("outbox", "--database", url, "--topic", "payments", "--port", port)
        ended = await asyncio.to_thread(longshore, *arguments, folder=tmp_path, environment=aws_environment)
    assert mistake(ended).endswith(
        f"--port {port} on 127.0.0.1 is taken by another process; stop it, choose another port, or set --port 0 to take a free one"
    )
