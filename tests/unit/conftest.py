"""Every async test in this folder runs in virtual time, unless it is marked `real_time`: hours pass in a moment."""

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest
import structlog
from structlog._config import BoundLoggerLazyProxy

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


@pytest.fixture(autouse=True)
def _loggers_follow_the_test() -> None:
    """A run of the worker in this process caches its loggers; a test that captures lines needs them as they were."""
    for name, module in list(sys.modules.items()):
        if name.startswith("worker."):
            for logger in (vars(module).get("log"), vars(module).get("_log")):
                if isinstance(logger, BoundLoggerLazyProxy):
                    vars(logger).pop("bind", None)
    structlog.reset_defaults()
