"""`longshore topology export cloudformation|terraform|iam`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.settings import FleetSettings
    from worker.topology import Topology
    from worker.topology.place import Place

__all__ = ["export"]

export = typer.Typer(
    name="export", help="The same resources for other tools.", no_args_is_help=True, rich_markup_mode=None
)

OutputOption = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Into this file, if it is new.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file.")]


@export.command()
def cloudformation(
    config: ConfigOption = None,
    one_policy: Annotated[  # noqa: FBT002
        bool, typer.Option("--one-policy", help="One policy for all queues that the same topics write to.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002
    output: OutputOption = None,
    force: ForceOption = False,  # noqa: FBT002
) -> None:
    """Print a CloudFormation template: YAML, or JSON.

    It can be applied in any account and region; topology plan finds nothing to do there afterwards.
    """
    from worker.topology.export import cloudformation

    template = cloudformation(_wanted(config), one_policy=one_policy)
    _write(_json(template) if as_json else _yaml(template), output, is_forced=force)


@export.command()
def terraform(config: ConfigOption = None, output: OutputOption = None, force: ForceOption = False) -> None:  # noqa: FBT002
    """Print a Terraform file for the provider hashicorp/aws.

    It can be applied in any account and region; topology plan finds nothing to do there afterwards.
    """
    from worker.topology.export import terraform

    _write(terraform(_wanted(config)), output, is_forced=force)


@export.command()
def iam(  # noqa: PLR0913, PLR0917 - a command has options
    config: ConfigOption = None,
    role: Annotated[
        str | None,
        typer.Option("--role", help="One of consumer, publisher, scaler, redriver, provisioner; else all of them."),
    ] = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", metavar="NAME", help="Only for this queue; may be given again.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="ALIAS=ID", help="The KMS key behind an alias; may be given again."),
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="ID", help="The AWS account that it is for.")
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", metavar="NAME", help="The region that it is for; else the fleet file's.")
    ] = None,
    output: OutputOption = None,
    force: ForceOption = False,  # noqa: FBT002
) -> None:
    """Print the least that a role must be allowed, for IAM.

    Without --role, the policies of all roles by name. Without --account, STS is asked whom the credentials belong to.
    """
    import asyncio

    from worker.settings import load
    from worker.topology.export import policies, policy

    settings = load(config)
    chosen, keys = _role(role, queue or []), _keys(key or [])
    place = _told(settings, account, region) if account is not None else asyncio.run(_found(settings, region))
    found = (
        policies(settings, place, keys=keys)
        if chosen is None
        else policy(chosen, settings, place, queues=queue or [], keys=keys)
    )
    _write(_json(found), output, is_forced=force)


def _wanted(config: Path | None) -> "Topology":
    """Return what the fleet file wants; raise `UsageError` for a subscription that its region cannot make."""
    from worker.aws.address import topic_address
    from worker.settings import load
    from worker.topology import wanted_by

    settings = load(config)
    topology = wanted_by(settings)
    if settings.aws.region is not None:
        for subscription in topology.subscriptions:
            topic_address(subscription.topic, settings.aws.region)
    return topology


def _role(text: str | None, queues: "Sequence[str]") -> Any:
    from worker.errors import UsageError
    from worker.topology.export import Role

    if text is None and queues:
        raise UsageError("--queue is for one role: name it with --role, such as --role consumer")
    if text is not None and text not in set(Role):
        raise UsageError(f"--role is {text!r}, but must be one of {', '.join(Role)}")
    return text and Role(text)


def _keys(told: "Sequence[str]") -> "Mapping[str, str]":
    from worker.errors import UsageError

    pairs = [text.partition("=") for text in told]
    for text, (alias, _, identity) in zip(told, pairs, strict=True):
        if "alias/" not in alias or not identity or "alias/" in identity:
            raise UsageError(
                f"--key is {text!r}, but must be an alias and the key behind it, such as alias/orders=KEY_ID"
            )
    return {alias[alias.find("alias/") :]: identity for alias, _, identity in pairs}


def _told(settings: "FleetSettings", account: str, region: str | None) -> "Place":
    """Return the place that the options name, and the fleet file."""
    from worker.errors import UsageError
    from worker.topology.export import place_in

    known = region or settings.aws.region
    if known is None:
        raise UsageError("the region is not known: say --region, or set aws.region in the fleet file")
    return place_in(known, account)


async def _found(settings: "FleetSettings", region: str | None) -> "Place":
    """Return the place of the credentials."""
    from dataclasses import replace

    from worker.aws.session import AwsClients
    from worker.errors import SourceError, UsageError
    from worker.fleet.process import aws_access
    from worker.topology.export import place_in

    access = aws_access(settings)
    try:
        async with AwsClients(replace(access, region=region or access.region)) as clients:
            _, account = await clients.account()
            return place_in(clients.region, account)
    except (SourceError, UsageError) as error:
        raise UsageError(f"the account is not known, and STS does not tell it ({error}): say --account") from error


def _json(document: "Mapping[str, Any]") -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _yaml(document: "Mapping[str, Any]") -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes everything out: CloudFormation knows no aliases."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - whatever it is
            return True

    text: str = yaml.dump(
        document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    return text


def _write(text: str, output: Path | None, *, is_forced: bool) -> None:
    """Print the text, or write it into a file that is not there yet."""
    from worker.errors import UsageError

    if output is None:
        if is_forced:
            raise UsageError("--force has no effect without --output: leave it out, or name the file")
        typer.echo(text, nl=False)
        return
    try:
        with output.open("w" if is_forced else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{output} exists already: name another file, or replace it with --force") from None
    except OSError as error:
        raise UsageError(f"{output} cannot be written ({error.strerror}): name another file") from None
