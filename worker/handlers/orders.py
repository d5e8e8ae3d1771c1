"""An order service's six consumers: one router per queue. The order service publishes an event; each reacts to it.

SQS delivers at least once, so every effect has a unique key in the database, and a second delivery does no harm. What must
not only happen once, but bring something else about, uses inbox and outbox: an order and the request of its payment, and
the steps of that.
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from sqlalchemy import Connection

from worker import Batch, Message, PermanentError, Router, TransientError, outbox
from worker.handlers.database import Database, ReservationError, StocktakeError, UnknownOrderError
from worker.handlers.events import PAYMENT_EVENTS, PAYMENTS_TOPIC, Order, Payment
from worker.handlers.ledger import BankBusyError, PaymentError
from worker.handlers.mail import Mailer
from worker.handlers.transactions import Once

__all__ = ["Shop", "analytics", "email", "fraud", "inventory", "payments", "processing"]


class Shop(NamedTuple):
    """What the handlers of a router share: their `message.state`."""

    database: Database
    mailer: Mailer
    payments_topic: str = PAYMENTS_TOPIC
    """Where the steps of payments are published."""


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    """Open the database that `ORDERS_DATABASE` names, and know the mail server at `ORDERS_SMTP` and `ORDERS_PAYMENTS_TOPIC`."""
    mailer = Mailer(os.environ.get("ORDERS_SMTP", "smtp://127.0.0.1:1025"))
    async with Database(os.environ.get("ORDERS_DATABASE", "sqlite:///orders.sqlite")) as database:
        yield Shop(database, mailer, os.environ.get("ORDERS_PAYMENTS_TOPIC", PAYMENTS_TOPIC))


processing = Router(lifespan=shop)
inventory = Router(lifespan=shop)
email = Router(lifespan=shop)
analytics = Router(lifespan=shop)
fraud = Router(lifespan=shop)
payments = Router(lifespan=shop)


@processing.on("order.created")
async def record_order(message: Message[Order]) -> None:
    """Write the order down, and with it, in the same transaction, that its payment is to be requested."""
    state: Shop = message.state
    await state.database.record_order(message.event, _once_and_for_its_payment(message))


@processing.on("order.updated")
@processing.on("order.cancelled")
@processing.on("order.shipped")
@processing.on("order.delivered")
async def record_change(message: Message[Order]) -> None:
    """Write down what became of the order, and what that means for its payment; a change that overtakes its order waits for it."""
    state: Shop = message.state
    try:
        await state.database.record_change(str(message.event_type), message.event, _once_and_for_its_payment(message))
    except UnknownOrderError as gap:
        raise TransientError(str(gap), is_downstream=False) from None


def _once_and_for_its_payment(message: Message[Order]) -> Once:
    """Return the mark of the message; what happened to the order's payment goes into the outbox behind the order's row.

    Mark, row and event are one transaction: an order that is there is one whose payment is requested.
    """
    state: Shop = message.state
    step, order = PAYMENT_EVENTS.get(str(message.event_type)), message.event

    @contextmanager
    def once(connection: Connection) -> Iterator[bool]:
        with message.once(connection, key=order.order_id) as is_first:
            yield is_first
            if is_first and step is not None:
                outbox.publish_sync(
                    connection,
                    step,
                    Payment.of(order),
                    topic=state.payments_topic,
                    group_id=order.order_id,  # the steps of one order stay in order; other orders need not wait for them
                    key=f"{order.order_id}:{step}",
                )

    return once


@inventory.on("order.created")
async def reserve_stock(message: Message[Order]) -> None:
    """Take the quantity out of stock, in one transaction with its reservation."""
    state: Shop = message.state
    try:
        await state.database.reserve(message.event)
    except StocktakeError as count:
        raise TransientError(str(count), retry_after=count.seconds_left, is_downstream=False) from None
    except ReservationError as refusal:
        raise PermanentError(str(refusal)) from None


@email.on("order.created")
@email.on("order.cancelled")
@email.on("order.shipped")
async def send_mail(message: Message[Order]) -> None:
    """Send the customer the news, then write down that it was sent.

    At least once: a worker that dies between the two sends the mail again, with the same Message-ID.
    """
    state: Shop = message.state
    news, order = str(message.event_type), message.event
    if not await state.database.was_mailed(news, order.order_id):
        await state.mailer.send(news, order)
        await state.database.record_mail(news, order.order_id)


@analytics.on("order.*", batch=Batch(size=100, window_seconds=0.5, on_error="split"))
async def track(messages: Sequence[Message[Order]]) -> None:
    """Count every event, also of types that are yet to be invented; a hundred rows at once cost little more than one."""
    state: Shop = messages[0].state
    await state.database.track_all([(str(message.event_type), message.event) for message in messages])


@fraud.on("order.created")
async def check_fraud(message: Message[Order]) -> None:
    """Mark orders that a human should look at."""
    state: Shop = message.state
    await state.database.check_fraud(message.event)


@payments.on("payment.requested")
async def authorize(message: Message[Payment]) -> None:
    """Hold the money; while the bank is busy, the later steps of the order wait behind this one."""
    state: Shop = message.state
    with _refusing():
        await state.database.ledger.authorize(message.event, _once(message))


@payments.on("payment.claimed")
async def capture(message: Message[Payment]) -> None:
    """Take the money that is held."""
    state: Shop = message.state
    with _refusing():
        await state.database.ledger.capture(message.event, _once(message))


@payments.on("payment.cancelled")
async def refund(message: Message[Payment]) -> None:
    """Give back what is held or was taken."""
    state: Shop = message.state
    with _refusing():
        await state.database.ledger.refund(message.event, _once(message))


def _once(message: Message[Payment]) -> Once:
    """Return the mark of the message."""
    return lambda connection: message.once(connection, key=message.event.order_id)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what the ledger says into what becomes of the message.

    A busy bank will answer. Nothing else mends itself: of a FIFO group, what has not come before a step never will.
    """
    try:
        yield
    except BankBusyError as busy:
        raise TransientError(str(busy), retry_after=busy.seconds_left, is_downstream=False) from None
    except PaymentError as refusal:
        raise PermanentError(str(refusal)) from None
