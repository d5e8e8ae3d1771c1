"""`longshore topology apply`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from worker.settings import FleetSettings
    from worker.topology.change import Change

__all__ = ["topology"]

topology = typer.Typer(
    name="topology", help="The AWS resources of the fleet file.", no_args_is_help=True, rich_markup_mode=None
)


@topology.callback()
def _group() -> None:
    """Keep `apply` a subcommand although it is the only one."""


@topology.command()
def apply(
    config: ConfigOption = None,
    local: Annotated[bool, typer.Option("--local", help="On an embedded AWS that ends with this command.")] = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Create what is missing and correct what differs; delete nothing.

    Topics, queues, dead-letter queues, queue policies and subscriptions. A second time there is nothing to do.
    """
    import asyncio

    from worker.settings import load

    changes = asyncio.run(_apply(load(config), is_local=local))
    if as_json:
        typer.echo(json.dumps([str(change) for change in changes]))
        return
    for change in changes:
        typer.echo(str(change))
    typer.echo(_count(len(changes)))


def _count(changes: int) -> str:
    return "nothing to do" if not changes else "1 change" if changes == 1 else f"{changes} changes"


async def _apply(settings: "FleetSettings", *, is_local: bool) -> "list[Change]":
    from contextlib import AsyncExitStack

    from worker.aws.session import AwsClients
    from worker.fleet.process import aws_access
    from worker.topology import apply, wanted_by

    async with AsyncExitStack() as stack:
        access = aws_access(settings)
        if is_local:
            from worker.local import EmbeddedAws

            access = (await stack.enter_async_context(EmbeddedAws())).access
        clients = await stack.enter_async_context(AwsClients(access))
        return await apply(wanted_by(settings), clients)
