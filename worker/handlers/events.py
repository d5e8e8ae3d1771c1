"""The events of the fleet and their topics: five types about an order, and three about its payment.

The order service publishes the first; whoever writes an order down publishes the others.
"""

from decimal import Decimal
from typing import Annotated, Final, Self

from pydantic import BaseModel, Field, StringConstraints

__all__ = ["CHANGES", "ORDERS_TOPIC", "PAYMENTS_TOPIC", "PAYMENT_EVENTS", "Order", "Payment"]

ORDERS_TOPIC: Final = "order-events"
PAYMENTS_TOPIC: Final = "order-payments.fifo"
"""A topic of its own, because SNS delivers to FIFO queues from FIFO topics only."""
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
