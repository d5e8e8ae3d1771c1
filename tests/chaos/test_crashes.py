"""A message whose handler kills its process: only that one ends in the dead-letter queue (E4)."""

import json
from pathlib import Path

import pytest
from support.shop import Shop

from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.source import ReceiveRequest

pytestmark = pytest.mark.integration
RESTARTS = 8


@pytest.mark.parametrize("router", ["router", "batches"])
async def test_a_handler_that_kills_its_process_takes_no_neighbour_with_it(
    shop: Shop, tmp_path: Path, router: str
) -> None:
    """The worker is started again each time, as a pod is; every neighbour is handled, and the killer is known at last.

    Also the neighbours that were in one batch with it: while they are suspected, they are handled one by one.
    """
    shop.configure(
        router=router,
        process=f"state_dir: {json.dumps(str(tmp_path / 'state'))}",
        concurrency=10,
        wait_time_seconds=1,
        visibility_timeout_seconds=3,
        attempts=3,
    )
    await shop.send(1, n=99, seconds=0.5, kills=True)
    await shop.send(9, seconds=2)
    workers = [await shop.start()]

    async def is_over() -> bool:
        if workers[-1].process.returncode is not None:
            assert len(workers) < RESTARTS, "it is never recognised"
            workers.append(await shop.start())
        return await shop.is_drained()

    await shop.until(is_over)
    assert set(shop.handled) == set(range(9))
    assert await workers[-1].terminate() == 0
    assert len(workers) >= 3
    (letter,) = await shop.dead_letters.receive(ReceiveRequest(10, 1, visibility_timeout_seconds=30))
    assert json.loads(letter.body)["n"] == 99
    assert json.loads(str(letter.attributes[REASON_ATTRIBUTE].value))["reason"] == "suspected crasher"
    assert list((tmp_path / "state").iterdir()) == []
