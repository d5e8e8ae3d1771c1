"""The demo's auditor: fills the books from what the fleet has counted, what SQS says and what the database holds."""

import json
from collections import Counter

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.demo.books import EFFECTS, Account, Books
from worker.demo.day import STOCK
from worker.demo.shop import Shop
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.fleet.process import Process, sqs_source
from worker.handlers.database import Database
from worker.source import MAX_BATCH, ReceiveRequest
from worker.telemetry.cells import Spread
from worker.telemetry.metrics import QueueMetrics

__all__ = ["Audit", "read_reasons"]


class Audit:
    """Keeps the books of one process; `begin` before it starts, for a database may have been used before."""

    def __init__(self, books: Books, database: Database) -> None:
        self._books = books
        self._database = database
        self._before: dict[str, int] = {}
        self._stock: dict[str, int] = {}
        self._payments: Counter[tuple[str, ...]] = Counter()
        self._lags: dict[str, Spread] = {}

    async def begin(self) -> None:
        """Note what the database already holds."""
        self._before = {name: await self._effects(name) for name in EFFECTS}
        self._stock = {product: await self._stock_and_reserved(product) for product in STOCK}
        self._payments = await self._database.ledger.histories()

    def look(self, process: Process, *, is_outage: bool) -> None:
        """Read what the fleet has counted so far; what came since the last look was or was not in the outage."""
        for name, snapshot in process.metrics.snapshot().items():
            account, verbs = self._books.accounts[name], process.metrics.queue(name)
            account.received = snapshot["received"]
            account.handled = snapshot["settled"]["ack"]
            account.retried = snapshot["settled"]["retry"] + snapshot["retried_in_place"]
            account.dead_lettered = snapshot["settled"]["dead_letter"]
            lag = verbs.lag_so_far()
            (account.lag_in_outage if is_outage else account.lag).add(lag.since(self._lags.get(name)))
            self._lags[name] = lag

    async def close(self, process: Process, clients: AwsClients, shop: Shop) -> None:
        """Ask SQS and the database what they say of what the fleet has counted."""
        self.look(process, is_outage=False)
        for name, account in self._books.accounts.items():
            account.effects = await self._effects(name) - self._before[name]
            queue = process.settings.queues[name]
            account.depth = await sqs_source(clients, queue, QueueMetrics(name)).depth()
            if queue.dead_letter != "none":
                await read_reasons(account, SqsSource(clients, queue.dead_letter.queue))
        mails, books = shop.mails_of_queues, self._books
        books.mails_taken, books.mails_noted = len(mails), books.accounts["email-notification"].effects or 0
        books.mails_sent_again = sum(times > 1 for times in mails.values())
        books.orders_placed = len(shop.by_event.placements.seconds)
        books.orders_failed = shop.by_event.placements.failed
        books.stock_faults = [
            f"stock of {product}: it was {before}, but with what is reserved it is {now}"
            for product, before in self._stock.items()
            if (now := await self._stock_and_reserved(product)) != before
        ]
        books.payments = await self._database.ledger.histories() - self._payments

    async def _stock_and_reserved(self, product: str) -> int:
        return await self._database.in_stock(product) + await self._database.total_reserved(product)

    async def _effects(self, queue: str) -> int:
        return sum([await self._database.count(table) for table in EFFECTS[queue]])


async def read_reasons(account: Account, dead_letters: SqsSource) -> None:
    """Note the reasons of all dead letters, and delete those: of a FIFO group the next ones come only then."""
    while letters := await dead_letters.receive(ReceiveRequest(MAX_BATCH, 0, visibility_timeout_seconds=60)):
        for letter in letters:
            account.reasons[json.loads(letter.attributes[REASON_ATTRIBUTE].value)["reason"]] += 1
        await dead_letters.delete([letter.receipt for letter in letters])
