"""`longshore demo`: the fleet at work, and its books."""

import asyncio
import io
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtplib import SMTPRecipientsRefused, send
from rich.console import Console

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.demo import Demo, Script, Show
from worker.demo.audit import read_reasons
from worker.demo.books import Account, Books
from worker.demo.customers import Placements
from worker.demo.day import CLOSED_MAILBOX, NO_CREDIT, Change, Day, News, Purchase, poison_in
from worker.demo.mail_server import MailServer
from worker.demo.show import table
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.handlers.events import Order
from worker.message import Attribute
from worker.settings import load
from worker.source import Copy, Depth

pytestmark = pytest.mark.integration

FLEET = Path(__file__).parents[2] / "worker/demo/fleet.yaml"


async def test_the_demo_ends_with_balanced_books_although_the_mail_server_was_down() -> None:
    """Every event ends in its queues, the database, SQS and the mail server agree, and no event order failed."""
    output = io.StringIO()
    script = Script(events=420, mail_seconds=0.05)
    assert await Demo(Show(Console(file=output)), script).run() == 0
    text = output.getvalue()
    assert "books balance" in text
    assert "http://127.0.0.1:" in text
    assert "the payload does not fit Order" in text
    assert "the product is unknown" in text
    assert "the card was declined" in text
    assert "the payment of this order was declined" in text
    assert "payments: " in text
    inline, by_event = (line.split() for line in text.splitlines() if line.startswith(("does everything", "publishes an")))  # fmt: skip
    assert int(inline[-1]) > 0, "no inline order failed: was the mail server down at all?"
    assert by_event[-1] == "0"
    assert "ORDERS_DATABASE" not in os.environ  # it leaves no trace in its process


async def test_every_reason_of_a_fifo_dead_letter_queue_is_read(
    aws_clients: AwsClients, make_queue: Callable[..., Awaitable[str]]
) -> None:
    """Also of a group that one receive cannot carry: SQS gives the rest of it only when the first are gone."""
    queue, account = await make_queue("payments-dlq.fifo"), Account()
    letters = SqsSource(aws_clients, queue, dead_letter=queue)
    for number in range(12):
        why = Attribute("String", json.dumps({"reason": f"for reason {number}"}))
        await letters.dead_letter(Copy("{}", {REASON_ATTRIBUTE: why}, group_id="order-1", deduplication_id=f"{number}"))
    await read_reasons(account, letters)
    assert account.reasons == {f"for reason {number}": 1 for number in range(12)}


