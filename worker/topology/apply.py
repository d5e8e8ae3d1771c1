"""`apply`: carries out a plan and nothing else; a second time there is nothing to do."""

import asyncio
from collections.abc import Callable

from worker.aws.session import AwsClients
from worker.errors import LongshoreError, UsageError
from worker.topology.calls import Calls
from worker.topology.change import Action, Change, Plan
from worker.topology.desired import Topology
from worker.topology.plan import plan

__all__ = ["apply", "carry_out"]


async def apply(
    topology: Topology, clients: AwsClients, *, done: Callable[[Change], None] = lambda _: None
) -> list[Change]:
    """Make what is missing, correct what differs, delete nothing; return what was done, in the order of the plan.

    `done` is told of each change as it is done. Raises `UsageError` before anything is changed for what `plan`
    refuses, and for what only a person can do; later when AWS refuses, and `LongshoreError` when it does not answer:
    what was done by then stays, and the same command goes on from there.
    """
    return await carry_out(await plan(topology, clients), clients, done=done)


async def carry_out(
    wanted: Plan, clients: AwsClients, *, done: Callable[[Change], None] = lambda _: None
) -> list[Change]:
    """Do what the plan says, wave by wave; raises as `apply` does."""
    for change in wanted.of(Action.REPLACE):
        raise UsageError(f"nothing was changed: {change.note}")
    async with Calls(clients) as calls:
        for wave in wanted.waves:
            outcomes = await asyncio.gather(*(_do(change, calls, done) for change in wave), return_exceptions=True)
            for outcome in outcomes:  # all have ended: no call is given up half-way
                if isinstance(outcome, LongshoreError):
                    raise type(outcome)(
                        f"{outcome}; what was done before stays, and the same command goes on from there"
                    ) from outcome
                if isinstance(outcome, BaseException):
                    raise outcome
    return wanted.of(Action.CREATE, Action.CHANGE)


async def _do(change: Change, calls: Calls, done: Callable[[Change], None]) -> None:
    for call in change.calls:
        await calls.send(call)
    if change.calls:
        done(change)
