"""The orders' database: every rule holds on SQLite and, when asked for (`-m postgres`), on PostgreSQL."""

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from support.postgres import Postgres

from worker import LongshoreError, TransientError, UsageError
from worker.handlers import opening
from worker.handlers.database import Database, SoldOutError, StocktakeError, UnknownOrderError, UnknownProductError
from worker.handlers.events import Order, Payment
from worker.handlers.ledger import BankBusyError, DeclinedError, OutOfTurnError
from worker.handlers.tables import METADATA

pytestmark = pytest.mark.integration

Verb = Callable[[Database, Order], Awaitable[bool]]
VERBS: dict[str, Verb] = {
    "orders": Database.record_order,
    "order_changes": lambda database, order: database.record_change("order.shipped", order),
    "reservations": Database.reserve,
    "mails": lambda database, order: database.record_mail("order.created", order.order_id),
    "analytics": lambda database, order: database.track("order.created", order),
    "fraud_checks": Database.check_fraud,
    "payment_steps": lambda database, order: database.ledger.authorize(Payment.of(order)),
}


def an_order(number: int = 1, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "order_id": f"order-{number:06}",
        "user_id": "user-1",
        "email": "ann@shop.example",
        "product": "tea",
        "quantity": 2,
        "amount": Decimal("9.90"),
    }
    return Order(**{**fields, **changes})


@pytest.fixture
async def database(orders_url: str) -> AsyncIterator[Database]:
    async with Database(orders_url) as database:
        await database.stock_up({"tea": 100, "coffee": 100}, counting="coffee", counted_until=time.time() + 1_000)
        yield database


@pytest.fixture
async def another(orders_url: str, database: Database) -> AsyncIterator[Database]:  # noqa: ARG001 - opened after the first
    """What a second process has: connections of its own to the same database."""
    async with Database(orders_url) as another:
        yield another


async def rows(database: Database, table: str) -> list[Any]:
    return await database._store.run(lambda connection: list(connection.execute(select(METADATA.tables[table]))))


@pytest.mark.parametrize("table", VERBS)
async def test_a_verb_writes_once_and_says_whether_it_wrote(database: Database, table: str) -> None:
    await database.record_order(an_order(2))
    order = an_order() if table == "orders" else an_order(2)
    assert [await VERBS[table](database, order) for _ in range(3)] == [True, False, False]
    assert await database.count(table) == (2 if table == "orders" else 1)


@pytest.mark.parametrize("table", VERBS)
async def test_a_verb_writes_once_whoever_else_writes_it_at_the_same_time(
    database: Database, another: Database, table: str
) -> None:
    """Twenty calls from two processes: one wrote."""
    if table != "orders":
        await database.record_order(an_order())
    wrote = await asyncio.gather(*(VERBS[table](one, an_order()) for one in (database, another) * 10))
    assert sorted(wrote) == [False] * 19 + [True]
    assert await database.count(table) == 1


async def test_one_row_for_each_order_and_event_type(database: Database) -> None:
    for number in (1, 2):
        await database.record_order(an_order(number))
        for event_type in ("order.updated", "order.shipped"):
            assert await database.record_change(event_type, an_order(number))
            assert await database.record_mail(event_type, an_order(number).order_id)
            assert await database.track(event_type, an_order(number))
    assert [await database.count(table) for table in ("order_changes", "mails", "analytics")] == [4, 4, 4]


