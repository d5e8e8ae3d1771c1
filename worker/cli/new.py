"""`longshore new`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["new"]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the service, such as my-service.")],
    directory: Annotated[
        Path | None, typer.Option("--directory", metavar="DIR", help="Write here; else into a folder called NAME.")
    ] = None,
) -> None:
    """Begin a service that passes its own tests.

    Handlers, fleet file, tests, demo, Makefile, Dockerfile and compose file are written into a directory that is empty
    or does not exist.
    """
    from worker.scaffold import scaffold

    folder = directory or Path(name)
    written = scaffold(name, folder)
    for path in written:
        typer.echo(f"  {path}")
    typer.echo(f"{name} is ready: cd {shlex.quote(str(folder))} && make test && make demo")
