"""The handlers that the measured worker runs: they do nothing, so that what is left is Longshore."""

from decimal import Decimal

from pydantic import BaseModel

from worker import Message, Router
from worker.middleware import logging, timing

__all__ = ["OrderCreated", "router"]

router = Router(middleware=[logging, timing(slow_seconds=1)])


class OrderCreated(BaseModel):
    """What the handler wants to know of the stub's messages."""

    order_id: str
    user_id: str
    amount: Decimal


@router.on("order.created")
async def handle(message: Message[OrderCreated]) -> None:
    """Do nothing."""
