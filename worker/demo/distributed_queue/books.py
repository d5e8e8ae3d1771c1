"""The books of the distributed queue: every notice is a row, and an SMS if it asked for one, each once; and the API never had too many calls."""

from collections import Counter
from collections.abc import Mapping

from worker.demo.books import Accounts, deliveries
from worker.demo.distributed_queue.workers import Counts
from worker.message import Attribute
from worker.settings import FleetSettings

__all__ = ["RECORDS", "SMS", "NoticeBooks"]

RECORDS = "record-writing"
SMS = "sms-sending"


class NoticeBooks(Accounts):
    """An account per queue, and what the database and the SMS API say."""

    def __init__(self, settings: FleetSettings, *, allowance: int) -> None:
        super().__init__(settings)
        self.redelivered = dict.fromkeys(settings.queues, 0)
        """How often a message was received that had been received before."""
        self.rows_again = 0
        """Rows of notices that have another row."""
        self.sms: Counter[str] = Counter()
        """How often the API has sent the SMS of each key."""
        self.most_calls = 0
        """The highest number of calls that the API had at once."""
        self.calls_refused = 0
        """Calls that the API had no room for."""
        self.most_in_flight = 0
        """The highest number of SMS messages that SQS said were received and not deleted yet."""
        self._allowance = allowance

    def publish(self, topic: str, body: str, attributes: Mapping[str, Attribute]) -> None:
        """Enter an event on the account of every queue whose filter takes it."""
        for name, account in self.accounts.items():
            account.published += deliveries(self._queues[name], topic, body, attributes)

    def count(self, counts: Mapping[str, Counts]) -> None:
        """Enter what the workers have counted so far."""
        for name, account in self.accounts.items():
            account.received, self.redelivered[name], account.handled, account.retried, account.dead_lettered = counts[name]  # fmt: skip

    def faults(self) -> list[str]:
        """Return what does not balance; empty means `books balance`."""
        faults = super().faults()
        faults += [
            f"{name}: {count} messages were received that had been received before"
            for name, count in self.redelivered.items()
            if count
        ]
        if self.rows_again:
            faults.append(f"{self.rows_again} rows are of notices that were written down before")
        if sent_again := sum(times > 1 for times in self.sms.values()):
            faults.append(f"{sent_again} SMS were sent more than once")
        if self.most_calls > self._allowance:
            faults.append(f"the SMS API had {self.most_calls} calls at once, and {self._allowance} are allowed")
        if self.calls_refused:
            faults.append(f"the SMS API refused {self.calls_refused} calls (429)")
        return faults
