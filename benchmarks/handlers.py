"""The handlers that the measured worker runs: they do nothing, so that what is left is Longshore."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import count

from pydantic import BaseModel

from worker import Batch, Message, Router
from worker.middleware import logging, timing

__all__ = ["OrderCreated", "batches", "once", "router"]

router = Router(middleware=[logging, timing(slow_seconds=1)])
once = Router(middleware=[logging, timing(slow_seconds=1)])
batches = Router(middleware=[logging, timing(slow_seconds=1)])


class OrderCreated(BaseModel):
    """What the handler wants to know of the stub's messages."""

    order_id: str
    user_id: str
    amount: Decimal


@router.on("order.created")
async def handle(message: Message[OrderCreated]) -> None:
    """Do nothing."""


_orders = count()


@once.on("order.created", idempotency_key=lambda order: (order.order_id, next(_orders)))
async def handle_once(message: Message[OrderCreated]) -> None:
    """Do nothing, once for each order; the stub's orders are all the same, so they are numbered."""


@batches.on("*", batch=Batch(200, window_seconds=1))
async def handle_together(messages: Sequence[Message[OrderCreated]]) -> None:
    """Do nothing, with as many as there are."""
