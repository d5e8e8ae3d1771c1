"""What the order service publishes: five event types with one payload, and three about an order's payment with another."""

from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, Field, StringConstraints

__all__ = ["CHANGES", "PAYMENT_EVENTS", "Order", "Payment"]

CHANGES = ("order.updated", "order.cancelled", "order.shipped", "order.delivered")
"""What may become of an order after `order.created`."""
PAYMENT_EVENTS = {
    "order.created": "payment.requested",
    "order.shipped": "payment.claimed",
    "order.cancelled": "payment.cancelled",
}
"""What happens to an order, and what that means for its payment: hold the money, take it, give it back."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\P{C}+$")]
"""Printable text: no line break may find its way into a mail's headers, no NUL into a database."""
Amount = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]


class Order(BaseModel):
    """The payload of every `order.*` event."""

    order_id: Text
    user_id: Text
    email: Text
    product: Text
    quantity: int = Field(ge=1, le=1_000_000)
    amount: Amount
    """What the whole order costs."""


class Payment(BaseModel):
    """The payload of every `payment.*` event."""

    order_id: Text
    user_id: Text
    """Who pays."""
    amount: Amount

    @classmethod
    def of(cls, order: Order) -> Self:
        """Return what is to be paid for the order."""
        return cls(order_id=order.order_id, user_id=order.user_id, amount=order.amount)
