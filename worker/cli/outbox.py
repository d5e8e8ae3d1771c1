"""`longshore outbox`: the relay of an outbox."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.database import DatabaseOption
from worker.cli.options import whole_number
from worker.cli.publish import choose_topic
from worker.errors import LongshoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.outbox.relay import Stop
    from worker.outbox.serving import Drained, Serving
    from worker.publisher import Publisher
    from worker.settings import AwsSettings
    from worker.settings.payloads import OffloadSettings
    from worker.telemetry.metrics import Metrics

__all__ = ["outbox"]


def outbox(
    database: DatabaseOption,
    topic: Annotated[
        list[str],
        typer.Option("--topic", metavar="NAME", help="As `outbox.publish` was told; may be given again."),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="NUMBER",
            parser=whole_number(0, 65_535),
            help="Serve probes and metrics there; 0 takes a free one.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where the port is.")] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Send what waits; exit 1 if SNS takes not all.")] = False,  # noqa: FBT002
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The fleet file.")] = None,
) -> None:
    """Publish what the outbox holds, until SIGTERM or Ctrl-C.

    At least once, in order within each group, ten events a call. On PostgreSQL several may run side by side; on SQLite one per topic.
    """
    from worker.telemetry import logs

    logs.configure("json", "info")
    if once and port is not None:
        raise UsageError("--port has no effect with --once, which ends by itself: leave one of them out")
    addresses = {name: choose_topic(name, config) for name in topic}
    asyncio.run(_run(database, addresses, is_once=once, listen=None if port is None else (host, port)))


async def _run(
    url: str,
    addresses: "dict[str, tuple[str, AwsSettings | None, OffloadSettings | None]]",
    *,
    is_once: bool,
    listen: tuple[str, int] | None,
) -> None:
    from worker.outbox.relay import Stop
    from worker.outbox.serving import PATIENCE_SECONDS, drain
    from worker.publisher import Publisher

    publishers = {
        name: Publisher(address, aws=aws, patience_seconds=PATIENCE_SECONDS, large_payloads=large)
        for name, (address, aws, large) in addresses.items()
    }
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.now)
    if is_once:
        _tell({name: await drain(url, publisher, topic=name, stop=stop) for name, publisher in publishers.items()})
    else:
        await _serve(url, publishers, stop, listen)


def _tell(drained: "dict[str, Drained]") -> None:
    """Say what was sent; raise `LongshoreError`, one sentence, when that is not all that waited."""
    typer.echo(f"sent {sum(each.sent for each in drained.values()):,} events")
    said = [f"{each.waiting:,} of {name} wait still: {each.problem}" for name, each in drained.items() if each.waiting]
    said += [
        f"{each.refused:,} of {name} were refused for good, and the column refusal of longshore_outbox says why"
        for name, each in drained.items()
        if each.refused
    ]
    if said:
        raise LongshoreError(f"not all events were sent: {'; '.join(said)}")


async def _serve(url: str, publishers: "dict[str, Publisher]", stop: "Stop", listen: tuple[str, int] | None) -> None:
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
        if listen is not None:
            await _listen(stack, listen, relays, metrics)
        try:
            await asyncio.gather(*(relay.run() for relay in relays))
        finally:
            stop.now()  # one that cannot work ends the others


async def _listen(
    stack: AsyncExitStack, listen: tuple[str, int], relays: "Sequence[Serving]", metrics: "Metrics"
) -> None:
    import structlog

    from worker.server.status import StatusServer

    server = StatusServer(*listen, status=_Relays(relays, metrics), metrics=metrics, named=("--host", "--port"))
    await stack.enter_async_context(server)
    structlog.get_logger("outbox").info("listening", host=listen[0], port=server.port)


class _Relays:
    """What the server asks of relays that run by themselves."""

    def __init__(self, relays: "Sequence[Serving]", metrics: "Metrics") -> None:
        self._relays = relays
        self._metrics = metrics
        self._started_at = time.monotonic()

    def liveness(self) -> list[str]:
        """Return nothing: a relay that crashes ends its process, and all it does has a deadline."""
        return []

    def readiness(self) -> list[str]:
        """Return why events do not go out."""
        return [problem for relay in self._relays for problem in relay.problems()]

    def warnings(self) -> list[str]:
        """Return nothing."""
        return []

    def status(self) -> dict[str, object]:
        """Return the whole picture, ready for JSON."""
        from importlib import metadata

        problems = self.readiness()
        return {
            "service": "outbox",
            "version": metadata.version("longshore"),
            "state": "not ready" if problems else "ready",
            "uptime_seconds": round(time.monotonic() - self._started_at, 1),
            "problems": problems,
            "warnings": [],
            "queues": {},
            "outboxes": self._metrics.outboxes(),
        }
