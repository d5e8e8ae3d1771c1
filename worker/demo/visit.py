"""A day of the shop with a fleet that runs elsewhere, and the check of its books.

`python -m worker.demo.visit --events 400` places orders with the order service at `ORDERS_URL` and publishes what
becomes of them, poison among it; waits until the queues of the fleet file are empty; and compares, queue by queue, what
was published with the effects in `ORDERS_DATABASE` and with the dead letters. Nobody else may publish meanwhile.
Exit 0: books balance; 1: they do not; 2: it cannot begin.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import ClientSession

from worker.aws.session import AwsClients
from worker.demo.books import Books
from worker.demo.customers import Customers
from worker.demo.day import NO_CREDIT, STOCK, Change, Day, News, Purchase
from worker.demo.recorded import RecordedTopic
from worker.demo.tally import Tally
from worker.errors import LongshoreError, UsageError
from worker.fleet.process import aws_access
from worker.handlers.database import Database
from worker.handlers.events import ORDERS_TOPIC, Order
from worker.handlers.order_service import announce
from worker.message import Attribute
from worker.publisher import Publisher
from worker.publisher.topic import SnsTopic
from worker.settings import load

__all__ = ["Visit", "main", "visiting"]

MOST_EVENTS = 100_000
MOST_AT_ONCE = 16
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 180.0
"""Longer than the messages of a killed worker stay hidden, and then wait for another try."""


class Visit:
    """Lets a day happen and watches the books until they are done; `say` is told how far they are."""

    def __init__(self, books: Books, tally: Tally, orders: Publisher, customers: Customers) -> None:
        self._books = books
        self._tally = tally
        self._orders = orders
        self._customers = customers
        self._day = Day()
        self._room = asyncio.Semaphore(MOST_AT_ONCE)

    async def run(
        self, events: int, say: Callable[[str], None], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> list[str]:
        """Return what does not balance when everything has ended, or after so many seconds, one sentence each."""
        await self._tally.begin()
        ends_at, said = None, ""
        publishing = asyncio.create_task(self._publish(events), name="publish")
        try:
            while ends_at is None or time.monotonic() < ends_at:
                await asyncio.sleep(LOOK_SECONDS)
                await self._tally.look()
                if said != (said := self._progress()):
                    say(said)
                if not publishing.done():
                    continue
                await publishing  # raises what it failed with
                ends_at = ends_at or time.monotonic() + patience_seconds
                if not self._books.faults():
                    break
        finally:
            publishing.cancel()
        self._books.orders_failed = self._customers.placements.failed
        await self._tally.close()
        return self._books.faults()

    def _progress(self) -> str:
        return f"{self._books.ended:,} of {self._books.published:,} deliveries handled or dead-lettered"

    async def _publish(self, events: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(1, events + 1):
                await self._room.acquire()
                group.create_task(self._happen(number)).add_done_callback(lambda _: self._room.release())

    async def _happen(self, number: int) -> None:
        match self._day.next(number):
            case Purchase() as purchase:
                if (order_id := await self._customers.place(purchase)) is not None:
                    self._day.placed(purchase, order_id)
                    self._note(Order.model_validate({**purchase.body, "order_id": order_id}))
            case Change(event_type, order):
                await announce(self._orders, event_type, order)
            case News(event_type, payload, attributes):
                await self._orders.publish(event_type, payload, attributes=attributes)

    def _note(self, order: Order) -> None:
        """Enter what the order service has published."""
        created, amount = Attribute("String", "order.created"), Attribute("Number", str(order.amount))
        self._books.publish(ORDERS_TOPIC, order.model_dump_json(), {"event_type": created, "amount": amount})


@asynccontextmanager
async def visiting(database_url: str, orders_url: str) -> AsyncIterator[tuple[Visit, Books]]:
    """Open what a visit needs, with full shelves; raise `UsageError` for an address or a fleet file that is none."""
    settings = load()
    access, books = aws_access(settings), Books(settings)
    topic = RecordedTopic(SnsTopic(ORDERS_TOPIC, access, connections=MOST_AT_ONCE), books.publish)
    async with (
        Database(database_url) as database,
        AwsClients(access) as clients,
        Publisher(topic) as orders,
        ClientSession() as session,
    ):
        await database.stock_up(STOCK)
        await database.ledger.know_cards(declined=[NO_CREDIT])
        tally = Tally(books, settings.queues, database, clients)
        yield Visit(books, tally, orders, Customers(session, orders_url.rstrip("/"))), books


async def _visit(events: int) -> int:
    names = ("ORDERS_DATABASE", "ORDERS_URL")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be set: where the orders' database and the order service are")
    async with visiting(*(os.environ[name] for name in names)) as (visit, books):
        faults = await visit.run(events, _say)
    for name, account in books.accounts.items():
        _say(f"{name:24}{account.published:>7,} published{account.handled:>7,} handled{account.dead_lettered:>5,} dead-lettered")  # fmt: skip
    for fault in faults:
        _say(f"books do not balance: {fault}")
    if not faults:
        _say("books balance: every event was handled or dead-lettered, in every queue")
    return 1 if faults else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _events(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_EVENTS):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {MOST_EVENTS}")
    return int(text)


def main() -> int:
    """Visit, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.demo.visit", description="A day of the shop, and its books."
    )
    parser.add_argument("--events", type=_events, default=400, metavar="N", help=f"1 to {MOST_EVENTS}, 400 by default")
    events: int = parser.parse_args().events
    try:
        return asyncio.run(_visit(events))
    except LongshoreError as error:
        sys.stderr.write(f"visit: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
