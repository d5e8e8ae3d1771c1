"""The six queues of `config/fleet.yaml` in a worker process: whatever is published, the books are the same in the end."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import COMMAND, clean_environment
from support.localstack import LocalStack
from support.mailbox import Mailbox
from support.shop import Shop, Worker

from worker import Outgoing, Publisher
from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.handlers.database import Database
from worker.handlers.events import ORDERS_TOPIC, PAYMENT_EVENTS, PAYMENTS_TOPIC, Order, Payment
from worker.local import EmbeddedAws
from worker.settings import Address, load
from worker.topology.apply import apply
from worker.topology.wanted import wanted_by

pytestmark = pytest.mark.integration
FLEET = Path(__file__).parents[2] / "config" / "fleet.yaml"
ORDERS = 20
SHIPPED, CANCELLED = (0, 2, 4), (1, 3, 5)
STOCK = 1_000
KILLS = 4
BOOKS = {
    "orders": ORDERS + 3,  # an unknown product, a mail that is refused and a card that is declined are orders still
    "order_changes": 16,
    "reservations": ORDERS + 2,
    "mails": ORDERS + 2 + 7,  # and what was cancelled or shipped
    "analytics": ORDERS + 3 + 16 + 1,  # and the change to an order that never was
    "fraud_checks": 10,
    "payment_steps": ORDERS + 2 + 3 + 3,  # held, taken, given back
}
PAYMENTS = {
    ("authorized",): ORDERS + 2 - 6,
    ("authorized", "captured"): 3,
    ("authorized", "refunded"): 3,
}
RESERVED = {"tea": 22, "coffee": 23}
DEAD_LETTERS = {
    "order-processing": 3,  # no order, a change to an order that never was, and an event type that nobody knows
    "inventory-update": 2,  # no order, and the unknown product
    "email-notification": 2,  # no order, and the refused recipient
    "analytics-tracking": 1,  # no order
    "fraud-check": 0,  # what is no order has no amount either
    "payment-processing.fifo": 4,  # a declined card and what follows it, a step out of turn, and what is no payment
}


def an_order(number: int, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "order_id": f"order-{number:06}",
        "user_id": f"user-{number % 7}",
        "email": f"user-{number % 7}@shop.example",
        "product": ("tea", "coffee")[number % 2],
        "quantity": 1 + number % 3,
        "amount": Decimal("299.99") if number % 2 else Decimal(300),
    }
    return Order(**{**fields, **changes})


def an_event(event_type: str, order: Order) -> Outgoing:
    return Outgoing(event_type, order, {"amount": order.amount})


def a_day() -> Iterator[Outgoing]:
    """Changes that overtake their orders, orders that come twice, and poison."""
    for number in SHIPPED:
        yield from (an_event(f"order.{change}", an_order(number)) for change in ("updated", "shipped", "delivered"))
    for number in CANCELLED:
        yield from (an_event(f"order.{change}", an_order(number)) for change in ("updated", "cancelled"))
    for number in range(ORDERS):
        yield an_event("order.created", an_order(number))
    for number in range(0, ORDERS, 2):
        yield an_event("order.created", an_order(number))
    yield an_event("order.created", an_order(100, product="gold", amount=Decimal(1)))
    yield an_event("order.created", an_order(101, email="nobody@shop.example", amount=Decimal(1)))
    yield an_event("order.updated", an_order(102))
    for event_type in ("order.created", "order.shipped"):
        yield an_event(event_type, an_order(200, user_id="poor", amount=Decimal(1)))
    yield an_event("order.archived", an_order(0))
    yield Outgoing("order.created", {"order_id": "poison"})
    for number in range(0, ORDERS, 2):
        yield an_event("order.created", an_order(number))


def a_step(event_type: str, number: int) -> Outgoing:
    payment = Payment.of(an_order(number))
    return Outgoing(event_type, payment, None, payment.order_id, f"{payment.order_id}:{event_type}:again")


def steps_that_nobody_stored() -> Iterator[Outgoing]:
    """Requests that come a second time, before or after the outbox sends them, and poison."""
    requested, claimed, _ = PAYMENT_EVENTS.values()
    for number in range(0, ORDERS, 3):
        yield a_step(requested, number)
    yield a_step(claimed, 201)
    yield Outgoing(requested, {"order_id": "poison"}, None, "poison", "poison")


@dataclass
class Fleet:
    """A fleet file with names of its own, and the worker on it."""

    path: Path
    names: dict[str, str]
    environment: dict[str, str]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Run `longshore run`; at the end it drains, and its exit status is 0."""
        worker = await self.start()
        try:
            yield worker
            assert await worker.terminate() == 0, worker.output
        finally:
            if worker.process.returncode is None:
                await worker.kill()

    async def start(self, log: str = "worker.log") -> Worker:
        """Start `longshore run`, whose output goes to a file of the name."""
        path = self.path.with_name(log)
        with path.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(*COMMAND, "run", "--config", str(self.path)),
                cwd=self.path.parent,
                env=clean_environment(self.path.parent, self.environment),
                stdout=output,
                stderr=output,
            )
        return Worker(process, path)


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox() as mailbox:
        mailbox.refusals["nobody@shop.example"] = "550 no such user"
        yield mailbox


