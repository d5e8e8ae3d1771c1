"""The handlers that the measured worker runs: they do nothing, so that what is left is Longshore."""

from decimal import Decimal

from pydantic import BaseModel

from worker import Message, Router
from worker.middleware import logging, timing

__all__ = ["OrderCreated", "router"]

router = Router(middleware=[logging, timing(slow_seconds=1)])


class Item(BaseModel):
    """A position of an order."""

    sku: str
    quantity: int
    price: Decimal


class OrderCreated(BaseModel):
    """What the stub's messages carry."""

    order_id: str
    user_id: str
    amount: Decimal
    currency: str
    items: list[Item]
    note: str


@router.on("order.created")
async def handle(message: Message[OrderCreated]) -> None:
    """Do nothing."""
