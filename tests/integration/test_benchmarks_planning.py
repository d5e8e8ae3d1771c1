"""The benchmark of planning counts the calls that a plan makes."""

from pathlib import Path

import pytest

from benchmarks.planning import counted_plan, fleet_file
from worker.aws.session import AwsClients
from worker.local import EmbeddedAws
from worker.settings import load
from worker.topology import apply, wanted_by

pytestmark = pytest.mark.integration


async def test_a_queue_costs_seven_calls_and_the_rest_is_shared(tmp_path: Path) -> None:
    """Three reads of the queue, three of its dead letters, one of its subscription; a plan with work to do is no figure."""
    path = tmp_path / "fleet.yaml"
    totals = []
    async with EmbeddedAws() as aws:
        for queues in (1, 3):
            path.write_text(fleet_file(queues))
            settings = load(path, environ={})
            with pytest.raises(SystemExit, match="the plan is not empty"):
                await counted_plan(settings, aws.access)
            async with AwsClients(aws.access) as clients:
                await apply(wanted_by(settings), clients)
            totals.append((await counted_plan(settings, aws.access)).total())
    assert totals == [14, 28]
