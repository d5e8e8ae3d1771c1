"""`longshore config check|show|schema`."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["config"]

config = typer.Typer(name="config", help="Look at the fleet file.", no_args_is_help=True, rich_markup_mode=None)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The fleet file; $LONGSHORE_CONFIG, config/fleet.yaml or fleet.yaml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@config.command()
def check(
    config: ConfigOption = None,
    live: Annotated[bool, typer.Option("--live", help="Ask AWS about the queues and permissions, too.")] = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Check the fleet file and its handlers; with --live also the queues, their dead-letter queues and permissions."""
    from worker.fleet.process import load_routers
    from worker.settings import load

    settings = load(config)
    load_routers(settings)
    problems: list[str] = []
    warnings = list(settings.warnings)
    if live:
        import asyncio

        from worker.fleet.preflight import preflight

        found = asyncio.run(preflight(settings))
        problems, warnings = found.problems, warnings + found.warnings
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": problems, "warnings": warnings}))
    else:
        for warning in warnings:
            typer.echo(f"warning: {warning}")
        for problem in problems:
            typer.echo(f"longshore: {problem}", err=True)
        if not problems:
            queues = len(settings.queues)
            typer.echo(f"{settings.service}: {queues} {'queue is' if queues == 1 else 'queues are'} in order")
    raise typer.Exit(2 if problems else 0)


@config.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Print the effective settings: defaults, file and environment merged."""
    from worker.settings import effective, load

    settings = effective(load(config))
    if as_json:
        typer.echo(json.dumps(settings, indent=2))
        return
    import yaml

    typer.echo(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON schema of the fleet file, for editors."""
    from worker.settings import schema as schema_of

    typer.echo(json.dumps(schema_of(), indent=2))
