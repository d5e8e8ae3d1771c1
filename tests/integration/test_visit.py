"""A visit to a fleet that runs elsewhere: its books come from the database and from SQS alone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from worker import Publisher
from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.demo.books import IN_TURN, Books
from worker.demo.stage import Stage
from worker.demo.tally import Tally
from worker.demo.visit import main, visiting
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.fleet.process import Process, aws_access
from worker.handlers.database import Database
from worker.handlers.events import ORDERS_TOPIC
from worker.handlers.order_service import OrderService, place_by_event
from worker.message import Attribute
from worker.settings import load
from worker.source import Copy

pytestmark = pytest.mark.integration

FLEET = Path(__file__).parents[2] / "worker/demo/fleet.yaml"


class World(NamedTuple):
    """Everything that a visit needs, and a fleet that does not run yet."""

    process: Process
    database: str
    orders_url: str


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The demo's stage, with an order service whose address is known."""
    database = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    for name in ("ORDERS_DATABASE", "ORDERS_SMTP"):
        monkeypatch.setenv(name, database)  # the stage sets them anew; with the test they end
    settings = load(FLEET, environ={"LONGSHORE_OUTBOX__DATABASE": database})
    async with Stage(settings, database, tmp_path, mail_seconds=0) as stage:
        for name, value in {**stage.aws.environment, "LONGSHORE_CONFIG": str(FLEET)}.items():
            monkeypatch.setenv(name, value)
        async with Publisher(ORDERS_TOPIC) as orders, OrderService(place_by_event(orders)) as service:
            yield World(stage.process, database, service.url)


async def test_the_books_of_a_fleet_that_works_balance(world: World) -> None:
    """A second visit does not count what the first has left behind."""
    fleet = asyncio.create_task(world.process.run())
    said: list[str] = []
    for events in (210, 10):  # the first with a card that is declined
        async with visiting(world.database, world.orders_url) as (visit, books):
            assert await visit.run(events, said.append) == []
        account = books.accounts["order-processing"]
        assert account.handled + account.dead_lettered == events
        assert books.accounts["payment-processing.fifo"].dead_lettered == (2 if events == 210 else 0)
        assert {("authorized",), ("authorized", "captured")} <= set(books.payments) <= IN_TURN
    assert said[-1].endswith("deliveries handled or dead-lettered")
    world.process.supervisor.drain()
    assert await fleet == 0


async def test_what_nobody_handles_is_told(world: World) -> None:
    async with visiting(world.database, world.orders_url) as (visit, _):
        faults = await visit.run(5, lambda _: None, patience_seconds=0.1)
    assert "order-processing: 5 published, but 0 handled and 0 dead-lettered" in faults
    assert "order-processing: 5 messages are still in the queue" in faults


async def test_a_message_that_was_dead_lettered_twice_is_one(world: World) -> None:
    """A worker was killed between the copy and the delete."""
    settings = load()
    books = Books(settings)
    books.accounts["fraud-check"].published = books.accounts["fraud-check"].poison["whatever"] = 1
    async with Database(world.database) as database, AwsClients(aws_access(settings)) as clients:
        source = SqsSource(clients, "fraud-check", dead_letter="fraud-check-dlq")

        async def die_twice(message_id: str) -> None:
            for _ in range(2):
                await source.dead_letter(
                    Copy("{}", {REASON_ATTRIBUTE: Attribute("String", json.dumps({"message_id": message_id}))})
                )

        tally = Tally(books, settings.queues, database, clients)
        await die_twice("another-day")
        await tally.begin()
        await die_twice("today")
        for _ in range(2):  # looking does not take them away
            await tally.look()
            assert books.faults() == []
            assert books.accounts["fraud-check"].dead_lettered == 1


def test_it_needs_nothing_that_the_image_has_not() -> None:
    """Neither the embedded AWS nor the demo's mail server is in there."""
    program = "import sys; sys.modules |= {'ministack': None, 'aiosmtpd': None}; import worker.demo.visit"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_an_order_service_it_cannot_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["visit"])
    monkeypatch.delenv("ORDERS_URL", raising=False)
    monkeypatch.setenv("ORDERS_DATABASE", "sqlite:///orders.sqlite")
    assert main() == 2
    assert "ORDERS_URL must be set" in capsys.readouterr().err


@pytest.mark.parametrize("events", ["0", "-1", "many", "100001"])
def test_a_number_of_events_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: str
) -> None:
    monkeypatch.setattr("sys.argv", ["visit", f"--events={events}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "must be a whole number from 1 to 100000" in capsys.readouterr().err
