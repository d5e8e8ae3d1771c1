"""The demo's books: what was published must be handled or dead-lettered, queue by queue, and the effects must agree."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.message import Attribute
from worker.settings import FleetSettings, QueueSettings
from worker.source import Depth
from worker.telemetry.cells import Spread
from worker.telemetry.declared import LAG
from worker.topology.filters import matches

__all__ = ["Account", "Books"]


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

    @property
    def is_done(self) -> bool:
        """Whether every published event has ended."""
        return self.handled + self.dead_lettered >= self.published

    def faults(self, queue: str) -> list[str]:
        """Return what does not balance, one sentence each."""
        faults = []
        if self.published != self.handled + self.dead_lettered:
            faults.append(f"{queue}: {self.published} published, but {self.handled} handled and {self.dead_lettered} dead-lettered")  # fmt: skip
        if self.effects is not None and self.effects != self.handled:
            faults.append(f"{queue}: {self.handled} handled, but {self.effects} effects are in the database")
        if self.depth is not None:
            waiting = self.depth.visible + self.depth.in_flight + self.depth.delayed
            if waiting:
                faults.append(f"{queue}: {waiting} messages are still in the queue")
            if self.depth.dead_letters != self.dead_lettered:
                faults.append(f"{queue}: {self.dead_lettered} dead-lettered, but {self.depth.dead_letters} are in its dead-letter queue")  # fmt: skip
        return faults


class Books:
    """An account per queue; knows from the subscriptions' filters who must get which event."""

    def __init__(self, settings: FleetSettings) -> None:
        self.accounts = {name: Account() for name in settings.queues}
        self._queues = settings.queues
        self.mails_taken = 0
        """Different mails that the mail server has taken."""
        self.mails_noted = 0
        """Mails that the database says were sent."""
        self.mails_lost_to_outage = 0
        """Mails that were dead-lettered because the mail server was down."""

    def publish(self, body: str, attributes: Mapping[str, Attribute]) -> None:
        """Enter a published event on the account of every queue whose filters take it."""
        for name, account in self.accounts.items():
            account.published += _deliveries(self._queues[name], body, attributes)

    @property
    def published(self) -> int:
        """Deliveries that are owed, over all queues."""
        return sum(account.published for account in self.accounts.values())

    @property
    def ended(self) -> int:
        """Deliveries that were handled or dead-lettered."""
        return sum(account.handled + account.dead_lettered for account in self.accounts.values())

    @property
    def are_done(self) -> bool:
        """Whether everything that was published has ended."""
        return all(account.is_done for account in self.accounts.values())

    def faults(self) -> list[str]:
        """Return what does not balance; empty means `books balance`."""
        faults = [fault for name, account in self.accounts.items() for fault in account.faults(name)]
        if self.mails_taken != self.mails_noted:
            faults.append(f"the mail server has {self.mails_taken} different mails, but {self.mails_noted} were noted as sent")  # fmt: skip
        if self.mails_lost_to_outage:
            faults.append(f"{self.mails_lost_to_outage} mails were dead-lettered because the mail server was down")
        return faults


def _deliveries(queue: QueueSettings, body: str, attributes: Mapping[str, Attribute]) -> int:
    """Return how many copies SNS sends to the queue: one for each subscription whose filter takes the event."""
    return sum(
        subscription.filter is None or matches(subscription.filter, subscription.filter_scope, attributes, body)
        for subscription in queue.subscribe
    )
