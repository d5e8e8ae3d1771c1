"""Stacks in the log (D3)."""

import asyncio

import pytest
from structlog.testing import capture_logs

from worker.fleet.stacks import log_stacks


async def wait_for_the_moon() -> None:
    await asyncio.sleep(100)


@pytest.mark.real_time
async def test_stacks_name_the_place_where_each_task_and_thread_stands() -> None:
    """Whoever reads the log at 3 AM sees which line waits."""
    task = asyncio.create_task(wait_for_the_moon(), name="moon")
    await asyncio.sleep(0)
    with capture_logs() as lines:
        log_stacks("asked")
    task.cancel()
    moon = next(line for line in lines if line["event"] == "task" and line["name"] == "moon")
    assert any("wait_for_the_moon" in place for place in moon["waits_in"])
    main = next(line for line in lines if line["event"] == "thread" and line["name"] == "MainThread")
    assert any("log_stacks" in place for place in main["stands_in"])
