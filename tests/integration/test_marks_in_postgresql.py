"""Marks in a PostgreSQL that hangs and goes on: each call ends with its caller, and leaves nothing behind that nobody asks after."""

import asyncio
import gc
import os
import signal
from typing import Any

import pytest
from support.postgres import Postgres

from worker.idempotency import Begun, Mark, StoreError
from worker.idempotency import postgresql as store_module
from worker.idempotency.postgresql import PostgresStore

pytestmark = pytest.mark.postgres

HUNG_SECONDS = 1.0
CALLER_SECONDS = 1.3


def mark(number: int) -> Mark:
    return Mark(f"orders:{number}", "p", "a", 60.0)


async def test_a_server_that_hung_and_was_resumed_leaves_no_task_unasked_after(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own time limit ends calls as well, in the middle of what the driver does to a connection."""
    monkeypatch.setattr(store_module, "CALL_SECONDS", HUNG_SECONDS)
    unasked: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unasked.append(context))
    url = await postgres.make_database()
    store = PostgresStore(url, retention_seconds=60)
    await store.open()
    await asyncio.gather(*(store.begin([mark(number)]) for number in range(4)))
    observer = await postgres.connect(url.rpartition("/")[2])
    backends = [
        row[0] for row in await observer.fetch("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    ]
    await observer.close()
    assert postgres._process is not None
    pids = [postgres._process.pid, *backends]
    await _signal(pids, signal.SIGSTOP)
    try:
        for number in range(10, 13):
            with pytest.raises((StoreError, TimeoutError)):
                async with asyncio.timeout(CALLER_SECONDS):
                    await store.begin([mark(number)])
    finally:
        await _signal(pids, signal.SIGCONT)
    await asyncio.sleep(HUNG_SECONDS)
    assert await store.begin([mark(20)]) == [Begun()]
    await store.close()
    await asyncio.sleep(0.1)
    gc.collect()
    assert [context["message"] for context in unasked] == []


async def _signal(pids: list[int], what: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, what)
        except ProcessLookupError:  # the observer's backend
            continue
    await asyncio.sleep(0)
