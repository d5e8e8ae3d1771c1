"""`longshore topology plan|apply|export`."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import ConfigOption, JsonOption
from worker.cli.topology_export import export

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from worker.aws.session import AwsClients
    from worker.settings import FleetSettings
    from worker.topology import Change, Plan

__all__ = ["topology"]

topology = typer.Typer(
    name="topology", help="The AWS resources of the fleet file.", no_args_is_help=True, rich_markup_mode=None
)

topology.add_typer(export)

LocalOption = Annotated[bool, typer.Option("--local", help="On an embedded AWS that ends with this command.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Exit with 1 when there is something to do.")]

MARKS = {"create": "+", "change": "~", "replace": "!", "foreign": "?"}


@topology.command()
def plan(
    config: ConfigOption = None,
    local: LocalOption = False,  # noqa: FBT002
    check: CheckOption = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Show how far AWS is from the fleet file; change nothing.

    Attribute by attribute: + is created, ~ changed (old -> new), ! must be replaced by a person, ? was written by someone else and stays.
    The exit status is 0, with --check 1 unless the plan is empty; what stays does not count.
    """
    import asyncio

    from worker.settings import load

    found = asyncio.run(_plan(load(config), is_local=local))
    if as_json:
        typer.echo(json.dumps({"empty": found.is_empty, "changes": [*map(_plain, found.changes)]}, indent=2))
    else:
        for line in _lines(found):
            typer.echo(line)
    raise typer.Exit(1 if check and not found.is_empty else 0)


@topology.command()
def apply(
    config: ConfigOption = None,
    local: LocalOption = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Create what is missing, correct what differs; delete nothing.

    It carries out the plan. Whatever fails, the same command goes on from there; a second time there is nothing to do.
    """
    import asyncio

    from worker.settings import load

    def tell(change: "Change") -> None:
        if not as_json:
            typer.echo(str(change))

    changes = asyncio.run(_apply(load(config), tell, is_local=local))
    if as_json:
        typer.echo(json.dumps({"changes": [*map(_plain, changes)]}, indent=2))
    else:
        typer.echo(f"{len(changes)} change{'s' if len(changes) > 1 else ''}" if changes else "nothing to do")


def _lines(found: "Plan") -> Iterator[str]:
    from worker.topology import Action

    for change in found.changes:
        yield f"{MARKS[change.action]} {change.kind} {change.name}"
        if change.note:
            yield f"    {change.note}"
        for difference in change.differences:
            is_new = change.action is Action.CREATE
            yield f"    {difference.name}: {difference.new}" if is_new else f"    {difference}"
    yield _summary(found)


def _summary(found: "Plan") -> str:
    from worker.topology import Action

    words = {
        Action.CREATE: "to create",
        Action.CHANGE: "to change",
        Action.REPLACE: "to be replaced by a person",
        Action.FOREIGN: "of others to stay",
    }
    counts = [f"{len(found.of(action))} {word}" for action, word in words.items() if found.of(action)]
    return ", ".join(["nothing to do", *counts] if found.is_empty else counts)


def _plain(change: "Change") -> dict[str, object]:
    plain: dict[str, object] = {"action": change.action, "kind": change.kind, "name": change.name}
    plain["attributes"] = {each.name: {"old": each.old, "new": each.new} for each in change.differences}
    return {**plain, "note": change.note} if change.note else plain


async def _plan(settings: "FleetSettings", *, is_local: bool) -> "Plan":
    from worker.topology import plan, wanted_by

    wanted = wanted_by(settings)
    async with _clients(settings, is_local=is_local) as clients:
        return await plan(wanted, clients)


async def _apply(settings: "FleetSettings", tell: "Callable[[Change], None]", *, is_local: bool) -> "list[Change]":
    from worker.topology import apply, wanted_by

    wanted = wanted_by(settings)
    async with _clients(settings, is_local=is_local) as clients:
        return await apply(wanted, clients, done=tell)


def _clients(settings: "FleetSettings", *, is_local: bool) -> "AbstractAsyncContextManager[AwsClients]":
    from contextlib import asynccontextmanager

    from worker.aws.session import AwsClients
    from worker.fleet.process import aws_access

    @asynccontextmanager
    async def embedded() -> "AsyncIterator[AwsClients]":
        from worker.local import EmbeddedAws

        async with EmbeddedAws() as aws, AwsClients(aws.access) as clients:
            yield clients

    return embedded() if is_local else AwsClients(aws_access(settings))