@pytest.fixture
async def fleet(
    tmp_path: Path,
    aws: EmbeddedAws | LocalStack,
    unique_name: Callable[[str], str],
    orders_url: str,
    mailbox: Mailbox,
) -> Fleet:
    """The fleet file as it is, but for names, waits and the port."""
    text = FLEET.read_text()
    names = {name: unique_name(name) for name in (ORDERS_TOPIC, PAYMENTS_TOPIC, *yaml.safe_load(text)["queues"])}
    for name, own in names.items():
        bare, own_bare = name.removesuffix(".fifo"), own.removesuffix(".fifo")  # the dead-letter queue's name begins so
        text = re.sub(rf"\b{bare}\b", own_bare, text)
    settings = yaml.safe_load(text)
    settings["server"] = {"port": 0}
    settings["defaults"] |= {"wait_time_seconds": 1, "retry": {"base_seconds": 1, "max_seconds": 2}}
    for queue in settings["queues"].values():
        queue.pop("retry", None)
    settings["queues"][names["order-processing"]]["attempts"] = 8  # a change may overtake its order by seconds
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(settings))
    environment = {
        **aws.environment,
        "ORDERS_DATABASE": orders_url,
        "LONGSHORE_OUTBOX__DATABASE": orders_url,
        "ORDERS_PAYMENTS_TOPIC": names[PAYMENTS_TOPIC],
        "ORDERS_SMTP": mailbox.url,
    }
    async with AwsClients(aws.access) as clients:
        await apply(wanted_by(load(path, environ={})), clients)
    return Fleet(path, names, environment)


async def dead_letters(clients: AwsClients, names: dict[str, str]) -> dict[str, int]:
    queues = {name: Address.of_queue(names[name]).dead_letter_name for name in DEAD_LETTERS}
    return {name: (await SqsSource(clients, queue).depth()).visible for name, queue in queues.items()}


async def books(database: Database) -> dict[str, int]:
    return {table: await database.count(table) for table in BOOKS}


async def test_each_effect_of_each_event_is_there_once(
    fleet: Fleet, orders_url: str, mailbox: Mailbox, aws: EmbeddedAws | LocalStack
) -> None:
    """At first the mail server is down, coffee is counted and a bank is busy; events come twice, or poisoned, or too early.

    What becomes of an order reaches its payment by the outbox, so the steps of a payment never come too early.
    """
    await mailbox.__aexit__(None, None, None)
    async with Database(orders_url) as database, AwsClients(aws.access) as clients:

        async def is_done() -> bool:
            return (await books(database), await dead_letters(clients, fleet.names)) == (BOOKS, DEAD_LETTERS)

        async with fleet.running() as worker:
            await Shop.until(lambda: '"started"' in worker.output)
            await database.stock_up({"tea": STOCK, "coffee": STOCK}, counting="coffee", counted_until=time.time() + 10)
            await database.ledger.know_cards(declined=["poor"], busy=["user-1"], busy_until=time.time() + 10)
            async with (
                Publisher(fleet.names[ORDERS_TOPIC], aws=aws.access) as orders,
                Publisher(fleet.names[PAYMENTS_TOPIC], aws=aws.access) as payments,
            ):
                await orders.publish_many(a_day())
                await payments.publish_many(steps_that_nobody_stored())
            await Shop.until(lambda: "the mail server cannot be reached" in worker.output)
            async with mailbox:
                with suppress(TimeoutError):  # what is missing is told below
                    await Shop.until(is_done, seconds=45)
        assert (await books(database), await dead_letters(clients, fleet.names)) == (BOOKS, DEAD_LETTERS)
        for product, reserved in RESERVED.items():
            assert await database.total_reserved(product) == reserved
            assert await database.in_stock(product) == STOCK - reserved
        assert await database.ledger.histories() == PAYMENTS
    assert len(set(mailbox.ids)) == BOOKS["mails"]
    assert "the product is being counted" in worker.output
    assert "the bank is busy" in worker.output
    assert "shop.example" not in worker.output  # no payload is logged
    assert "p%40ss" not in worker.output  # nor a password


async def test_an_order_that_is_written_down_is_paid_once_whoever_dies(
    fleet: Fleet, orders_url: str, aws: EmbeddedAws | LocalStack
) -> None:
    """Workers are killed while they write orders down, while a relay sends their steps, and while the ledger takes them."""
    chance = random.Random(7)
    many = [an_order(number, amount=Decimal(1)) for number in range(120)]
    fleet.environment["LONGSHORE_DEFAULTS__VISIBILITY_TIMEOUT_SECONDS"] = (
        "5"  # what the dead had in hand comes back soon
    )
    async with Database(orders_url) as database:

        async def are_paid() -> bool:
            return await database.ledger.histories() == {("authorized", "captured"): len(many)}

        await database.stock_up({"tea": STOCK, "coffee": STOCK})
        async with Publisher(fleet.names[ORDERS_TOPIC], aws=aws.access) as orders:
            await orders.publish_many(an_event("order.created", order) for order in many)
            await orders.publish_many(an_event("order.shipped", order) for order in many)
        for number in range(KILLS):
            worker = await fleet.start(f"killed-{number}.log")
            await Shop.until(lambda worker=worker: '"started"' in worker.output)
            await asyncio.sleep(chance.uniform(0.2, 1.2))
            await worker.kill()
        assert not await are_paid()  # else nobody died in the middle of it
        async with fleet.running():
            with suppress(TimeoutError):  # what is missing is told below
                await Shop.until(are_paid, seconds=90)
        assert await database.ledger.histories() == {("authorized", "captured"): len(many)}
        assert await database.count("orders") == len(many)
