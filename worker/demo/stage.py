"""The demo's stage: an AWS with the fleet's topology, a mail server, a database, two order services and the fleet's process."""

import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.aws.session import AwsClients
from worker.demo.audit import Audit
from worker.demo.books import Books
from worker.demo.day import BUSY_BANKS, CLOSED_MAILBOX, COUNTED_PRODUCT, NO_CREDIT, STOCK
from worker.demo.mail_server import MailServer
from worker.demo.recorded import RecordedTopic
from worker.demo.shop import Shop
from worker.fleet.process import Process, load_routers
from worker.handlers.database import Database
from worker.handlers.events import ORDERS_TOPIC
from worker.local import EmbeddedAws
from worker.publisher.topic import SnsTopic
from worker.settings import FleetSettings
from worker.topology import apply, wanted_by

__all__ = ["Stage"]

STOCKTAKE_SECONDS = 3.0
BUSY_SECONDS = 3.0
PUBLISH_CONNECTIONS = 8


class Stage:
    """Everything that the demo needs, set up while inside `async with`; the fleet's process is ready to be run."""

    def __init__(self, settings: FleetSettings, database: str, folder: Path, *, mail_seconds: float) -> None:
        self.aws = EmbeddedAws()
        self.mail = MailServer(latency_seconds=mail_seconds, closed=frozenset({CLOSED_MAILBOX}))
        self.database = Database(database)
        self.books = Books(settings)
        self.audit = Audit(self.books, self.database)
        self.resources_made = 0
        self.clients: AwsClients
        self.shop: Shop
        self.process: Process
        self._settings = settings
        self._database_url = database
        self._folder = folder
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _set_up(self) -> None:
        enter = self._stack.enter_async_context
        await enter(self.database)  # it may be someone's server, and is what can fail
        await self.database.stock_up(STOCK, counting=COUNTED_PRODUCT, counted_until=time.time() + STOCKTAKE_SECONDS)
        await self.audit.begin()
        await enter(self.aws)
        self.clients = await enter(AwsClients(self.aws.access))
        self.resources_made = len(await apply(wanted_by(self._settings), self.clients))
        await enter(self.mail)
        topic = SnsTopic(ORDERS_TOPIC, self.aws.access, connections=PUBLISH_CONNECTIONS)
        self.shop = await enter(Shop(RecordedTopic(topic, self.books.publish), self.mail, self._folder))
        await self.database.ledger.know_cards(
            declined=[NO_CREDIT], busy=BUSY_BANKS, busy_until=time.time() + BUSY_SECONDS
        )
        self._stack.enter_context(_environment(ORDERS_DATABASE=self._database_url, ORDERS_SMTP=self.mail.url))
        self.process = Process(self._settings, load_routers(self._settings), self.aws.access)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Tell the handlers, which read the environment, where everything is."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
