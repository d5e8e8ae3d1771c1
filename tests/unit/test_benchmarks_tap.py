"""The tap of the benchmarks counts round trips, not packets."""

import asyncio

from benchmarks.tap import Tap


async def test_a_round_trip_is_a_question_and_its_answer() -> None:
    """A question in several pieces is one; so is an answer; and each client counts by itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *pieces: bytes) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        assert await reader.readline() == b"".join(pieces)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Tap(port) as tap:
        assert tap.through(f"echo://127.0.0.1:{port}/0") == f"echo://127.0.0.1:{tap.port}/0"
        clients = [await asyncio.open_connection("127.0.0.1", tap.port) for _ in range(2)]
        for client in clients:
            await ask(*client, b"one\n")
            await ask(*client, b"t", b"wo\n")
        for _, writer in clients:
            writer.close()
            await writer.wait_closed()
    assert tap.round_trips == 4
