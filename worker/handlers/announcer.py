"""What becomes of an order is announced: to everybody, and in order to whoever handles its payment."""

from typing import Final

from worker import Publisher
from worker.handlers.events import PAYMENT_EVENTS, Order, Payment

__all__ = ["ORDERS_TOPIC", "PAYMENTS_TOPIC", "Announcer"]

ORDERS_TOPIC: Final = "order-events"
PAYMENTS_TOPIC: Final = "order-payments.fifo"
"""A topic of its own, because SNS delivers to FIFO queues from FIFO topics only."""


class Announcer:
    """Announces what happens to orders, by an open publisher for each of the two topics."""

    def __init__(self, orders: Publisher, payments: Publisher) -> None:
        self._orders = orders
        self._payments = payments

    async def announce(self, event_type: str, order: Order) -> None:
        """Publish the event, and before it what it means for the order's payment; raise `PublishError`.

        No transaction spans two topics. The payment goes first: when the event then fails, money is held that nobody
        claims, and whoever tries again pays once. The other way round an order could be sent off that nobody pays.
        """
        if (step := PAYMENT_EVENTS.get(event_type)) is not None:
            await self._payments.publish(
                step,
                Payment.of(order),
                group_id=order.order_id,  # the steps of one order stay in order; other orders need not wait for them
                deduplication_id=f"{order.order_id}:{step}",
            )
        await self._orders.publish(event_type, order, attributes={"amount": order.amount})
