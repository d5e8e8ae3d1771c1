"""The demo's traffic: a day of the shop at an even pace, and the mail server's bad moment in the middle of it."""

import asyncio
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from worker.demo.day import Change, Day, News, Purchase
from worker.demo.mail_server import MailServer
from worker.demo.shop import Shop
from worker.errors import LongshoreError
from worker.handlers.order_service import announce
from worker.publisher import PublishError

__all__ = ["Outage", "Traffic"]

INLINE_PER_SECOND = 8
"""Orders placed with the service that does everything inline, beside the stream of events."""
MAX_AT_ONCE = 100


class Traffic:
    """Lets the day happen: customers place orders by event and inline, and what becomes of them is published."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._day = Day()
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, events: int | None, *, per_second: float) -> None:
        """Let that many events happen; `None` goes on until cancelled. Raises `LongshoreError` when one cannot be published."""
        try:
            await self._run(events, per_second)
        except* PublishError as group:
            raise LongshoreError(str(group.exceptions[0])) from None

    async def _run(self, events: int | None, per_second: float) -> None:
        async with asyncio.TaskGroup() as group:
            inline = group.create_task(self._buy_inline(group))
            pace = _Pace(per_second)
            for number in count(1) if events is None else range(1, events + 1):
                await pace.wait()
                await self._room.acquire()
                group.create_task(self._happen(number)).add_done_callback(self._leave)
            inline.cancel()

    async def _buy_inline(self, group: asyncio.TaskGroup) -> None:
        pace, customers = _Pace(INLINE_PER_SECOND), Day(seed=11)
        while True:
            await pace.wait()
            group.create_task(self._shop.inline.place(customers.purchase()))

    async def _happen(self, number: int) -> None:
        match self._day.next(number):
            case Purchase() as purchase:
                if (order_id := await self._shop.by_event.place(purchase)) is not None:
                    self._day.placed(purchase, order_id)
            case Change(event_type, order):
                await announce(self._shop.publisher, event_type, order)
            case News(event_type, payload, attributes):
                await self._shop.publisher.publish(event_type, payload, attributes=attributes)

    def _leave(self, _: asyncio.Task[Any]) -> None:
        self._room.release()


class Outage:
    """The mail server is down for a while, once; `say` is told when it begins and ends."""

    def __init__(self, mail: MailServer, say: Callable[[str], None], *, seconds: float) -> None:
        self._mail = mail
        self._say = say
        self._seconds = seconds
        self.is_on = False
        """Whether it is going on."""
        self.is_felt = False
        """Whether it is going on, or the mails that waited are still being written."""

    async def run(self, *, after_seconds: float) -> None:
        """Wait, take the mail server down, wait, bring it up again, and wait until that is forgotten."""
        await asyncio.sleep(after_seconds)
        self._mail.down()
        self.is_on = self.is_felt = True
        self._say(f"the mail server is down, for {self._seconds:.1f} s")
        await asyncio.sleep(self._seconds)
        await self._mail.up()
        self.is_on = False
        self._say("the mail server is up again")
        await asyncio.sleep(self._seconds)  # as long again, to catch up
        self.is_felt = False


class _Pace:
    """Even steps; whoever falls behind catches up."""

    def __init__(self, per_second: float) -> None:
        self._step = 1 / per_second
        self._due = time.monotonic()

    async def wait(self) -> None:
        self._due += self._step
        await asyncio.sleep(max(0.0, self._due - time.monotonic()))