async def test_an_order_that_comes_between_two_statements_is_not_its_change(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL shows it to the second statement only; the change is not written, so it must be tried again."""
    await database.record_order(an_order())
    monkeypatch.setattr("worker.handlers.database._wrote", lambda *_: False)
    with pytest.raises(UnknownOrderError):
        await database.record_change("order.shipped", an_order())


async def test_a_change_needs_its_order(database: Database) -> None:
    with pytest.raises(UnknownOrderError):
        await database.record_change("order.shipped", an_order())
    assert await database.count("order_changes") == 0


async def test_a_mail_is_known_once_it_is_recorded(database: Database) -> None:
    assert not await database.was_mailed("order.created", "order-000001")
    await database.record_mail("order.created", "order-000001")
    assert await database.was_mailed("order.created", "order-000001")
    assert not await database.was_mailed("order.shipped", "order-000001")


async def test_stock_and_reservations_change_together(database: Database) -> None:
    """Whatever is refused leaves neither."""
    assert await database.reserve(an_order(1, quantity=60))
    with pytest.raises(SoldOutError):
        await database.reserve(an_order(2, quantity=41))
    with pytest.raises(UnknownProductError):
        await database.reserve(an_order(3, product="gold"))
    with pytest.raises(StocktakeError) as counting:
        await database.reserve(an_order(4, product="coffee"))
    assert 0 < counting.value.seconds_left <= 1_000
    assert await database.count("reservations") == 1
    assert (await database.in_stock("tea"), await database.total_reserved("tea")) == (40, 60)
    assert (await database.in_stock("coffee"), await database.total_reserved("coffee")) == (100, 0)


async def test_stock_is_never_oversold(database: Database, another: Database) -> None:
    """Sixty orders of two at once, from two processes, for a hundred pieces."""
    orders = [an_order(number) for number in range(60)]
    ended = await asyncio.gather(
        *(one.reserve(order) for one, order in zip((database, another) * 30, orders, strict=True)),
        return_exceptions=True,
    )
    assert [type(one) for one in ended if one is not True] == [SoldOutError] * 10
    assert (await database.in_stock("tea"), await database.total_reserved("tea")) == (0, 100)


async def test_a_reservation_that_there_is_needs_no_stock(database: Database) -> None:
    """A message that comes again after the shelf was emptied has its reservation still."""
    await database.reserve(an_order(1, quantity=100))
    assert await database.reserve(an_order(1, quantity=100)) is False


async def test_stock_is_filled_up_once(database: Database) -> None:
    await database.reserve(an_order())
    await database.stock_up({"tea": 100, "milk": 5})
    assert [await database.in_stock(product) for product in ("tea", "milk")] == [98, 5]


async def test_a_stocktake_ends(orders_url: str) -> None:
    async with Database(orders_url) as database:
        await database.stock_up({"tea": 5}, counting="tea", counted_until=time.time() - 1)
        assert await database.reserve(an_order())


async def test_a_user_who_orders_for_much_is_reviewed(database: Database) -> None:
    """One large order, or many that together are: from the order that goes beyond the limit on."""
    for number in range(1, 4):
        await database.check_fraud(an_order(number, amount=Decimal("450.00")))
    await database.check_fraud(an_order(4, user_id="user-2", amount=Decimal("1000.00")))
    await database.check_fraud(an_order(5, user_id="user-3", amount=Decimal("1000.01")))
    verdicts = {row.order_id[-1]: row.verdict for row in await rows(database, "fraud_checks")}
    assert verdicts == {"1": "clear", "2": "clear", "3": "review", "4": "clear", "5": "review"}


def a_payment(number: int = 1, **changes: Any) -> Payment:
    return Payment.of(an_order(number, **changes))


async def test_a_payment_goes_step_by_step(database: Database) -> None:
    """A step that comes again, however late, changes nothing."""
    ledger, payment = database.ledger, a_payment()
    for step in (ledger.authorize, ledger.capture, ledger.refund):
        assert [await step(payment) for _ in range(2)] == [True, False]
    assert [await step(payment) for step in (ledger.authorize, ledger.capture, ledger.refund)] == [False] * 3
    assert await ledger.histories() == {("authorized", "captured", "refunded"): 1}


async def test_money_that_is_only_held_can_be_given_back(database: Database) -> None:
    await database.ledger.authorize(a_payment())
    assert await database.ledger.refund(a_payment())
    with pytest.raises(OutOfTurnError, match="a payment that was refunded cannot be captured"):
        await database.ledger.capture(a_payment())
    assert await database.ledger.histories() == {("authorized", "refunded"): 1}


async def test_no_step_comes_before_its_turn(database: Database) -> None:
    ledger = database.ledger
    with pytest.raises(OutOfTurnError, match="a payment that was never authorized cannot be captured"):
        await ledger.capture(a_payment())
    with pytest.raises(OutOfTurnError, match="a payment that was never authorized cannot be refunded"):
        await ledger.refund(a_payment())
    assert await database.count("payment_steps") == 0


async def test_no_more_is_taken_than_is_held(database: Database) -> None:
    await database.ledger.authorize(a_payment(amount=Decimal("9.90")))
    for step in (database.ledger.capture, database.ledger.refund):
        with pytest.raises(OutOfTurnError, match="a payment of another amount cannot be"):
            await step(a_payment(amount=Decimal("9.91")))
    assert await database.ledger.histories() == {("authorized",): 1}


async def test_of_capture_and_refund_at_the_same_time_none_comes_out_of_turn(
    database: Database, another: Database
) -> None:
    """From two processes, thirty times: a capture is in time or refused, and never follows the refund."""
    for number in range(30):
        payment = a_payment(number)
        await database.ledger.authorize(payment)
        await asyncio.gather(database.ledger.refund(payment), another.ledger.capture(payment), return_exceptions=True)
    histories = await database.ledger.histories()
    assert histories.total() == 30
    assert set(histories) <= {("authorized", "captured", "refunded"), ("authorized", "refunded")}


async def test_each_order_has_a_payment_of_its_own(database: Database) -> None:
    for number in (1, 2):
        await database.ledger.authorize(a_payment(number))
    await database.ledger.capture(a_payment(2))
    assert await database.ledger.histories() == {("authorized",): 1, ("authorized", "captured"): 1}


async def test_a_bank_that_is_busy_is_asked_again(database: Database) -> None:
    await database.ledger.know_cards(busy=["user-1"], busy_until=time.time() + 1_000)
    await database.ledger.know_cards(busy=["user-2"], busy_until=time.time() - 1)
    with pytest.raises(BankBusyError) as busy:
        await database.ledger.authorize(a_payment())
    assert 0 < busy.value.seconds_left <= 1_000
    assert [await database.count(table) for table in ("payments", "payment_steps")] == [0, 0]
    assert await database.ledger.authorize(a_payment(2, user_id="user-2"))


async def test_what_the_bank_has_said_stands(database: Database, another: Database) -> None:
    """Twenty deliveries at once, and then the card is good, or the bank busy: the first answer counts."""
    await database.ledger.know_cards(declined=["poor"], busy=["user-2"], busy_until=time.time() - 1)
    poor, good = a_payment(user_id="poor"), a_payment(2, user_id="user-2")
    ledgers = (database.ledger, another.ledger)
    answers = await asyncio.gather(*(one.authorize(poor) for one in ledgers * 10), return_exceptions=True)
    assert {type(answer) for answer in answers} == {DeclinedError}
    await database.ledger.authorize(good)
    await change_card(database, "poor", is_declined=False)
    await change_card(database, "user-2", is_declined=True)
    with pytest.raises(DeclinedError, match="the card was declined"):
        await database.ledger.authorize(poor)
    with pytest.raises(DeclinedError, match="the payment of this order was declined"):
        await database.ledger.capture(poor)
    assert await database.ledger.authorize(good) is False
    assert await database.ledger.histories() == {("authorized",): 1}


async def change_card(database: Database, user: str, *, is_declined: bool) -> None:
    cards = METADATA.tables["cards"]
    statement = update(cards).where(cards.c.user_id == user).values(is_declined=is_declined)
    await database._store.run(lambda connection: connection.execute(statement))


async def test_money_is_kept_to_the_cent(database: Database) -> None:
    await database.record_order(an_order(amount=Decimal("9999999999.99")))
    (row,) = await rows(database, "orders")
    assert row.amount_cents == 999_999_999_999


async def test_times_are_in_utc(database: Database) -> None:
    await database.record_order(an_order())
    (row,) = await rows(database, "orders")
    assert row.recorded_at.tzinfo is not None
    assert row.recorded_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - row.recorded_at) < timedelta(days=1) / 2  # a time zone would show
    shelf = {row.product: row.counted_until for row in await rows(database, "stock")}
    assert shelf["tea"] is None
    assert shelf["coffee"].utcoffset() == timedelta(0)


async def test_many_may_open_a_new_database_at_once(orders_url: str) -> None:
    """As six routers of a process do at its start."""

    async def use() -> None:
        async with Database(orders_url) as database:
            await database.stock_up({"tea": 1})

    await asyncio.gather(*(use() for _ in range(8)))
    async with Database(orders_url) as database:
        assert await database.count("stock") == 1


async def test_many_may_open_a_new_file_at_once_however_often(tmp_path: Path) -> None:
    """SQLite answers "locked" at once when two switch a file to WAL, now and then."""
    for attempt in range(40):
        async with AsyncExitStack() as stack:
            url = f"sqlite:///{tmp_path}/{attempt}.sqlite"
            await asyncio.gather(*(stack.enter_async_context(Database(url)) for _ in range(8)))


async def test_two_processes_may_open_a_new_database_at_once(orders_url: str) -> None:
    script = (
        "import asyncio, sys\nfrom worker.handlers.database import Database\n"
        "async def main():\n    async with Database(sys.argv[1]) as database:\n        await database.stock_up({'tea': 1})\n"
        "asyncio.run(main())"
    )
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", script, orders_url) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]


async def test_a_cancelled_verb_is_done_or_not_done(database: Database) -> None:
    """Handlers run into timeouts at any moment; the database goes on, and stock and reservations still agree."""
    for turns in range(40):
        task = asyncio.ensure_future(database.reserve(an_order(turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    reserved = await database.total_reserved("tea")
    assert await database.in_stock("tea") == 100 - reserved
    assert await database.reserve(an_order(99))


async def test_a_row_that_is_refused_is_not_quoted(database: Database) -> None:
    """What the database says of it could hold an order; it would stand in the log."""
    with pytest.raises(LongshoreError, match=r"^the orders' database refuses a statement \(\w+\)$") as caught:
        await database.stock_up({"secret": -1})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_what_is_no_table_cannot_be_counted(database: Database) -> None:
    with pytest.raises(KeyError):
        await database.count("orders; DROP TABLE orders")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "orders.sqlite",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///orders.sqlite",
        "mysql://shop:secret@db/orders",
        "postgresql://shop:secret@db",
        "postgresql://shop:secret@db:port/orders",
        "postgresql://shop:s@secret@db/orders",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(
        UsageError, match=r"^the address of the orders' database .*; allowed is one such as sqlite:///"
    ) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown", "cause"),
    [
        (
            "sqlite:////no/such/folder/orders.sqlite",
            "sqlite:////no/such/folder/orders.sqlite",
            "OperationalError: unable",
        ),
        ("postgresql://shop:secret@127.0.0.1:1/orders", "postgresql://127.0.0.1:1/orders", "ConnectionRefusedError: "),
    ],
)
async def test_a_database_that_cannot_be_opened_is_told_in_a_sentence(url: str, shown: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        await Database(url).__aenter__()
    sentence = str(caught.value)
    assert sentence.startswith(f"the orders' database {shown} cannot be opened ({cause}")
    assert sentence.endswith("; start it, or correct its address")
    assert "secret" not in sentence


async def test_a_file_that_is_no_database_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing that SQLite could read " * 100)
    with pytest.raises(UsageError, match=r"cannot be opened \(DatabaseError: file is not a database\)"):
        await Database(f"sqlite:///{path}").__aenter__()


async def test_a_database_whose_lock_is_held_too_long_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_SQLITE_PRAGMAS", ("busy_timeout=1", "journal_mode=WAL"))
    path = tmp_path / "orders.sqlite"
    async with Database(f"sqlite:///{path}") as database:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TransientError, match=r"^the orders' database does not answer \(OperationalError\)$"):
                await database.record_order(an_order())
            assert await database.count("orders") == 0  # who only reads waits for nobody
            other.execute("ROLLBACK")
        other.close()
        assert await database.record_order(an_order())


@pytest.mark.postgres
async def test_a_server_that_went_away_is_tried_again(postgres: Postgres) -> None:
    """The pool finds out, the verb is transient, and the next has a connection again."""
    url = await postgres.make_database()
    async with Database(url) as database:
        await database.stock_up({"tea": 1})
        operator = await postgres.connect("postgres")
        name = url.rpartition("/")[2]
        await operator.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1", name)
        await operator.close()
        with pytest.raises(TransientError, match=r"^the orders' database does not answer \(\w+\)$"):
            await database.record_order(an_order())
        assert await database.record_order(an_order())


@pytest.mark.postgres
async def test_a_wrong_password_is_told_and_not_quoted(postgres: Postgres) -> None:
    url = (await postgres.make_database()).replace("p%40ss", "secret")
    with pytest.raises(UsageError, match=r"\(InvalidPasswordError: password authentication failed for user") as caught:
        await Database(url).__aenter__()
    assert "secret" not in str(caught.value)
