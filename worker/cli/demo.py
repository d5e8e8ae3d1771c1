"""`longshore demo`: which fleet is shown, and which options it takes."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import whole_number
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.demo.demo import Script

__all__ = ["demo"]

MAX_EVENTS = 100_000
FLEETS = ("orders", "distributed-queue")


def demo(
    fleet: Annotated[
        str, typer.Option("--fleet", metavar="NAME", help=f"The fleet to watch: {' or '.join(FLEETS)}.")
    ] = FLEETS[0],
    events: Annotated[
        int | None,
        typer.Option(
            "--events",
            metavar="N",
            parser=whole_number(1, MAX_EVENTS),
            help=f"Events to publish, 1 to {MAX_EVENTS}; else 2000, or 400 for distributed-queue.",
        ),
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Publish and consume until Ctrl-C (orders).")] = False,  # noqa: FBT002
    database: Annotated[
        str | None,
        typer.Option("--database", metavar="URL", help="The fleet's database, such as postgresql://user@host/orders."),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            metavar="URL",
            help="The Redis that workers count in (distributed-queue); else a redis-server is started.",
        ),
    ] = None,
) -> None:
    """Watch a fleet work on an embedded AWS, and check its books.

    orders is a shop's day: six queues, poison, a mail server that is down for a while. distributed-queue is a burst of
    notices: three workers, and an SMS API that takes five calls at once.
    """
    if fleet not in FLEETS:
        nearest = get_close_matches(fleet, FLEETS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"allowed are: {', '.join(FLEETS)}"
        raise UsageError(f"--fleet {fleet!r} is no fleet of the demo; {hint}")
    if forever and fleet != "orders":
        raise UsageError(f"--forever is for the fleet orders, and {fleet} is one burst that ends: leave it out")
    if redis is not None and fleet != "distributed-queue":
        raise UsageError(f"--redis is for the fleet distributed-queue, and {fleet} counts nothing there: leave it out")

    from worker.cli.run import run_to_end
    from worker.demo import Demo, Show

    raise typer.Exit(run_to_end(Demo(Show(), _script(fleet, events, database, is_forever=forever, redis=redis)).run()))


def _script(fleet: str, events: int | None, database: str | None, *, is_forever: bool, redis: str | None) -> "Script":
    from worker.demo import Burst, Script

    given: dict[str, Any] = {"database": database} if events is None else {"database": database, "events": events}
    return Script(is_forever=is_forever, **given) if fleet == "orders" else Burst(redis=redis, **given)
