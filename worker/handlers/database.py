"""The orders' database, on SQLite or PostgreSQL: one transaction per verb, every effect at most once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Executable, func, select
from sqlalchemy.dialects import postgresql, sqlite

from worker.handlers.events import Order
from worker.handlers.ledger import Ledger
from worker.handlers.tables import METADATA, Statements
from worker.handlers.transactions import Once, Transactions, always

__all__ = [
    "Database",
    "ReservationError",
    "SoldOutError",
    "StocktakeError",
    "UnknownOrderError",
    "UnknownProductError",
]

_STATEMENTS: Final = {
    "sqlite": Statements.of(sqlite.insert),
    "postgresql": Statements.of(postgresql.insert),
}


class UnknownOrderError(LookupError):
    """The order is not there, or not yet."""


class ReservationError(Exception):
    """The order's products cannot be reserved; the text says why, and nothing of the order."""


class UnknownProductError(ReservationError):
    """The product is not in stock and never was."""


class SoldOutError(ReservationError):
    """There is less of the product in stock than was ordered."""


class StocktakeError(ReservationError):
    """The product is being counted; its stock may not be changed until that is over."""

    def __init__(self, seconds_left: float) -> None:
        super().__init__("the product is being counted")
        self.seconds_left = seconds_left


class Database(Transactions):
    """The orders' tables.

    Verbs that write return whether they wrote: false says that it was there already. They raise what `run` raises.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, METADATA, "the orders' database")
        self._statements = _STATEMENTS[self._store.dialect]
        self.ledger = Ledger(self.run, self._statements)

    async def record_order(self, order: Order, once: Once = always) -> bool:
        """Write the order down."""
        values = {**_key(order), "user_id": order.user_id, **_content(order), "amount_cents": _cents(order)}

        def work(connection: Connection) -> bool:
            with once(connection) as is_first:
                return is_first and _wrote(connection, self._statements.record_order, values)

        return await self.run(work)

    async def record_change(self, event_type: str, order: Order, once: Once = always) -> bool:
        """Write down what became of the order; raise `UnknownOrderError` when it is not there yet."""
        change = _key(order, event_type)

        def work(connection: Connection) -> bool:
            with once(connection) as is_first:
                if not is_first:
                    return False
                if _wrote(connection, self._statements.record_change, change):
                    return True
                # Whether the order is there would be the wrong question: it may have come between the two statements.
                if connection.execute(self._statements.change, change).first() is None:
                    raise UnknownOrderError("the order is not there yet")
                return False

        return await self.run(work)

    async def reserve(self, order: Order) -> bool:
        """Take the quantity out of stock together with the order's reservation.

        Raises `UnknownProductError`, `StocktakeError` while the product is counted, or `SoldOutError`.
        """
        reservation, shelf = {**_key(order), **_content(order)}, {"product": order.product}
        now = datetime.now(UTC)
        taken = {"wanted": order.product, "taken": order.quantity, "now": now}

        def work(connection: Connection) -> bool:
            if not _wrote(connection, self._statements.reserve, reservation):
                return False
            if not _wrote(connection, self._statements.take, taken):
                raise _why_not(connection.execute(self._statements.shelf, shelf).first(), now)
            return True

        return await self.run(work)

    async def was_mailed(self, event_type: str, order_id: str) -> bool:
        """Say whether the mail about this event of the order was recorded."""
        key = {"order_id": order_id, "event_type": event_type}
        return await self._read(self._statements.mail, key) is not None

    async def record_mail(self, event_type: str, order_id: str) -> bool:
        """Write down that the mail was sent."""
        return await self._write(self._statements.record_mail, {"order_id": order_id, "event_type": event_type})

    async def track(self, event_type: str, order: Order) -> bool:
        """Count the event in the analytics."""
        return await self._write(self._statements.track, {**_key(order, event_type), "amount_cents": _cents(order)})

    async def track_all(self, events: Sequence[tuple[str, Order]]) -> None:
        """Count events, each an event type and an order, in one transaction; those that were counted before are left alone."""
        rows = [{**_key(order, event_type), "amount_cents": _cents(order)} for event_type, order in events]
        rows.sort(
            key=lambda row: (row["order_id"], row["event_type"])
        )  # two batches wait for each other in one order only
        await self.run(lambda connection: connection.execute(self._statements.track, rows))

    async def check_fraud(self, order: Order) -> bool:
        """Write a verdict: `review` when the user's checked orders cost more than `REVIEW_CENTS` in all, else `clear`.

        Two orders of a user that are checked at the same moment may not see each other.
        """
        values = {**_key(order), "user_id": order.user_id, "amount_cents": _cents(order)}
        return await self._write(self._statements.check_fraud, values)

    async def stock_up(
        self, quantities: Mapping[str, int], *, counting: str | None = None, counted_until: float = 0
    ) -> None:
        """Fill the shelves with what is not there yet; one product is being counted until the given Unix time."""
        until = datetime.fromtimestamp(counted_until, UTC)
        rows = [
            {"product": product, "quantity": quantity, "counted_until": until if product == counting else None}
            for product, quantity in quantities.items()
        ]
        await self.run(lambda connection: connection.execute(self._statements.stock_up, rows))

    async def count(self, table: str) -> int:
        """Return how many rows the table has; raise `KeyError` when there is no such table."""
        (rows,) = await self._read(select(func.count()).select_from(METADATA.tables[table]), {})
        return int(rows)

    async def total_reserved(self, product: str) -> int:
        """Return how much of the product all reservations hold together."""
        (quantity,) = await self._read(self._statements.reserved, {"product": product})
        return int(quantity)

    async def in_stock(self, product: str) -> int:
        """Return how much of the product is left; raise `UnknownProductError`."""
        shelf = await self._read(self._statements.shelf, {"product": product})
        if shelf is None:
            raise UnknownProductError("the product is unknown")
        return int(shelf.quantity)

    async def _write(self, statement: Executable, values: Mapping[str, Any]) -> bool:
        return await self.run(lambda connection: _wrote(connection, statement, values))

    async def _read(self, statement: Executable, values: Mapping[str, Any]) -> Any:
        """Return the first row; `None` when there is none."""
        return await self.run(lambda connection: connection.execute(statement, values).first(), is_reading=True)


def _wrote(connection: Connection, statement: Executable, values: Mapping[str, Any]) -> bool:
    return connection.execute(statement, values).rowcount == 1


def _why_not(shelf: Any, now: datetime) -> Exception:
    """Return why nothing could be taken from the shelf."""
    if shelf is None:
        return UnknownProductError("the product is unknown")
    if shelf.counted_until is not None and shelf.counted_until > now:
        return StocktakeError((shelf.counted_until - now).total_seconds())
    return SoldOutError("the product is sold out")


def _key(order: Order, event_type: str | None = None) -> dict[str, Any]:
    return (
        {"order_id": order.order_id} if event_type is None else {"order_id": order.order_id, "event_type": event_type}
    )


def _content(order: Order) -> dict[str, Any]:
    return {"product": order.product, "quantity": order.quantity}


def _cents(order: Order) -> int:
    return int(order.amount * 100)
