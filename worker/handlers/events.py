"""What the order service publishes: five event types with one payload."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

__all__ = ["CHANGES", "Order"]

CHANGES = ("order.updated", "order.cancelled", "order.shipped", "order.delivered")
"""What may become of an order after `order.created`."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\P{C}+$")]
"""Printable text: no line break may find its way into a mail's headers, no NUL into a database."""


class Order(BaseModel):
    """The payload of every `order.*` event."""

    order_id: Text
    user_id: Text
    email: Text
    product: Text
    quantity: int = Field(ge=1, le=1_000_000)
    amount: Decimal = Field(ge=0, max_digits=12, decimal_places=2)
    """What the whole order costs."""
