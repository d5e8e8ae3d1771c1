"""`longshore topology apply`."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["topology"]

topology = typer.Typer(
    name="topology", help="The AWS resources of the fleet file.", no_args_is_help=True, rich_markup_mode=None
)


@topology.callback()
def _group() -> None:
    """Keep `apply` a subcommand although it is the only one."""


@topology.command()
def apply(
    config: Annotated[Path | None, typer.Option("--config", help="The fleet file.")] = None,
    local: Annotated[bool, typer.Option("--local", help="On an embedded AWS that ends with this command.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,  # noqa: FBT002
) -> None:
    """Create the topics, queues, dead-letter queues, policies and subscriptions that are missing; delete nothing."""
    import asyncio

    from worker.settings import load

    changes = asyncio.run(_apply(load(config), is_local=local))
    if as_json:
        typer.echo(json.dumps([str(change) for change in changes]))
        return
    for change in changes:
        typer.echo(str(change))
    typer.echo(f"{len(changes)} changes" if changes else "nothing to do")


async def _apply(settings, *, is_local: bool):  # noqa: ANN001, ANN202
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
