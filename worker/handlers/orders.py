"""An order service's three consumers: one router per queue, one SQLite file for their effects."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel, Field

from worker import Message, PermanentError, Router, TransientError
from worker.handlers.ledger import Ledger, StocktakeError, UnknownProductError

__all__ = ["Order", "email", "inventory", "processing"]

INVOICE_SECONDS = 5.0
"""How long the invoice of a large order takes: longer than the visibility timeout of its queue."""
LARGE_QUANTITY = 50


class Order(BaseModel):
    """The payload of every `order.*` event."""

    order_id: str
    user_id: str
    product: str
    quantity: int = Field(ge=1)


@asynccontextmanager
async def ledger() -> AsyncIterator[Ledger]:
    """Open the database that `ORDERS_DATABASE` names (`orders.sqlite`) for as long as the process consumes."""
    book = Ledger(os.environ.get("ORDERS_DATABASE", "orders.sqlite"))
    try:
        yield book
    finally:
        book.close()


processing = Router(lifespan=ledger)
inventory = Router(lifespan=ledger)
email = Router(lifespan=ledger)


@processing.on("order.created")
def record_order(message: Message[Order]) -> None:
    """Write the order down, once however often it is delivered."""
    order = message.event
    message.state.record("orders", order.order_id, f"{order.quantity} x {order.product} for {order.user_id}")


@processing.on("order.cancelled")
def cancel_order(message: Message[Order]) -> None:
    """Write the cancellation down beside the order; it may arrive first."""
    message.state.record("cancellations", message.event.order_id, "cancelled")


@inventory.on("order.created")
def reserve_stock(message: Message[Order]) -> None:
    """Take the quantity out of stock in one transaction with its reservation."""
    order = message.event
    try:
        message.state.reserve(order.order_id, order.product, order.quantity)
    except UnknownProductError:
        raise PermanentError(f"unknown product {order.product}") from None
    except StocktakeError as busy:
        raise TransientError(f"{order.product} is being counted", retry_after=busy.seconds_left) from None


@email.on("order.*")
async def send_confirmation(message: Message[Order]) -> None:
    """Write the customer; a large order waits for its invoice first, while its lease is kept alive."""
    order = message.event
    if message.event_type == "order.created" and order.quantity >= LARGE_QUANTITY:
        await asyncio.sleep(INVOICE_SECONDS)
    subject = f"{message.event_type}:{order.order_id}"
    await asyncio.to_thread(message.state.record, "mails", subject, order.user_id)
