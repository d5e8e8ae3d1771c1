"""What planning costs: `longshore topology plan` of fifty queues that are as they should be, on the embedded AWS."""

import asyncio
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.figures import Figures, goal
from benchmarks.programs import LONGSHORE, environment
from worker.aws.channel import Channel
from worker.aws.session import AwsAccess, AwsClients
from worker.local import EmbeddedAws
from worker.settings import FleetSettings, load
from worker.topology import apply, plan, wanted_by

__all__ = ["SECONDS_GOAL", "counted_plan", "fleet_file", "run"]

SECONDS_GOAL = 3.0
QUEUES = 50


def run(rounds: int) -> bool:
    """Measure, print, and return whether the goal is met."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.yaml"
        path.write_text(fleet_file(QUEUES))
        seconds, calls, resources = asyncio.run(_measure(path, rounds))
    print(
        f"planning: {QUEUES} queues with dead letters, tags, a filtered subscription and three alarms each; {rounds} rounds"
    )
    print(f"{'':26}{'min':>9}{'median':>9}{'max':>9}")
    print(f"  {'topology plan, wall s':24}{seconds.spread()}")
    print(
        f"  resources {resources}, calls to AWS {calls.total()}: {', '.join(f'{n} {name}' for name, n in calls.items())}"
    )
    print(f"  {goal(seconds.median, SECONDS_GOAL, ' s')}")
    return seconds.median <= SECONDS_GOAL


def fleet_file(queues: int) -> str:
    """Return a fleet file with so many queues on one topic."""
    head = (
        "service: benchmark\ntopics: {events: {tags: {team: shop}}, pages: {}}\ndefaults: {alarms: [pages]}\nqueues:\n"
    )
    return head + "".join(
        f"  queue-{number}:\n"
        "    handlers: benchmarks.handlers:router\n"
        "    tags: {team: shop}\n"
        f"    subscribe: [{{topic: events, filter: {{event_type: [event.{number}]}}}}]\n"
        for number in range(queues)
    )


async def counted_plan(settings: FleetSettings, access: AwsAccess) -> Counter[str]:
    """Plan what is in order already and return how often each operation was called."""
    calls: Counter[str] = Counter()
    call = Channel.call

    async def counted(self: Channel, operation: str, **parameters: Any) -> Any:
        calls[operation] += 1
        return await call(self, operation, **parameters)

    with patch.object(Channel, "call", counted):
        async with AwsClients(access) as clients:
            found = await plan(wanted_by(settings), clients)
    if not found.is_empty:
        raise SystemExit(f"the plan is not empty: {found.changes[0]}")
    return calls


async def _measure(path: Path, rounds: int) -> tuple[Figures, Counter[str], int]:
    settings, seconds = load(path, environ={}), Figures()
    async with EmbeddedAws() as aws:
        async with AwsClients(aws.access) as clients:
            resources = len(await apply(wanted_by(settings), clients))
        calls = await counted_plan(settings, aws.access)
        command = (*LONGSHORE, "topology", "plan", "--check", "--config", str(path))
        whereabouts = environment() | dict(aws.environment)
        for _ in range(rounds):
            began = time.monotonic()
            await asyncio.to_thread(
                subprocess.run, command, env=whereabouts, check=True, capture_output=True, timeout=60
            )
            seconds.values.append(time.monotonic() - began)
    return seconds, calls, resources
