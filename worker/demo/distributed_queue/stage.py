"""The stage of the distributed queue: an AWS with its topology, a database, an SMS API, a Redis to count in, and workers."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.demo.audit import read_reasons
from worker.demo.distributed_queue.books import RECORDS, SMS, NoticeBooks
from worker.demo.distributed_queue.redis_server import open_redis
from worker.demo.distributed_queue.sms_server import SmsServer
from worker.demo.distributed_queue.workers import Workers
from worker.demo.recorded import RecordedTopic
from worker.fleet.process import sqs_source
from worker.handlers.notice_database import NoticeDatabase, Rows
from worker.handlers.notices import NOTICES_TOPIC
from worker.local import EmbeddedAws
from worker.publisher import Publisher
from worker.publisher.topic import SnsTopic
from worker.settings import FleetSettings, load
from worker.telemetry.metrics import QueueMetrics
from worker.topology import apply, wanted_by

__all__ = ["ALLOWANCE", "WORKERS", "Stage", "set_up"]

ALLOWANCE: Final = 5
"""Calls at once that the SMS API takes, which is what the fleet file's limit says."""
WORKERS: Final = 3
_PUBLISH_CONNECTIONS: Final = 8


@dataclass(slots=True)
class Stage:
    """What is there while it is set up."""

    settings: FleetSettings
    books: NoticeBooks
    sms: SmsServer
    publisher: Publisher
    workers: Workers
    clients: AwsClients
    database: NoticeDatabase
    rows_before: Rows
    """A database may have been used before."""

    async def look(self) -> None:
        """Enter what workers, API and SQS say at this moment."""
        books = self.books
        books.count(await self.workers.counts(books.accounts))
        self._ask_api()
        depth = await self._source(SMS).depth()
        books.most_in_flight = max(books.most_in_flight, depth.in_flight)

    async def close(self) -> list[str]:
        """Stop the workers and enter what everybody says in the end; return what is wrong with how the workers ended."""
        books = self.books
        faults = await self.workers.drain()
        self._ask_api()
        rows = await self.database.count()
        books.accounts[RECORDS].effects = rows.written - self.rows_before.written
        books.rows_again = (rows.written - rows.different) - (self.rows_before.written - self.rows_before.different)
        books.accounts[SMS].effects = len(books.sms)
        for name, account in books.accounts.items():
            account.depth = await self._source(name).depth()
            dead_letter = self.settings.queues[name].dead_letter
            if dead_letter != "none":
                await read_reasons(account, SqsSource(self.clients, dead_letter.queue))
        return faults

    def _ask_api(self) -> None:
        books, sms = self.books, self.sms
        books.sms, books.most_calls, books.calls_refused = sms.sent, sms.most_in_flight, sms.refused

    def _source(self, queue: str) -> SqsSource:
        return sqs_source(self.clients, self.settings.queues[queue], QueueMetrics(queue))


@asynccontextmanager
async def set_up(
    folder: Path, *, database: str, redis: str | None, latency_seconds: float, variables: Mapping[str, str]
) -> AsyncIterator[Stage]:
    """Yield the stage; without a Redis there is one worker, for then nobody could keep to a limit together.

    `variables` are settings of the fleet file that are to be others, as the environment says them.
    """
    with resources.as_file(resources.files(__package__).joinpath("fleet.yaml")) as fleet:
        async with (
            NoticeDatabase(database) as notices,  # it may be someone's server, and is what can fail
            open_redis(redis, folder) as store,
            EmbeddedAws() as aws,
            AwsClients(aws.access) as clients,
            SmsServer(allowance=ALLOWANCE, latency_seconds=latency_seconds) as sms,
        ):
            environment = {**_settings(store, folder), **variables}
            settings = load(fleet, environ=environment)
            await apply(wanted_by(settings), clients)
            books = NoticeBooks(settings, allowance=ALLOWANCE)
            topic = SnsTopic(NOTICES_TOPIC, aws.access, connections=_PUBLISH_CONNECTIONS)
            handlers = {"NOTICES_DATABASE": database, "SMS_API": sms.url}
            async with (
                Publisher(RecordedTopic(topic, books.publish)) as publisher,
                Workers(
                    WORKERS if store else 1, fleet, folder, {**aws.environment, **environment, **handlers}
                ) as workers,
            ):
                before = await notices.count()
                yield Stage(settings, books, sms, publisher, workers, clients, notices, before)


def _settings(store: str | None, folder: Path) -> dict[str, str]:
    """Return what differs from the fleet file in a demo: short polls, so that it ends at once, and what only exists here."""
    limit = "LONGSHORE_LIMITS__SMS_API__"
    counted = {f"{limit}STORE": store} if store else {f"{limit}SCOPE": "process", f"{limit}STORE": "null"}
    return {
        "LONGSHORE_SERVICE": f"notices-demo-{secrets.token_hex(4)}",  # counts its permits apart from other demos
        "LONGSHORE_SERVER__PORT": "0",
        "LONGSHORE_LOG__FORMAT": "json",
        "LONGSHORE_LOG__LEVEL": "info",
        "LONGSHORE_STATE_DIR": str(folder / "state"),
        "LONGSHORE_DEFAULTS__WAIT_TIME_SECONDS": "1",
        **counted,
    }