class TestBooks:
    """A demo whose books cannot fail would prove nothing."""

    def account(self, **changes: object) -> Account:
        account = Account(published=10, received=12, handled=8, retried=2, dead_lettered=2, effects=8)
        account.depth = Depth(0, 0, 0, dead_letters=2)
        account.poison["the payload does not fit Order"] = 2
        account.reasons["the payload does not fit Order (quantity: int_parsing)"] = 2
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
            (
                {"handled": 7, "effects": 7, "dead_lettered": 3, "depth": Depth(0, 0, 0, 3)},
                "orders: 3 dead-lettered, but 2 events were poison",
            ),
            (
                {"reasons": Counter({"the payload does not fit Order (payload: json_invalid)": 1})},
                "orders: 1 dead-lettered because the payload does not fit Order, but 2 were poison of that kind",
            ),
            (
                {
                    "reasons": Counter(
                        {"the payload does not fit Order (payload: json_invalid)": 2, "the order is not there yet": 1}
                    )
                },
                "orders: 1 dead-lettered that should have been handled: the order is not there yet",
            ),
        ],
    )
    def test_whatever_is_missing_or_too_much_is_named(self, changes: dict[str, object], fault: str) -> None:
        assert self.account(**changes).faults("orders") == [fault]

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"mails_taken": 3}, "the mail server has 3 different mails, but 0 were noted as sent"),
            ({"mails_sent_again": 2}, "2 mails were sent more than once"),
            ({"orders_placed": 3, "orders_published": 2}, "3 orders were placed by event, but 2 were published"),
            ({"orders_failed": 1}, "1 orders could not be placed by event"),
            (
                {"payments": Counter({("captured", "authorized"): 2, ("authorized", "captured"): 7})},
                "2 payments took their steps out of turn: captured, authorized",
            ),
            ({"stock_faults": ["stock of cup: it was 9, but ..."]}, "stock of cup: it was 9, but ..."),
        ],
    )
    def test_mails_orders_payments_and_stock_are_part_of_the_books(
        self, changes: dict[str, object], fault: str
    ) -> None:
        books = Books(load(FLEET, environ={}))
        assert books.faults() == []
        for name, value in changes.items():
            setattr(books, name, value)
        assert books.faults() == [fault]

    def test_an_event_is_owed_to_every_queue_whose_filter_takes_it(self) -> None:
        """As SNS would: by prefix, by name, by what it is not, and by a number."""
        books = Books(load(FLEET, environ={}))
        cheap, dear = (Attribute("Number", amount) for amount in ("20", "300"))
        for event_type, more in (
            ("order.created", {"amount": cheap}),
            ("order.created", {"amount": dear}),
            ("order.updated", {}),
            ("order.archived", {}),
        ):
            order = Order(
                order_id="order-1",
                user_id="user-1",
                email="user-1@customers.example",
                product="cup",
                quantity=1,
                amount=Decimal(20),
            ).model_dump_json()
            books.publish("order-events", order, {"event_type": Attribute("String", event_type), **more})
        owed = Counter({name: account.published for name, account in books.accounts.items()})
        assert owed == {
            "order-processing": 4,
            "inventory-update": 2,
            "email-notification": 2,
            "analytics-tracking": 3,
            "fraud-check": 1,
            "payment-processing.fifo": 2,  # the outbox owes it a request for each order that is written down
        }

    def test_an_event_is_owed_to_the_queues_of_its_topic_only(self) -> None:
        books = Books(load(FLEET, environ={}))
        payment = json.dumps({"order_id": "order-1", "user_id": "user-1", "amount": "20"})
        books.publish("order-payments.fifo", payment, {"event_type": Attribute("String", "payment.requested")})
        owed = {name: account.published for name, account in books.accounts.items() if account.published}
        assert owed == {"payment-processing.fifo": 1}
        assert books.accounts["payment-processing.fifo"].poison == {}

    @pytest.mark.parametrize(
        ("queue", "event_type", "changes", "why"),
        [
            ("order-processing", "order.archived", {}, "unknown event type"),
            ("analytics-tracking", "order.archived", {}, None),
            ("inventory-update", "order.created", {"product": "samovar"}, "the product is unknown"),
            ("email-notification", "order.created", {"product": "samovar"}, None),
            ("email-notification", "order.created", {"email": CLOSED_MAILBOX}, "the mail server refused the recipient"),
            ("fraud-check", "order.created", {"quantity": "many"}, "the payload does not fit Order"),
            ("fraud-check", "order.created", {}, None),
            ("fraud-check", "order.created", {"user_id": NO_CREDIT}, None),
            ("payment-processing.fifo", "payment.requested", {}, None),
            ("payment-processing.fifo", "payment.requested", {"user_id": NO_CREDIT}, "the card was declined"),
            (
                "payment-processing.fifo",
                "payment.cancelled",
                {"user_id": NO_CREDIT},
                "the payment of this order was declined",
            ),
        ],
    )
    def test_poison_is_known_by_queue(
        self, queue: str, event_type: str, changes: dict[str, str], why: str | None
    ) -> None:
        """Whatever else is dead-lettered is a fault."""
        order = {"quantity": 1, "product": "cup", "user_id": "user-1", "email": "user-1@customers.example"}
        assert poison_in(queue, event_type, json.dumps(order | changes)) == why
        assert poison_in(queue, event_type, "<order>") == "the payload does not fit Order"


