"""`longshore outbox`: the relay of an outbox."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.database import DatabaseOption
from worker.cli.publish import choose_topic

if TYPE_CHECKING:
    from worker.settings import AwsSettings

__all__ = ["outbox"]

PATIENCE_SECONDS = 10.0
"""How long an event is tried before its row is let go of, for this relay or another one."""


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
    from worker.outbox.serving import drain, serve
    from worker.publisher import Publisher

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    work = drain if is_once else serve

    async def relay(name: str, address: str, aws: "AwsSettings | None") -> int:
        try:
            return await work(url, name, Publisher(address, aws=aws, patience_seconds=PATIENCE_SECONDS), stopped)
        finally:
            stopped.set()  # one that cannot work ends the others

    relays = [asyncio.create_task(relay(name, *where)) for name, where in addresses.items()]
    await asyncio.wait(relays)
    sent = sum([await each for each in relays])
    if is_once:
        typer.echo(f"sent {sent:,} events")
    return 0
