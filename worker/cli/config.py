"""`longshore config check|show|schema`."""

import json
from typing import Annotated

import typer

from worker.cli.options import ConfigOption, JsonOption

__all__ = ["config"]

config = typer.Typer(name="config", help="Look at the fleet file.", no_args_is_help=True, rich_markup_mode=None)


@config.command()
def check(
    config: ConfigOption = None,
    live: Annotated[bool, typer.Option("--live", help="Ask AWS, and what handlers need besides.")] = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Check the fleet file and its handlers; --live asks AWS, too.

    Filters that SNS would refuse are found without asking it. Asked for are the queues, their dead-letter queues and the permissions on them;
    the idempotency store and its table; the Redis of limits; the buckets of large payloads. No message is touched, and nothing is left behind.
    """
    from worker.fleet.fit import unfit
    from worker.fleet.preflight import Preflight, preflight
    from worker.fleet.process import load_routers
    from worker.settings import load
    from worker.topology import wanted_by

    settings = load(config)
    wanted_by(settings)  # raises for a filter that SNS would refuse
    routers = load_routers(settings)
    found = Preflight()
    warnings = [*settings.warnings, *unfit(settings, routers)]
    if live:
        import asyncio

        found = asyncio.run(preflight(settings, routers))
        warnings += found.warnings
    problems = found.problems
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": problems, "warnings": warnings}))
    else:
        for warning in warnings:
            typer.echo(f"warning: {warning}")
        for answer in found.in_order:
            typer.echo(answer)
        for problem in problems:
            typer.echo(f"longshore: {problem}", err=True)
        if not problems:
            queues = len(settings.queues)
            typer.echo(f"{settings.service}: {queues} {'queue is' if queues == 1 else 'queues are'} in order")
    raise typer.Exit(2 if problems else 0)


@config.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Print the settings in effect: the environment over the file."""
    from worker.settings import effective, load

    settings = effective(load(config))
    if as_json:
        typer.echo(json.dumps(settings, indent=2))
        return
    import yaml

    typer.echo(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON schema of fleet files, for editors."""
    from worker.settings import schema as schema_of

    typer.echo(json.dumps(schema_of(), indent=2))
