"""The demo's books: what was published must be handled or dead-lettered, queue by queue, and the effects must agree."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from worker.demo.events import Event
from worker.settings import FleetSettings, QueueSettings
from worker.source import Depth

__all__ = ["Account", "Books"]


@dataclass(slots=True)
class Account:
    """One queue's side of the books."""

    published: int = 0
    received: int = 0
    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0
    lag_p50_seconds: float | None = None
    lag_p99_seconds: float | None = None
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
        self._takes = {name: set(_event_types(queue)) for name, queue in settings.queues.items()}

    def publish(self, event: Event) -> None:
        """Enter a published event on the account of every queue that subscribes to its type."""
        for name, account in self.accounts.items():
            account.published += event.event_type in self._takes[name]

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
        return [fault for name, account in self.accounts.items() for fault in account.faults(name)]


def _event_types(queue: QueueSettings) -> Iterator[str]:
    """Yield the event types that the filters of the queue's subscriptions name."""
    for subscription in queue.subscribe:
        match subscription.filter:
            case {"event_type": [*names]}:
                yield from (name for name in names if isinstance(name, str))
