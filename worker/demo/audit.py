"""The demo's auditor: fills the books from what the fleet has counted, what SQS says and what the database holds."""

import json

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.demo.books import Account, Books
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.fleet.process import Process, sqs_source
from worker.handlers.database import Database
from worker.source import MAX_BATCH, ReceiveRequest
from worker.telemetry.cells import Spread
from worker.telemetry.metrics import QueueMetrics

__all__ = ["Audit"]

EFFECTS = {
    "order-processing": ("orders", "order_changes"),
    "inventory-update": ("reservations",),
    "email-notification": ("mails",),
    "analytics-tracking": ("analytics",),
    "fraud-check": ("fraud_checks",),
}
"""The tables that the handlers of each queue write to."""
OUTAGE, FOR_GOOD = "the mail server", "refused the recipient"
"""What the reasons of mails say that failed because of the mail server, and of those that never could be sent."""


class Audit:
    """Keeps the books of one process; `begin` before it starts, for a database may have been used before."""

    def __init__(self, books: Books, database: Database) -> None:
        self._books = books
        self._database = database
        self._before: dict[str, int] = {}
        self._lags: dict[str, Spread] = {}

    async def begin(self) -> None:
        """Note what the database already holds."""
        self._before = {name: await self._effects(name) for name in EFFECTS}

    def look(self, process: Process, *, is_outage: bool) -> None:
        """Read what the fleet has counted so far; what came since the last look was or was not in the outage."""
        for name, snapshot in process.metrics.snapshot().items():
            account, verbs = self._books.accounts[name], process.metrics.queue(name)
            account.received = snapshot["received"]
            account.handled = snapshot["settled"]["ack"]
            account.retried = snapshot["settled"]["retry"]
            account.dead_lettered = snapshot["settled"]["dead_letter"]
            lag = verbs.lag_so_far()
            (account.lag_in_outage if is_outage else account.lag).add(lag.since(self._lags.get(name)))
            self._lags[name] = lag

    async def close(self, process: Process, clients: AwsClients, *, mails_taken: int) -> None:
        """Ask SQS and the database what they say of what the fleet has counted."""
        self.look(process, is_outage=False)
        for name, account in self._books.accounts.items():
            account.effects = await self._effects(name) - self._before[name]
            queue = process.settings.queues[name]
            account.depth = await sqs_source(clients, queue, QueueMetrics(name)).depth()
            if queue.dead_letter != "none":
                await _read_reasons(account, SqsSource(clients, queue.dead_letter.queue))
        mails = self._books.accounts["email-notification"]
        self._books.mails_taken, self._books.mails_noted = mails_taken, mails.effects or 0
        self._books.mails_lost_to_outage = sum(
            count for reason, count in mails.reasons.items() if OUTAGE in reason and FOR_GOOD not in reason
        )

    async def _effects(self, queue: str) -> int:
        return sum([await self._database.count(table) for table in EFFECTS[queue]])


async def _read_reasons(account: Account, dead_letters: SqsSource) -> None:
    while letters := await dead_letters.receive(ReceiveRequest(MAX_BATCH, 0, visibility_timeout_seconds=60)):
        for letter in letters:
            account.reasons[json.loads(letter.attributes[REASON_ATTRIBUTE].value)["reason"]] += 1
