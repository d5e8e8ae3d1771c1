"""A day of a shop in half a minute: purchases, what becomes of them, and a few events that are poison."""

import json
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from worker.handlers.events import Order

__all__ = [
    "BUSY_BANKS",
    "CLOSED_MAILBOX",
    "COUNTED_PRODUCT",
    "NO_CREDIT",
    "STOCK",
    "Change",
    "Day",
    "News",
    "Purchase",
    "is_placed",
    "poison_in",
]

STOCK = {"teapot": 100_000, "kettle": 100_000, "cup": 100_000, "tray": 100_000}
COUNTED_PRODUCT = "tray"
"""Its stock is being counted when the demo starts: reserving it fails for a while, for a real reason."""
USERS = 500
BUSY_BANKS = tuple(f"user-{number}" for number in range(0, USERS, 5))
"""Customers whose banks are busy when the demo starts: their payments have to wait, and so does what follows them."""
NO_CREDIT = "user-without-credit"
"""A customer whose card is declined."""
CLOSED_MAILBOX = "closed@customers.example"
"""The mail server refuses it for good."""
UNSOLD_PRODUCT = "samovar"
"""Nobody has ever sold it."""
UNKNOWN_EVENT = "order.archived"
"""No handler of order-processing takes it."""
POISON_EVERY = 66
PURCHASES = 0.6
"""The share of events that are new orders."""
CANCELLED = 0.2
"""The share of orders that are cancelled instead of shipped."""

POISON_ID = "poison-"
"""How the ids of orders begin that no order service has placed."""
NO_ORDER = "the payload does not fit Order"


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a customer asks of the order service."""

    body: Mapping[str, Any]
    is_poison: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an order, to be announced."""

    event_type: str
    order: Order


@dataclass(frozen=True, slots=True)
class News:
    """An event that is published as it is: poison."""

    event_type: str
    payload: object
    attributes: Mapping[str, Decimal] = field(default_factory=dict)


class Day:
    """Draws what happens next; the same for the same seed as long as the same orders are placed."""

    def __init__(self, seed: int = 7) -> None:
        self._chance = random.Random(seed)
        self._lives: deque[tuple[Order, list[str]]] = deque()

    def next(self, number: int) -> Purchase | Change | News:
        """Return what happens as the given number, which counts from 1."""
        if number % POISON_EVERY == 0:
            return self._poison(number // POISON_EVERY)
        if not self._lives or self._chance.random() < PURCHASES:
            return self.purchase()
        order, ahead = self._lives.popleft()  # the oldest, so that its order has long been written down
        if ahead[1:]:
            self._lives.append((order, ahead[1:]))
        return Change(ahead[0], order)

    def purchase(self) -> Purchase:
        """Return a purchase of a customer."""
        user, quantity = self._chance.randrange(USERS), self._chance.randint(1, 5)
        return Purchase(
            {
                "user_id": f"user-{user}",
                "email": f"user-{user}@customers.example",
                "product": self._chance.choice(list(STOCK)),
                "quantity": quantity,
                "amount": str(quantity * Decimal(self._chance.randrange(5, 100))),
            }
        )

    def placed(self, purchase: Purchase, order_id: str) -> None:
        """Note that the order service has taken a purchase: sooner or later something becomes of it."""
        if purchase.is_poison:
            return
        order = Order.model_validate({**purchase.body, "order_id": order_id})
        if order.user_id == NO_CREDIT:  # next of all: the refusal of its payment may not have been written down yet
            self._lives.appendleft((order, ["order.cancelled"]))
            return
        is_cancelled = self._chance.random() < CANCELLED
        life = ["order.cancelled"] if is_cancelled else ["order.updated", "order.shipped", "order.delivered"]
        self._lives.append((order, life))

    def _poison(self, number: int) -> Purchase | News:
        order = {**self.purchase().body}
        amount = {"amount": Decimal(order["amount"])}
        named = {**order, "order_id": f"{POISON_ID}{number}"}
        match number % 6:
            case 0:
                return Purchase({**order, "product": UNSOLD_PRODUCT}, is_poison=True)
            case 1:
                return Purchase({**order, "email": CLOSED_MAILBOX}, is_poison=True)
            case 2:
                return Purchase({**order, "user_id": NO_CREDIT})
            case 3:
                return News("order.created", {**named, "quantity": "many"}, amount)  # not a number
            case 4:
                return News("order.created", f"<order>{named['order_id']}</order>", amount)  # not JSON
            case _:
                return News(UNKNOWN_EVENT, named)


def is_placed(body: str) -> bool:
    """Return whether an `order.created` comes from an order service."""
    return POISON_ID not in body


def poison_in(queue: str, event_type: str | None, body: str) -> str | None:
    """Return why a queue of the orders fleet must dead-letter an event, in the words of its reason; `None`: handle it."""
    try:
        order = json.loads(body)
    except ValueError:
        return NO_ORDER
    if not isinstance(order.get("quantity", 1), int):  # a payment has none
        return NO_ORDER
    match queue, event_type:
        case "payment-processing.fifo", "payment.requested" if order["user_id"] == NO_CREDIT:
            return "the card was declined"
        case "payment-processing.fifo", _ if order["user_id"] == NO_CREDIT:
            return "the payment of this order was declined"
        case "order-processing", str(name) if name == UNKNOWN_EVENT:
            return "unknown event type"
        case "inventory-update", _ if order["product"] == UNSOLD_PRODUCT:
            return "the product is unknown"
        case "email-notification", _ if order["email"] == CLOSED_MAILBOX:
            return "the mail server refused the recipient"
        case _:
            return None
