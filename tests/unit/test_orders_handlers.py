"""The example fleet's handlers, one event at a time: every effect once, every failure for a reason."""

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from support.mailbox import Mailbox

from worker import Ack, ConfigError, DeadLetter, Outcome, Retry, Router
from worker.handlers.database import Database
from worker.handlers.events import CHANGES, PAYMENT_EVENTS, Order, Payment
from worker.handlers.mail import Mailer
from worker.handlers.orders import Shop, analytics, email, fraud, inventory, payments, processing
from worker.testing import FakeLease, run

pytestmark = pytest.mark.real_time

ORDER = Order(
    order_id="order-000001",
    user_id="user-1",
    email="ann@shop.example",
    product="tea",
    quantity=2,
    amount=Decimal("9.90"),
)
EFFECTS = [
    (processing, "orders"),
    (inventory, "reservations"),
    (email, "mails"),
    (analytics, "analytics"),
    (fraud, "fraud_checks"),
    (payments, "payment_steps"),
]


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
async def shop(tmp_path: Path, mailbox: Mailbox) -> AsyncIterator[Shop]:
    """A shop with tea on its shelf, coffee that is being counted, and customers with cards of every kind."""
    async with Database(f"sqlite:///{tmp_path}/orders.sqlite") as database:
        await database.stock_up({"tea": 100, "coffee": 100}, counting="coffee", counted_until=time.time() + 1_000)
        await database.ledger.know_cards(declined=["poor"], busy=["user-b"], busy_until=time.time() + 1_000)
        yield Shop(database, Mailer(mailbox.url))


def news_for(router: Router, event_type: str, order: Order = ORDER) -> tuple[str, Order | Payment]:
    """What a router hears of an order: of `payments` what the event means for the order's payment."""
    return (PAYMENT_EVENTS[event_type], Payment.of(order)) if router is payments else (event_type, order)


async def deliver(router: Router, shop: Shop, event_type: str = "order.created", **changes: object) -> Outcome:
    """Take one event through a router."""
    event_type, event = news_for(router, event_type, ORDER.model_copy(update=changes))
    return await run(router, event, event_type=event_type, state=shop)


async def query(shop: Shop, statement: str) -> list[tuple[object, ...]]:
    """Run a statement in the orders' database."""

    def work(connection: Connection) -> list[tuple[object, ...]]:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []

    return await shop.database.run(work)


async def stored(shop: Shop) -> list[tuple[object, ...]]:
    """Return what the outbox holds."""
    return await query(shop, "SELECT topic, event_type, group_id, deduplication_id FROM longshore_outbox ORDER BY id")


@pytest.mark.parametrize(("router", "table"), EFFECTS)
async def test_a_message_that_comes_twice_has_one_effect(shop: Shop, router: Router, table: str) -> None:
    assert [await deliver(router, shop) for _ in range(2)] == [Ack(), Ack()]
    assert await shop.database.count(table) == 1


@pytest.mark.parametrize(("router", "table"), EFFECTS)
async def test_a_message_that_comes_many_times_at_once_has_one_effect(shop: Shop, router: Router, table: str) -> None:
    """The database's unique key decides, not a look beforehand."""
    outcomes = await asyncio.gather(*(deliver(router, shop) for _ in range(10)))
    assert outcomes == [Ack()] * 10
    assert await shop.database.count(table) == 1
    assert await shop.database.in_stock("tea") == (98 if router is inventory else 100)


