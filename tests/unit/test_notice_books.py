"""The books of the distributed queue: whatever is missing, double or too much is named."""

from pathlib import Path

import pytest

from worker.demo.distributed_queue.books import RECORDS, SMS, NoticeBooks
from worker.demo.distributed_queue.stage import ALLOWANCE
from worker.demo.distributed_queue.workers import Counts
from worker.message import Attribute
from worker.settings import load
from worker.source import Depth

SETTINGS = load(Path(__file__).parents[2] / "config/distributed-queue.yaml", environ={})


def kept() -> NoticeBooks:
    """Books of three notices, two of which ask for an SMS, and of workers that did what they should."""
    books = NoticeBooks(SETTINGS, allowance=ALLOWANCE)
    for action in ("sendSMS", "sendEmail", "sendSMS"):
        books.publish("notices", "{}", {"action": Attribute("String", action)})
    books.count({RECORDS: Counts(received=3, handled=3), SMS: Counts(received=2, handled=2)})
    for name, effects in ((RECORDS, 3), (SMS, 2)):
        books.accounts[name].effects, books.accounts[name].depth = effects, Depth(0, 0, 0, 0)
    books.sms.update(["1", "2"])
    books.most_calls = ALLOWANCE
    return books


def test_books_that_balance_have_no_faults() -> None:
    books = kept()
    assert books.faults() == []
    assert (books.published, books.ended) == (5, 5)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"redelivered": {RECORDS: 0, SMS: 2}}, "sms-sending: 2 messages were received that had been received before"),
        ({"rows_again": 1}, "1 rows are of notices that were written down before"),
        ({"most_calls": ALLOWANCE + 1}, "the SMS API had 6 calls at once, and 5 are allowed"),
        ({"calls_refused": 4}, "the SMS API refused 4 calls (429)"),
    ],
)
def test_what_is_double_or_too_much_is_named(changes: dict[str, object], fault: str) -> None:
    books = kept()
    for name, value in changes.items():
        setattr(books, name, value)
    assert books.faults() == [fault]


def test_an_sms_that_is_sent_twice_is_named() -> None:
    books = kept()
    books.sms["1"] += 1
    assert books.faults() == ["1 SMS were sent more than once"]


def test_a_notice_that_nobody_handled_is_named() -> None:
    books = kept()
    books.publish("notices", "{}", {})
    assert books.faults() == ["record-writing: 4 published, but 3 handled and 0 dead-lettered"]


def test_the_api_takes_what_the_fleet_file_says() -> None:
    """Else the demo would prove nothing of the file."""
    assert SETTINGS.limits["sms-api"].concurrency == ALLOWANCE
