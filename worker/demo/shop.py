"""The demo's order services: one publishes an event, one does everything inline, both over HTTP; and their customers."""

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from aiohttp import ClientSession

from worker.demo.customers import Customers
from worker.demo.day import STOCK
from worker.demo.mail_server import MailServer
from worker.handlers.database import Database
from worker.handlers.mail import Mailer
from worker.handlers.order_service import OrderService, place_by_event, place_inline
from worker.publisher import Publisher, Topic

__all__ = ["Shop"]

INLINE_IDS = "inline-"


class Shop:
    """Two order services and their customers, while inside `async with`.

    The inline one writes to a database of its own in `folder`, so that the books of the queues stay theirs.
    """

    def __init__(self, orders: Topic, mail: MailServer, folder: Path) -> None:
        self.publisher = Publisher(orders)
        self.by_event: Customers
        self.inline: Customers
        self._mail = mail
        self._folder = folder
        self._stack = AsyncExitStack()

    @property
    def mails_of_queues(self) -> Counter[str]:
        """How often the mail server has taken each mail that no inline order sent."""
        return Counter({name: times for name, times in self._mail.received.items() if INLINE_IDS not in name})

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        await enter(self.publisher)
        database = await enter(Database(f"sqlite:///{self._folder / 'inline.sqlite'}"))
        await database.stock_up(STOCK)
        session = await enter(ClientSession())
        by_event = await enter(OrderService(place_by_event(self.publisher)))
        inline = await enter(
            OrderService(place_inline(database, Mailer(self._mail.url)), new_id=lambda: f"{INLINE_IDS}{uuid4().hex}")
        )
        self.by_event = Customers(session, by_event.url, lambda: self._mail.is_down)
        self.inline = Customers(session, inline.url, lambda: self._mail.is_down)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
