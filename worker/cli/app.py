"""The command line's tree. Commands import what they need when they run, so that `--help` and `run` stay small."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.config import config
from worker.cli.database import database as database_commands
from worker.cli.demo import demo
from worker.cli.new import new
from worker.cli.options import ConfigOption, VersionOption, print_version, whole_number
from worker.cli.outbox import outbox
from worker.cli.publish import publish
from worker.cli.topology import topology

__all__ = ["app"]

MAX_PORT = 65_535

app = typer.Typer(
    name="longshore",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(config)
app.add_typer(topology)
app.add_typer(database_commands)
app.command()(publish)
app.command()(outbox)
app.command()(new)
app.command()(demo)


@app.callback()
def longshore(version: VersionOption = False) -> None:  # noqa: FBT002 - its callback has the effect
    """A fleet of long-running workers for events that travel SNS topic -> SQS queues -> handlers."""


@app.command()
def run(
    config: ConfigOption = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", metavar="NAME", help="Only this queue; may be given again.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="On an embedded AWS, with the fleet's topology.")] = False,  # noqa: FBT002
) -> None:
    """Consume the queues of the fleet file until SIGTERM or Ctrl-C."""
    from worker.cli.early import ending_early

    with ending_early():
        from worker.cli.run import run_worker

        raise typer.Exit(run_worker(config, queue or [], is_local=local))


@app.command()
def local(
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", parser=whole_number(0, MAX_PORT), help="Listen here; 0: on a free port."),
    ] = 0,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Apply the topology of this fleet file, too.")
    ] = None,
) -> None:
    """Keep an embedded AWS for workers that come and go.

    It stays until Ctrl-C, and prints the export line that leads another terminal there: start workers, publish and look
    around from those. It listens on loopback only, holds everything in memory, and is empty without --config.
    """
    from worker.cli.early import ending_early

    with ending_early():
        from worker.cli.local import serve_embedded_aws

        raise typer.Exit(serve_embedded_aws(config, port))


@app.command()
def healthcheck(
    config: ConfigOption = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Ask this instead, such as http://127.0.0.1:8080/readyz.")
    ] = None,
) -> None:
    """Ask the worker that runs here whether it is alive.

    Exit 0 if so, else 1. It asks /livez where the fleet file and the environment say that the worker listens.
    """
    from worker.cli.healthcheck import check_health

    check_health(url, config)


@app.command()
def version() -> None:
    """Print the version."""
    print_version()
