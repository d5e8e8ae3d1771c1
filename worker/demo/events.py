"""The demo's events: a day of an order service in a moment, a few of them poison."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from worker.message import Attribute

__all__ = ["COUNTED_PRODUCT", "STOCK", "Event", "events"]

STOCK = {"teapot": 100_000, "kettle": 100_000, "cup": 100_000, "tray": 100_000}
COUNTED_PRODUCT = "tray"
"""Its stock is being counted when the demo starts: orders for it fail for a while, for a real reason."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is published."""

    event_type: str
    body: str

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What subscriptions filter by, and when it was published."""
        return {
            "event_type": Attribute("String", self.event_type),
            "published_at": Attribute("String", datetime.now(UTC).isoformat()),
        }


def events(seed: int = 7) -> Iterator[Event]:
    """Yield events without end: mostly new orders, some updates and cancellations, one in eighty of them poison."""
    chance = random.Random(seed)
    for number in range(1, 1_000_000_000):
        order = {
            "order_id": f"order-{number:06}",
            "user_id": f"user-{chance.randrange(500)}",
            "product": chance.choice(list(STOCK)),
            "quantity": 60 if number % 97 == 0 else chance.randint(1, 5),
        }
        if number % 80 == 0:
            yield _poison(number // 80, order)
        else:
            kind = chance.choices(["order.created", "order.updated", "order.cancelled"], [8, 1, 1])[0]
            yield Event(kind, json.dumps(order))


def _poison(number: int, order: dict[str, object]) -> Event:
    match number % 4:
        case 0:
            return Event("order.created", json.dumps(order | {"product": "samovar"}))  # nobody sells it
        case 1:
            return Event("order.created", json.dumps(order | {"quantity": "many"}))  # not a number
        case 2:
            return Event("order.created", "<order>" + str(order["order_id"]) + "</order>")  # not JSON
        case _:
            return Event("order.archived", json.dumps(order))  # no handler takes it
