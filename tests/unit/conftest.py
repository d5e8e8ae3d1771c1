"""Every async test in this folder runs in virtual time, unless it is marked `real_time`: hours pass in a moment."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from worker.testing import virtual_time


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: runs on the real clock (threads, sockets, subprocesses)")


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("real_time") or item.get_closest_marker("integration"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": virtual_time.new_event_loop}
