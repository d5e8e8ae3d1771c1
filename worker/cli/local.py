"""The embedded AWS on the command line: for one worker (`run --local`), or for as many as come (`local`)."""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from worker.aws.session import AwsClients
from worker.fleet.process import Process
from worker.local import EmbeddedAws
from worker.router import Router
from worker.settings import FleetSettings, load
from worker.topology import Change, apply, wanted_by

__all__ = ["run_on_embedded_aws", "serve_embedded_aws"]

log = structlog.get_logger("local")


async def run_on_embedded_aws(settings: FleetSettings, routers: Mapping[str, Router]) -> int:
    """Start an embedded AWS with the fleet's topology and consume from it until told to stop."""
    async with EmbeddedAws() as aws:
        changes = await _furnish(aws, settings)
        log.info("embedded AWS", endpoint_url=aws.endpoint_url, resources_made=len(changes))
        sys.stderr.write(f"To publish from another terminal:\n{aws.shell_line}\n")
        return await Process(settings, routers, aws.access).run()


def serve_embedded_aws(config: Path | None, port: int) -> int:
    """Start an embedded AWS, with the fleet's topology if a file is given, and keep it until SIGTERM or Ctrl-C.

    Standard output gets the line for other terminals and nothing else. Raises `LongshoreError` when it ends by itself.
    """
    return asyncio.run(_serve(load(config) if config else None, port))


async def _serve(settings: FleetSettings | None, port: int) -> int:
    serving = asyncio.ensure_future(_keep(settings, port))

    def end() -> None:
        if not serving.cancelling():  # a second signal must not interrupt the tidying up
            serving.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await asyncio.wait({serving})
    if not serving.cancelled():
        serving.result()  # it does not end by itself, it fails
    return 0


async def _keep(settings: FleetSettings | None, port: int) -> None:
    async with EmbeddedAws(port=port) as aws:
        made = f" with {len(await _furnish(aws, settings))} resources" if settings else ""
        sys.stderr.write(f"The embedded AWS{made} lives until Ctrl-C. In other terminals:\n")
        sys.stdout.write(f"{aws.shell_line}\n")
        sys.stdout.flush()
        await aws.ended()


async def _furnish(aws: EmbeddedAws, settings: FleetSettings) -> Sequence[Change]:
    async with AwsClients(aws.access) as clients:
        return await apply(wanted_by(settings), clients)
