"""The tables of the orders' database, and the statements of its verbs, built once for each kind of database.

Every effect of an event is one row with a unique key, so that writing it twice writes it once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Executable,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    update,
)

__all__ = ["METADATA", "REVIEW_CENTS", "Statements"]

REVIEW_CENTS = 100_000
"""A user whose orders cost more than this in all is looked at by a human."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, with its time zone also where the database (SQLite) knows none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into what the database keeps."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Turn what the database kept into an aware moment."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


METADATA = MetaData()


def _key(name: str) -> Column[str]:
    return Column(name, String, primary_key=True)


def _text(name: str, *, index: bool = False) -> Column[str]:
    return Column(name, String, nullable=False, index=index)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _cents() -> Column[int]:
    return Column("amount_cents", BigInteger, nullable=False)


def _at(name: str) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=False, server_default=func.now())


orders = Table(
    *("orders", METADATA, _key("order_id"), _text("user_id"), _text("product"), _number("quantity"), _cents()),
    _at("recorded_at"),
)
order_changes = Table("order_changes", METADATA, _key("order_id"), _key("event_type"), _at("recorded_at"))
stock = Table(
    *("stock", METADATA, _key("product"), _number("quantity"), Column("counted_until", UtcDateTime)),
    CheckConstraint("quantity >= 0", name="stock_is_never_oversold"),
)
reservations = Table(
    *("reservations", METADATA, _key("order_id"), _text("product", index=True), _number("quantity")), _at("reserved_at")
)
cards = Table(
    *("cards", METADATA, _key("user_id"), Column("is_declined", Boolean, nullable=False)),
    Column("busy_until", UtcDateTime),
)
payments = Table(
    *("payments", METADATA, _key("order_id"), _text("user_id"), _cents(), _text("state")),
    _at("opened_at"),
)
payment_steps = Table(
    *("payment_steps", METADATA),
    Column("entry", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    *(_text("order_id"), _text("step"), _at("entered_at")),
    UniqueConstraint("order_id", "step", name="a_step_is_taken_once"),
)
mails = Table("mails", METADATA, _key("order_id"), _key("event_type"), _at("sent_at"))
analytics = Table("analytics", METADATA, _key("order_id"), _key("event_type"), _cents(), _at("tracked_at"))
fraud_checks = Table(
    *("fraud_checks", METADATA, _key("order_id"), _text("user_id", index=True), _cents(), _text("verdict")),
    _at("checked_at"),
)


def _is(column: Column[str]) -> Any:
    """Compare the column with the parameter of its name."""
    return column == bindparam(column.name, type_=column.type)


def _moved(state: str, *before: str) -> Executable:
    """Move a payment to a state from one of those before it: of two who try, the second finds it moved."""
    return (
        update(payments)
        .where(
            payments.c.order_id == bindparam("paid", type_=String),
            payments.c.amount_cents == bindparam("cents", type_=BigInteger),
            payments.c.state.in_(before),
        )
        .values(state=state)
    )


@dataclass(frozen=True)
class Statements:
    """One statement per step of a verb. Inserts leave alone what is there already, and say so by their row count."""

    record_order: Executable
    record_change: Executable
    stock_up: Executable
    reserve: Executable
    know_card: Executable
    open_payment: Executable
    enter_step: Executable
    record_mail: Executable
    track: Executable
    check_fraud: Executable
    take: ClassVar[Executable] = (
        update(stock)
        .where(
            stock.c.product == bindparam("wanted", type_=String),
            stock.c.quantity >= bindparam("taken", type_=Integer),
            or_(stock.c.counted_until.is_(None), stock.c.counted_until <= bindparam("now", type_=UtcDateTime)),
        )
        .values(quantity=stock.c.quantity - bindparam("taken", type_=Integer))
    )
    shelf: ClassVar[Select[Any]] = select(stock.c.quantity, stock.c.counted_until).where(_is(stock.c.product))
    change: ClassVar[Select[Any]] = select(order_changes.c.order_id).where(
        _is(order_changes.c.order_id), _is(order_changes.c.event_type)
    )
    card: ClassVar[Select[Any]] = select(cards.c.is_declined, cards.c.busy_until).where(_is(cards.c.user_id))
    payment: ClassVar[Select[Any]] = select(payments.c.state, payments.c.amount_cents).where(_is(payments.c.order_id))
    payment_step: ClassVar[Select[Any]] = select(payment_steps.c.entry).where(
        _is(payment_steps.c.order_id), _is(payment_steps.c.step)
    )
    payment_steps: ClassVar[Select[Any]] = select(payment_steps.c.order_id, payment_steps.c.step).order_by(
        payment_steps.c.order_id, payment_steps.c.entry
    )
    move_payment: ClassVar[Mapping[str, Executable]] = {
        "captured": _moved("captured", "authorized"),
        "refunded": _moved("refunded", "authorized", "captured"),
    }
    mail: ClassVar[Select[Any]] = select(mails.c.order_id).where(_is(mails.c.order_id), _is(mails.c.event_type))
    reserved: ClassVar[Select[Any]] = select(func.coalesce(func.sum(reservations.c.quantity), 0)).where(
        _is(reservations.c.product)
    )

    @classmethod
    def of(cls, insert: Callable[[Table], Any]) -> Self:
        """Build them with the `insert` of a dialect that knows `ON CONFLICT DO NOTHING`."""

        def once(table: Table, *columns: str) -> Any:
            return insert(table).values({name: bindparam(name) for name in columns}).on_conflict_do_nothing()

        a_change = select(orders.c.order_id, bindparam("event_type", type_=String)).where(_is(orders.c.order_id))
        return cls(
            record_order=once(orders, "order_id", "user_id", "product", "quantity", "amount_cents"),
            record_change=insert(order_changes)
            .from_select(["order_id", "event_type"], a_change, include_defaults=False)
            .on_conflict_do_nothing(),
            stock_up=once(stock, "product", "quantity", "counted_until"),
            reserve=once(reservations, "order_id", "product", "quantity"),
            know_card=once(cards, "user_id", "is_declined", "busy_until"),
            open_payment=once(payments, "order_id", "user_id", "amount_cents", "state"),
            enter_step=once(payment_steps, "order_id", "step").inline(),
            record_mail=once(mails, "order_id", "event_type"),
            track=once(analytics, "order_id", "event_type", "amount_cents"),
            check_fraud=insert(fraud_checks)
            .from_select(["order_id", "user_id", "amount_cents", "verdict"], _judged(), include_defaults=False)
            .on_conflict_do_nothing(),
        )


def _judged() -> Select[Any]:
    """Select the row of a fraud check: what the user ordered so far and this order, against the limit."""
    user_id, cents = bindparam("user_id", type_=String), bindparam("amount_cents", type_=BigInteger)
    in_all = func.coalesce(func.sum(fraud_checks.c.amount_cents), 0) + cents
    verdict = case((in_all > REVIEW_CENTS, literal("review", String)), else_=literal("clear", String))
    return select(bindparam("order_id", type_=String), user_id, cents, verdict).where(fraud_checks.c.user_id == user_id)
