"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ConfigOption", "JsonOption", "VersionOption", "print_version", "whole_number"]


def print_version() -> None:
    """Print the version of the installed distribution."""
    from importlib import metadata

    typer.echo(metadata.version("longshore"))


def whole_number(least: int, most: int) -> Callable[[object], int]:
    """Return what reads an option that is a whole number within bounds."""

    def parse(given: object) -> int:
        text = str(given)  # the default comes as a number
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise typer.BadParameter(f"{text!r} must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _version(is_wanted: bool) -> None:  # noqa: FBT001 - the parser calls it so
    if is_wanted:
        print_version()
        raise typer.Exit


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The fleet file; else $LONGSHORE_CONFIG, config/fleet.yaml or fleet.yaml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
VersionOption = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
]