def test_the_table_fits_80_columns() -> None:
    """Of a day with four digits in every queue, and lags of tens of seconds."""
    books = Books(load(FLEET, environ={}))
    for account in books.accounts.values():
        account.published = account.received = account.handled = account.retried = account.dead_lettered = 2_500
        for lag in (account.lag, account.lag_in_outage):
            lag.observe(29)
    output = io.StringIO()
    Console(file=output, width=200).print(table(books))
    lines = output.getvalue().splitlines()
    assert "2,500" in lines[-1]
    assert max(len(line.rstrip()) for line in lines) <= 80


class TestDay:
    """What happens in the shop is drawn, but not left to chance."""

    def test_all_five_events_and_all_six_poisons_happen(self) -> None:
        day, types, poisons = Day(), Counter[str](), 0
        unpaid = 0
        for number in range(1, 2001):
            match day.next(number):
                case Purchase(is_poison=poison) as purchase:
                    types["order.created"] += 1
                    poisons += poison
                    unpaid += purchase.body["user_id"] == NO_CREDIT
                    day.placed(purchase, f"order-{number}")
                case Change(event_type=event_type) | News(event_type=event_type):
                    types[event_type] += 1
        assert set(types) == {
            "order.created",
            "order.updated",
            "order.cancelled",
            "order.shipped",
            "order.delivered",
            "order.archived",
        }
        assert (poisons, unpaid) == (10, 5)
        assert types["order.archived"] == 5

    def test_nothing_becomes_of_an_order_twice(self) -> None:
        """Effects are counted by order and event type, so the demo publishes each pair once."""
        day, seen = Day(), Counter[tuple[str, str]]()
        for number in range(1, 2001):
            event = day.next(number)
            if isinstance(event, Purchase):
                day.placed(event, f"order-{number}")
            elif isinstance(event, Change):
                seen[event.event_type, event.order.order_id] += 1
        assert set(seen.values()) == {1}

    def test_an_order_that_is_not_paid_is_the_next_to_be_cancelled(self) -> None:
        """While the refusal of its payment may still be on its way."""
        day, cancelled = Day(), []
        unpaid = None
        for number in range(1, 2001):
            match day.next(number):
                case Purchase() as purchase:
                    day.placed(purchase, f"order-{number}")
                    unpaid = f"order-{number}" if purchase.body["user_id"] == NO_CREDIT else unpaid
                case Change(event_type, order) if unpaid is not None:
                    assert (event_type, order.order_id) == ("order.cancelled", unpaid)
                    cancelled.append(unpaid)
                    unpaid = None
        assert len(cancelled) == 5

    def test_an_attribute_tells_the_amount_of_poisoned_orders(self) -> None:
        """They must get as far as the queues that filter by it."""
        events = [Day().next(number) for number in (198, 264)]
        assert all(isinstance(event, News) and event.attributes["amount"] >= Decimal(5) for event in events)


class TestMailServer:
    """It speaks SMTP, and is down when it says so."""

    def mail(self, to: str = "user-1@customers.example") -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Message-ID"] = "shop@shop.example", to, "<1@shop.example>"
        return mail

    async def test_it_takes_a_mail_and_knows_it_again(self) -> None:
        async with MailServer(latency_seconds=0) as server:
            for _ in range(2):
                await send(self.mail(), hostname="127.0.0.1", port=server.port)
        assert server.received == {"<1@shop.example>": 2}

    async def test_a_closed_mailbox_is_refused_for_good(self) -> None:
        async with MailServer(latency_seconds=0, closed=frozenset({CLOSED_MAILBOX})) as server:
            with pytest.raises(SMTPRecipientsRefused):
                await send(self.mail(CLOSED_MAILBOX), hostname="127.0.0.1", port=server.port)

    async def test_while_it_is_down_nobody_answers_and_then_it_is_where_it_was(self) -> None:
        async with MailServer(latency_seconds=0) as server:
            port = server.port
            server.down()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            await server.up()
            await send(self.mail(), hostname="127.0.0.1", port=port)
        assert len(server.received) == 1


def test_a_quantile_of_placements_is_one_of_them() -> None:
    assert Placements([0.4, 0.1, 0.3, 0.2]).quantile(0.5) == 0.2
    assert Placements([0.4, 0.1, 0.3, 0.2]).quantile(0.99) == 0.4
    assert Placements().quantile(0.5) is None