@pytest.mark.parametrize(("router", "table"), EFFECTS)
async def test_the_lifespan_opens_what_the_environment_names(
    router: Router, table: str, tmp_path: Path, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/named.sqlite"
    monkeypatch.setenv("ORDERS_DATABASE", url)
    monkeypatch.setenv("ORDERS_SMTP", mailbox.url)
    async with Database(url) as database:
        await database.stock_up({"tea": 100})
        event_type, event = news_for(router, "order.created")
        assert await run(router, event, event_type=event_type) == Ack()
        assert await database.count(table) == 1


class TestProcessing:
    @pytest.mark.parametrize("change", CHANGES)
    async def test_what_becomes_of_an_order_is_written_beside_it(self, shop: Shop, change: str) -> None:
        await deliver(processing, shop)
        assert [await deliver(processing, shop, change) for _ in range(2)] == [Ack(), Ack()]
        assert await shop.database.count("order_changes") == 1

    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_change_that_overtakes_its_order_waits_for_it(self, shop: Shop, change: str) -> None:
        assert await deliver(processing, shop, change) == Retry(reason="the order is not there yet")
        await deliver(processing, shop)
        assert await deliver(processing, shop, change) == Ack()

    async def test_what_it_means_for_the_payment_is_stored_with_it(self, shop: Shop) -> None:
        """Once, in order, under the order's group; what has no business with the payment is not announced to it."""
        for event_type in ("order.created", *CHANGES) * 2:
            assert await deliver(processing, shop, event_type) == Ack()
        assert await stored(shop) == [
            ("order-payments.fifo", "payment.requested", "order-000001", "order-000001:payment.requested"),
            ("order-payments.fifo", "payment.cancelled", "order-000001", "order-000001:payment.cancelled"),
            ("order-payments.fifo", "payment.claimed", "order-000001", "order-000001:payment.claimed"),
        ]

    async def test_a_change_that_waits_for_its_order_stores_nothing(self, shop: Shop) -> None:
        """Neither a mark nor an event: the next try is the first."""
        await deliver(processing, shop, "order.shipped")
        assert await stored(shop) == []
        assert await query(shop, "SELECT count(*) FROM longshore_inbox") == [(0,)]

    async def test_without_its_event_an_order_is_not_written_down(self, shop: Shop) -> None:
        """And the other way round: one transaction."""
        await query(shop, "DROP TABLE longshore_outbox")
        assert isinstance(await deliver(processing, shop), Retry)
        assert await shop.database.count("orders") == 0
        assert await query(shop, "SELECT count(*) FROM longshore_inbox") == [(0,)]

    async def test_who_lost_the_lease_writes_nothing(self, shop: Shop) -> None:
        outcome = await run(processing, ORDER, event_type="order.created", state=shop, lease=FakeLease(is_lost=True))
        assert isinstance(outcome, Retry)
        assert await shop.database.count("orders") == 0
        assert await stored(shop) == []

    async def test_an_event_type_that_is_yet_to_be_invented_is_unknown(self, shop: Shop) -> None:
        """Its queue's `unknown_event` says what becomes of it."""
        with pytest.raises(ConfigError, match=r"no handler takes an event with the event type 'order\.archived'"):
            await deliver(processing, shop, "order.archived")

    @pytest.mark.parametrize(
        ("wrong", "fault"),
        [
            ({"quantity": 0}, "quantity: greater_than_equal"),
            ({"quantity": 2**40}, "quantity: less_than_equal"),
            ({"amount": "-1"}, "amount: greater_than_equal"),
            ({"amount": "NaN"}, "amount: finite_number"),
            ({"amount": "0.001"}, "amount: decimal_max_places"),
            ({"email": "a@b\r\nBcc: c@d"}, "email: string_pattern_mismatch"),
            ({"order_id": "a\0b"}, "order_id: string_pattern_mismatch"),
            ({"user_id": ""}, "user_id: string_too_short"),
        ],
    )
    async def test_what_is_no_order_is_dead_lettered(self, shop: Shop, wrong: dict[str, object], fault: str) -> None:
        """What no database and no mail could carry never gets that far."""
        event = {**ORDER.model_dump(mode="json"), **wrong}
        outcome = await run(processing, event, event_type="order.created", state=shop)
        assert outcome == DeadLetter(f"the payload does not fit Order ({fault})")


class TestInventory:
    async def test_stock_is_taken_once(self, shop: Shop) -> None:
        for _ in range(3):
            await deliver(inventory, shop)
        assert await shop.database.in_stock("tea") == 98
        assert await shop.database.total_reserved("tea") == 2

    async def test_an_unknown_product_can_never_be_reserved(self, shop: Shop) -> None:
        assert await deliver(inventory, shop, product="gold") == DeadLetter("the product is unknown")
        assert await shop.database.count("reservations") == 0

    async def test_what_is_sold_out_is_dead_lettered_and_nothing_is_taken(self, shop: Shop) -> None:
        assert await deliver(inventory, shop, quantity=101) == DeadLetter("the product is sold out")
        assert await shop.database.in_stock("tea") == 100
        assert await shop.database.count("reservations") == 0

    async def test_a_stocktake_is_waited_for(self, shop: Shop) -> None:
        """The message comes back when the counting is over, and not sooner."""
        outcome = await deliver(inventory, shop, product="coffee")
        assert isinstance(outcome, Retry)
        assert outcome.reason == "the product is being counted"
        assert outcome.after is not None
        assert 0 < outcome.after <= 1_000
        assert await shop.database.count("reservations") == 0


class TestEmail:
    async def test_each_news_is_mailed_once(self, shop: Shop, mailbox: Mailbox) -> None:
        for event_type in ("order.created", "order.cancelled", "order.shipped") * 2:
            assert await deliver(email, shop, event_type) == Ack()
        assert len(mailbox.ids) == len(set(mailbox.ids)) == 3

    async def test_a_refusal_for_now_is_tried_again(self, shop: Shop, mailbox: Mailbox) -> None:
        mailbox.refusals[ORDER.email] = "451 later"
        assert await deliver(email, shop) == Retry(reason="the mail server refused the recipient for now (451)")
        assert await shop.database.count("mails") == 0
        mailbox.refusals.clear()
        assert await deliver(email, shop) == Ack()

    async def test_a_refusal_for_good_is_dead_lettered(self, shop: Shop, mailbox: Mailbox) -> None:
        mailbox.refusals[ORDER.email] = "550 no such user"
        assert await deliver(email, shop) == DeadLetter("the mail server refused the recipient (550)")

    async def test_a_mail_server_that_is_down_is_waited_for(self, shop: Shop, mailbox: Mailbox) -> None:
        await mailbox.__aexit__(None, None, None)
        assert await deliver(email, shop) == Retry(reason="the mail server cannot be reached (SMTPConnectError)")
        async with mailbox:
            assert await deliver(email, shop) == Ack()
        assert await shop.database.count("mails") == 1


async def test_every_event_counts_in_the_analytics(shop: Shop) -> None:
    """Also one of a type that nobody knows yet."""
    for event_type in ("order.created", *CHANGES, "order.returned"):
        assert await deliver(analytics, shop, event_type) == Ack()
    assert await shop.database.count("analytics") == 6


class TestPayments:
    async def test_money_is_held_taken_and_given_back(self, shop: Shop) -> None:
        for event_type in ("order.created", "order.shipped", "order.cancelled") * 2:
            assert await deliver(payments, shop, event_type) == Ack()
        assert await shop.database.ledger.histories() == {("authorized", "captured", "refunded"): 1}

    async def test_a_busy_bank_is_waited_for(self, shop: Shop) -> None:
        """The message comes back when the bank has time, and not sooner."""
        outcome = await deliver(payments, shop, user_id="user-b")
        assert isinstance(outcome, Retry)
        assert outcome.reason == "the bank is busy"
        assert outcome.after is not None
        assert 0 < outcome.after <= 1_000
        assert await shop.database.count("payments") == 0

    async def test_a_declined_card_is_dead_lettered_and_so_is_what_follows(self, shop: Shop) -> None:
        """However often each comes: whoever sends off an order that nobody has paid is told."""
        for event_type, why in (
            ("order.created", "the card was declined"),
            ("order.shipped", "the payment of this order was declined"),
            ("order.cancelled", "the payment of this order was declined"),
        ):
            for _ in range(2):
                assert await deliver(payments, shop, event_type, user_id="poor") == DeadLetter(why)
        assert await shop.database.count("payment_steps") == 0

    @pytest.mark.parametrize(
        ("before", "event_type", "why"),
        [
            ([], "order.shipped", "a payment that was never authorized cannot be captured"),
            ([], "order.cancelled", "a payment that was never authorized cannot be refunded"),
            (["order.created", "order.cancelled"], "order.shipped", "a payment that was refunded cannot be captured"),
        ],
    )
    async def test_a_step_out_of_turn_is_dead_lettered_at_once(
        self, shop: Shop, before: list[str], event_type: str, why: str
    ) -> None:
        """Waiting would not help: what has not come before it in its group never will."""
        for earlier in before:
            await deliver(payments, shop, earlier)
        assert await deliver(payments, shop, event_type) == DeadLetter(why)
        assert await shop.database.count("payment_steps") == len(before)
