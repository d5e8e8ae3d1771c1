"""The command line's tree. Commands import what they need when they run, so that `--help` and `run` stay small."""

from typing import Annotated

import typer

from worker.cli.config import config
from worker.cli.options import ConfigOption, VersionOption, print_version
from worker.cli.publish import publish
from worker.cli.topology import topology

__all__ = ["app"]

MAX_EVENTS = 100_000

app = typer.Typer(
    name="longshore",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(config)
app.add_typer(topology)
app.command()(publish)


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


def _event_count(given: object) -> int:
    text = str(given)  # the default comes as a number
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_EVENTS):
        raise typer.BadParameter(f"{text!r} must be a whole number from 1 to {MAX_EVENTS}")
    return int(text)


@app.command()
def demo(
    events: Annotated[
        int, typer.Option("--events", metavar="N", parser=_event_count, help=f"Events to publish, 1 to {MAX_EVENTS}.")
    ] = 1000,
    forever: Annotated[bool, typer.Option("--forever", help="Publish and consume until Ctrl-C.")] = False,  # noqa: FBT002
) -> None:
    """Watch a fleet at work on an embedded AWS, and check its books."""
    from worker.cli.run import run_demo

    raise typer.Exit(run_demo(events, is_forever=forever))


@app.command()
def version() -> None:
    """Print the version."""
    print_version()
