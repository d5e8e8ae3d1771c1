"""`longshore demo`: the fleet at work, and its books."""

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from worker.demo import Demo, Show
from worker.demo.books import Account, Books
from worker.demo.events import Event
from worker.settings import load
from worker.source import Depth

pytestmark = pytest.mark.integration


async def test_the_demo_ends_with_balanced_books() -> None:
    """Every event of the demo ends in its queues, the database and SQS agree, and the status is 0."""
    output = io.StringIO()
    assert await Demo(Show(Console(file=output)), count=170).run() == 0
    text = output.getvalue()
    assert "books balance" in text
    assert "http://127.0.0.1:" in text
    assert "the payload does not fit Order" in text


class TestBooks:
    """A demo whose books cannot fail would prove nothing."""

    def account(self, **changes: object) -> Account:
        account = Account(published=10, received=12, handled=8, retried=2, dead_lettered=2, effects=8)
        account.depth = Depth(0, 0, 0, dead_letters=2)
        for name, value in changes.items():
            setattr(account, name, value)
        return account

    def test_books_that_balance_have_no_faults(self) -> None:
        assert self.account().faults("orders") == []

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"published": 11}, "orders: 11 published, but 8 handled and 2 dead-lettered"),
            ({"handled": 9, "effects": 9}, "orders: 10 published, but 9 handled and 2 dead-lettered"),
            ({"effects": 7}, "orders: 8 handled, but 7 effects are in the database"),
            ({"depth": Depth(1, 1, 1, 2)}, "orders: 3 messages are still in the queue"),
            ({"depth": Depth(0, 0, 0, 1)}, "orders: 2 dead-lettered, but 1 are in its dead-letter queue"),
        ],
    )
    def test_whatever_is_missing_or_too_much_is_named(self, changes: dict[str, object], fault: str) -> None:
        assert self.account(**changes).faults("orders") == [fault]

    def test_an_event_is_owed_to_every_queue_whose_filter_takes_it(self) -> None:
        """Three queues subscribe to new orders, one to updates, none to what has another name."""
        fleet_file = Path(__file__).parents[2] / "worker/demo/fleet.yaml"
        books = Books(load(fleet_file, environ={}))
        for event_type in ("order.created", "order.updated", "order.unheard"):
            books.publish(Event(event_type, "{}"))
        owed = Counter({name: account.published for name, account in books.accounts.items()})
        assert owed == {"order-processing": 1, "inventory-update": 1, "email-notification": 2}
