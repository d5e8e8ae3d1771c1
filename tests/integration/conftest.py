"""Integration tests run on the real clock against real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest


@pytest.fixture
def blackhole() -> Callable[[], AbstractAsyncContextManager[str]]:
    """Return a context manager that yields the URL of a server which takes every request and never answers."""

    @asynccontextmanager
    async def open_blackhole() -> AsyncIterator[str]:
        connections: list[asyncio.StreamWriter] = []

        def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            server.close()
            for writer in connections:
                writer.close()

    return open_blackhole
