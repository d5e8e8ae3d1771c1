"""`Tap`: a way to a server that counts round trips, whatever protocol is spoken on it."""

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Tap"]

READ_BYTES = 1 << 16


class Tap:
    """A port on loopback that leads to a server's, while inside.

    A round trip begins when the client speaks first, or after the server has: what it sends in one go, however long, is one.
    """

    def __init__(self, port: int) -> None:
        self._leads_to = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        """Where clients are to connect; known once entered."""
        self.round_trips = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def through(self, url: str) -> str:
        """Return the server's URL with the tap's port in it."""
        return url.replace(f":{self._leads_to}", f":{self.port}")

    def _connected(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._lead(from_client, to_client), name="tap")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _lead(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._leads_to)
        is_servers_turn = False

        async def ask() -> None:
            nonlocal is_servers_turn
            while said := await from_client.read(READ_BYTES):
                self.round_trips += not is_servers_turn
                is_servers_turn = True
                to_server.write(said)
                await to_server.drain()

        async def answer() -> None:
            nonlocal is_servers_turn
            while said := await from_server.read(READ_BYTES):
                is_servers_turn = False
                to_client.write(said)
                await to_client.drain()

        ways = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (to_server, to_client):
                end.close()
            await asyncio.gather(*ways, to_server.wait_closed(), to_client.wait_closed(), return_exceptions=True)
