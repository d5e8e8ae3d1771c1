"""Running a fleet file on the embedded AWS."""

import shlex
import sys
from collections.abc import Mapping

import structlog

from worker.aws.session import AwsClients
from worker.fleet.process import Process
from worker.local import EmbeddedAws
from worker.router import Router
from worker.settings import FleetSettings
from worker.topology import apply, wanted_by

__all__ = ["run_on_embedded_aws"]

log = structlog.get_logger("local")


async def run_on_embedded_aws(settings: FleetSettings, routers: Mapping[str, Router]) -> int:
    """Start an embedded AWS with the fleet's topology and consume from it until told to stop."""
    async with EmbeddedAws() as aws:
        async with AwsClients(aws.access) as clients:
            changes = await apply(wanted_by(settings), clients)
        log.info("embedded AWS", endpoint_url=aws.endpoint_url, resources_made=len(changes))
        sys.stderr.write(f"To publish from another terminal:\n{_shell(aws.environment)}\n")
        return await Process(settings, routers, aws.access).run()


def _shell(environment: Mapping[str, str]) -> str:
    """Return the line that leads another terminal here; the credentials are the emulator's own."""
    return "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
