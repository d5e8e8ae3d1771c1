"""`longshore outbox`: the relay of an outbox."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.database import DatabaseOption
from worker.cli.publish import choose_topic

if TYPE_CHECKING:
    from worker.outbox.relay import Stop
    from worker.publisher import Publisher
    from worker.settings import AwsSettings

__all__ = ["outbox"]


def outbox(
    database: DatabaseOption,
    topic: Annotated[
        list[str],
        typer.Option("--topic", metavar="NAME", help="As `outbox.publish` was told; may be given again."),
    ],
    once: Annotated[bool, typer.Option("--once", help="Send what waits, and end.")] = False,  # noqa: FBT002
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The fleet file.")] = None,
) -> None:
    """Publish what the outbox holds, until SIGTERM or Ctrl-C.

    At least once, in order within each group, ten events a call. On PostgreSQL several may run side by side; on SQLite one per topic.
    """
    from worker.telemetry import logs

    logs.configure("json", "info")
    addresses = {name: choose_topic(name, config)[:2] for name in topic}
    raise typer.Exit(asyncio.run(_run(database, addresses, is_once=once)))


async def _run(url: str, addresses: "dict[str, tuple[str, AwsSettings | None]]", *, is_once: bool) -> int:
    from worker.outbox.relay import Stop
    from worker.outbox.serving import PATIENCE_SECONDS, drain
    from worker.publisher import Publisher

    publishers = {
        name: Publisher(address, aws=aws, patience_seconds=PATIENCE_SECONDS)
        for name, (address, aws) in addresses.items()
    }
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.now)
    if is_once:
        sent = [await drain(url, publisher, topic=name, stop=stop) for name, publisher in publishers.items()]
        typer.echo(f"sent {sum(sent):,} events")
        return 0
    await _serve(url, publishers, stop)
    return 0


async def _serve(url: str, publishers: "dict[str, Publisher]", stop: "Stop") -> None:
    from worker.outbox.serving import Serving
    from worker.telemetry.metrics import Metrics

    metrics = Metrics()
    async with AsyncExitStack() as stack:
        relays = [
            await stack.enter_async_context(
                Serving(url, publisher, metrics.outbox(name), stop=stop, needs_database=True)
            )
            for name, publisher in publishers.items()
        ]
        try:
            await asyncio.gather(*(relay.run() for relay in relays))
        finally:
            stop.now()  # one that cannot work ends the others
