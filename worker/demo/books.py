"""The demo's books: what was published must be handled or dead-lettered, queue by queue, and the effects must agree."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from worker.demo.day import is_placed, poison_in
from worker.handlers.events import ORDERS_TOPIC, PAYMENT_EVENTS, PAYMENTS_TOPIC, Order, Payment
from worker.message import Attribute
from worker.settings import FleetSettings, QueueSettings
from worker.source import Depth
from worker.telemetry.cells import Spread
from worker.telemetry.declared import LAG
from worker.topology.filters import matches

__all__ = ["EFFECTS", "IN_TURN", "Account", "Accounts", "Books", "deliveries"]

IN_TURN = {
    ("authorized",),
    ("authorized", "captured"),
    ("authorized", "refunded"),
    ("authorized", "captured", "refunded"),
}
"""The ways that a payment may go, one step after the other."""

EFFECTS = {
    "order-processing": ("orders", "order_changes"),
    "inventory-update": ("reservations",),
    "email-notification": ("mails",),
    "analytics-tracking": ("analytics",),
    "fraud-check": ("fraud_checks",),
    "payment-processing.fifo": ("payment_steps",),
}
"""The tables that the handlers of each queue write to."""


@dataclass(slots=True)
class Account:
    """One queue's side of the books."""

    published: int = 0
    received: int = 0
    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0
    lag: Spread = field(default_factory=lambda: Spread(LAG.buckets))
    """Seconds from publishing to the handler, outside the mail server's outage."""
    lag_in_outage: Spread = field(default_factory=lambda: Spread(LAG.buckets))
    effects: int | None = None
    """Rows that the queue's handlers have written."""
    depth: Depth | None = None
    """What SQS says at the end."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why its dead letters are where they are."""
    poison: Counter[str] = field(default_factory=Counter)
    """Why published events must be dead-lettered, in the words that their reasons begin with."""

    @property
    def is_done(self) -> bool:
        """Whether every published event has ended."""
        return self.handled + self.dead_lettered >= self.published

    def faults(self, queue: str) -> list[str]:
        """Return what does not balance, one sentence each."""
        faults = []
        if self.published != self.handled + self.dead_lettered:
            faults.append(f"{queue}: {self.published} published, but {self.handled} handled and {self.dead_lettered} dead-lettered")  # fmt: skip
        if self.dead_lettered != self.poison.total():
            faults.append(f"{queue}: {self.dead_lettered} dead-lettered, but {self.poison.total()} events were poison")
        faults += self._unowed(queue)
        if self.effects is not None and self.effects != self.handled:
            faults.append(f"{queue}: {self.handled} handled, but {self.effects} effects are in the database")
        if self.depth is not None:
            waiting = self.depth.visible + self.depth.in_flight + self.depth.delayed
            if waiting:
                faults.append(f"{queue}: {waiting} messages are still in the queue")
            if self.depth.dead_letters != self.dead_lettered:
                faults.append(f"{queue}: {self.dead_lettered} dead-lettered, but {self.depth.dead_letters} are in its dead-letter queue")  # fmt: skip
        return faults

    def _unowed(self, queue: str) -> Iterator[str]:
        """Yield what was dead-lettered for a reason that no poison has, or another number of times."""
        found = Counter(self.reasons)
        for why, owed in self.poison.items() if found else ():
            count = sum(found.pop(reason) for reason in list(found) if reason.startswith(why))
            if count != owed:
                yield f"{queue}: {count} dead-lettered because {why}, but {owed} were poison of that kind"
        for reason, count in found.items():
            yield f"{queue}: {count} dead-lettered that should have been handled: {reason}"


class Accounts:
    """An account per queue of a fleet."""

    def __init__(self, settings: FleetSettings) -> None:
        self.accounts = {name: Account() for name in settings.queues}
        self._queues = settings.queues

    @property
    def published(self) -> int:
        """Deliveries that are owed, over all queues."""
        return sum(account.published for account in self.accounts.values())

    @property
    def ended(self) -> int:
        """Deliveries that were handled or dead-lettered."""
        return sum(account.handled + account.dead_lettered for account in self.accounts.values())

    def faults(self) -> list[str]:
        """Return what does not balance; empty means `books balance`."""
        return [fault for name, account in self.accounts.items() for fault in account.faults(name)]


class Books(Accounts):
    """The books of the orders fleet; knows from the subscriptions' filters who must get which event."""

    def __init__(self, settings: FleetSettings) -> None:
        super().__init__(settings)
        self.mails_taken = 0
        """Different mails that the mail server has taken."""
        self.mails_noted = 0
        """Mails that the database says were sent."""
        self.mails_sent_again = 0
        """Mails that the mail server has taken more than once."""
        self.orders_placed: int | None = None
        """Orders that the order service has said it has placed by event."""
        self.orders_published = 0
        """Orders among the published events."""
        self.orders_failed = 0
        """Orders that could not be placed by event."""
        self.stock_faults: list[str] = []
        """Products of which another quantity is gone than was reserved."""
        self.payments: Counter[tuple[str, ...]] = Counter()
        """How many payments have taken which steps, in the order in which the ledger has them."""

    def publish(self, topic: str, body: str, attributes: Mapping[str, Attribute]) -> None:
        """Enter an event on the account of every queue that subscribes to its topic with a filter that takes it.

        And what follows from it: whoever writes an order down owes the step of its payment, by the outbox.
        """
        kind = attributes.get("event_type")
        event_type = str(kind.value) if kind is not None else None
        self.orders_published += event_type == "order.created" and is_placed(body)
        for name, account in self.accounts.items():
            count = deliveries(self._queues[name], topic, body, attributes)
            account.published += count
            if count and (why := poison_in(name, event_type, body)) is not None:
                account.poison[why] += count
        step = PAYMENT_EVENTS.get(event_type or "") if topic == ORDERS_TOPIC else None
        if step is not None and poison_in("order-processing", event_type, body) is None:
            payment = Payment.of(Order.model_validate_json(body))
            self.publish(PAYMENTS_TOPIC, payment.model_dump_json(), {"event_type": Attribute("String", step)})

    @property
    def are_done(self) -> bool:
        """Whether everything that was published has ended."""
        return all(account.is_done for account in self.accounts.values())

    def faults(self) -> list[str]:
        """Return what does not balance; empty means `books balance`."""
        faults = super().faults()
        if self.mails_taken != self.mails_noted:
            faults.append(f"the mail server has {self.mails_taken} different mails, but {self.mails_noted} were noted as sent")  # fmt: skip
        if self.mails_sent_again:
            faults.append(f"{self.mails_sent_again} mails were sent more than once")
        if self.orders_placed is not None and self.orders_placed != self.orders_published:
            faults.append(f"{self.orders_placed} orders were placed by event, but {self.orders_published} were published")  # fmt: skip
        if self.orders_failed:
            faults.append(f"{self.orders_failed} orders could not be placed by event")
        faults += self.stock_faults
        faults += [
            f"{count} payments took their steps out of turn: {', '.join(steps)}"
            for steps, count in self.payments.items()
            if steps not in IN_TURN
        ]
        return faults


def deliveries(queue: QueueSettings, topic: str, body: str, attributes: Mapping[str, Attribute]) -> int:
    """Return how many copies SNS sends to the queue: one for each subscription whose filter takes the event."""
    return sum(
        subscription.filter is None or matches(subscription.filter, subscription.filter_scope, attributes, body)
        for subscription in queue.subscribe
        if subscription.topic == topic
    )
