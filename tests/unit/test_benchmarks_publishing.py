"""The benchmark of publishing counts what was really sent: its stub takes what SNS takes, its figures are per event."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from benchmarks.planning import fleet_file
from benchmarks.publishing import EVENT, TOPIC, Published, Sender, SnsStub, _access
from worker import Publisher
from worker.settings import load
from worker.topology import wanted_by


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
async def endpoint(published: Published) -> AsyncIterator[str]:
    """The stub on a socket of its own."""
    server = await asyncio.get_running_loop().create_server(lambda: SnsStub(published), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.real_time  # sockets
async def test_the_stub_takes_every_event_of_every_batch_once(endpoint: str, published: Published) -> None:
    """Twenty-five in batches of ten, then one alone; asked without a body, it says how many there were."""
    async with Publisher(TOPIC, aws=_access(endpoint)) as publisher:
        await publisher.publish_many(("order.created", EVENT) for _ in range(25))
        assert published.events == 25
        await publisher.publish("order.created", EVENT)
    async with aiohttp.ClientSession() as session, session.get(endpoint) as answer:
        assert await answer.text() == "26"
    assert published.events == 26


def test_cost_is_cpu_per_event_and_rate_is_events_per_second() -> None:
    sender = Sender("somebody", "many")
    sender.add(6_000, cpu_seconds=0.6, seconds=2, rss_bytes=80_000_000)
    sender.add(3_000, cpu_seconds=0.6, seconds=2, rss_bytes=90_000_000)
    assert sender.microseconds.values == pytest.approx([100, 200])
    assert sender.rate.values == [3_000, 1_500]
    assert sender.rss_megabytes.median == 85


def test_a_round_without_events_is_no_figure() -> None:
    with pytest.raises(SystemExit, match="somebody published nothing"):
        Sender("somebody", "many").add(0, cpu_seconds=1, seconds=2, rss_bytes=1)


def test_the_planned_fleet_has_all_that_a_fleet_may_have(tmp_path: Path) -> None:
    """Dead letters, tags, filtered subscriptions and alarms, for as many queues as asked."""
    path = tmp_path / "fleet.yaml"
    path.write_text(fleet_file(3))
    wanted = wanted_by(load(path, environ={}))
    assert (len(wanted.topics), len(wanted.queues), len(wanted.subscriptions), len(wanted.alarms)) == (2, 3, 3, 9)
    assert all(queue.dead_letter and queue.tags for queue in wanted.queues)
    assert all(subscription.filter_policy for subscription in wanted.subscriptions)
