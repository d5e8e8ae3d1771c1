"""The command line's tree. Commands import what they need when they run, so that `--help` and `run` stay small."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.config import config
from worker.cli.publish import publish
from worker.cli.topology import topology

__all__ = ["app"]

app = typer.Typer(
    name="longshore",
    help="A fleet of long-running workers for events that travel SNS topic -> SQS queues -> handlers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(config)
app.add_typer(topology)
app.command()(publish)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The fleet file; $LONGSHORE_CONFIG, config/fleet.yaml or fleet.yaml.")
]


@app.command()
def run(
    config: ConfigOption = None,
    queue: Annotated[list[str] | None, typer.Option("--queue", help="Only this queue; may be given again.")] = None,
    local: Annotated[bool, typer.Option("--local", help="On an embedded AWS, with the fleet's topology.")] = False,  # noqa: FBT002
) -> None:
    """Run the worker: consume the queues of the fleet file until SIGTERM or Ctrl-C."""
    from worker.cli.run import run_worker

    raise typer.Exit(run_worker(config, queue or [], is_local=local))


@app.command()
def demo(
    events: Annotated[int, typer.Option("--events", min=1, max=100_000, help="Events to publish.")] = 1000,
    forever: Annotated[bool, typer.Option("--forever", help="Publish and consume until Ctrl-C.")] = False,  # noqa: FBT002
) -> None:
    """Watch events travel from a topic through queues to handlers on an embedded AWS, and check the books."""
    from worker.cli.run import run_demo

    raise typer.Exit(run_demo(events, is_forever=forever))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib import metadata

    typer.echo(metadata.version("longshore"))
