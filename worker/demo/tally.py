"""The books of a fleet that runs elsewhere: filled from what its database and SQS say, whichever workers live or die."""

import asyncio
import json
from collections.abc import Mapping
from typing import NamedTuple

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.demo.books import EFFECTS, Books
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.fleet.process import sqs_source
from worker.handlers.database import Database
from worker.message import Received
from worker.settings import QueueSettings
from worker.source import MAX_BATCH, Depth, ReceiveRequest
from worker.telemetry.metrics import QueueMetrics

__all__ = ["Tally"]

LOOK_SECONDS = 20
"""How long the dead letters are hidden from others at most, while they are looked at."""


class Before(NamedTuple):
    """What other days have left behind in a queue's books."""

    effects: int
    letters: int
    dead: int
    """The messages that those dead letters are copies of."""


class Tally:
    """Counts effects as handled messages and what came to the dead-letter queues; `begin` notes what was there before.

    A worker that is killed after it has copied a message to the dead-letter queue, and before it has deleted it, leaves
    the copying to be done again: copies of one message are one dead letter.
    """

    def __init__(
        self, books: Books, queues: Mapping[str, QueueSettings], database: Database, clients: AwsClients
    ) -> None:
        self._books = books
        self._database = database
        self._sources = {name: sqs_source(clients, queue, QueueMetrics(name)) for name, queue in queues.items()}
        self._dead_letters = {
            name: SqsSource(clients, queue.dead_letter.queue)
            for name, queue in queues.items()
            if queue.dead_letter != "none" and not queue.is_fifo  # SQS drops the second copy itself
        }
        self._before: dict[str, Before] = {}

    async def begin(self) -> None:
        """Note the effects and dead letters of other days."""
        self._before = dict(zip(self._sources, await asyncio.gather(*map(self._so_far, self._sources)), strict=True))

    async def look(self) -> None:
        """Fill the books with what has happened since."""
        for name, account in self._books.accounts.items():
            before, depth = self._before[name], await self._sources[name].depth()
            account.handled = await self._effects(name) - before.effects
            account.dead_lettered = (depth.dead_letters or 0) - before.letters
            if name in self._dead_letters and account.handled + account.dead_lettered > account.published:
                account.dead_lettered = len(await self._dead(name)) - before.dead
            account.depth = Depth(depth.visible, depth.in_flight, depth.delayed, account.dead_lettered)

    async def close(self) -> None:
        """Read which steps the payments have taken, those of other days among them."""
        self._books.payments = await self._database.ledger.histories()

    async def _so_far(self, queue: str) -> Before:
        dead = await self._dead(queue)
        return Before(await self._effects(queue), (await self._sources[queue].depth()).dead_letters or 0, len(dead))

    async def _effects(self, queue: str) -> int:
        return sum([await self._database.count(table) for table in EFFECTS[queue]])

    async def _dead(self, queue: str) -> set[str]:
        """Return the ids of the messages that are in the dead-letter queue, which are looked at and put back."""
        source = self._dead_letters.get(queue)
        if source is None:
            return set()
        letters: list[Received] = []
        while found := await source.receive(ReceiveRequest(MAX_BATCH, 1, LOOK_SECONDS)):
            letters += found
        for start in range(0, len(letters), MAX_BATCH):
            await source.extend([(letter.receipt, 0) for letter in letters[start : start + MAX_BATCH]])
        return {_original(letter) for letter in letters}


def _original(letter: Received) -> str:
    """Return the id of the message that a dead letter is a copy of; SQS itself moves messages with their ids."""
    reason = letter.attributes.get(REASON_ATTRIBUTE)
    return str(json.loads(reason.value)["message_id"]) if reason else letter.id
