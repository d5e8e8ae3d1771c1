"""The ledger of payments: each step of an order's payment is entered once, and in its turn or not at all.

A FIFO queue delivers the steps of an order in order, but it goes on after a step that was dead-lettered. So the turn is
not taken on trust: a step is entered in the transaction that moves its payment from where it may come from.
"""

from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import Connection

from worker.handlers.events import Payment
from worker.handlers.tables import Statements
from worker.handlers.transactions import Once, always

__all__ = ["BankBusyError", "DeclinedError", "Ledger", "OutOfTurnError", "PaymentError"]

T = TypeVar("T")
History = tuple[str, ...]


class PaymentError(Exception):
    """The step cannot be taken; the text says why, and nothing of the customer."""


class DeclinedError(PaymentError):
    """The customer's bank does not pay."""


class BankBusyError(PaymentError):
    """The customer's bank has no answer yet."""

    def __init__(self, seconds_left: float) -> None:
        super().__init__("the bank is busy")
        self.seconds_left = seconds_left


class OutOfTurnError(PaymentError):
    """The step is not the payment's next one."""


class Run(Protocol):
    """Runs work in a transaction of its own, committed unless it raises."""

    async def __call__(self, work: Callable[[Connection], T], *, is_reading: bool = False) -> T:
        """Return what the work returns."""


class Ledger:
    """The payments of a `Database`. Verbs return whether they wrote: false says that the step was there already.

    The mark of `once` is committed with the step, or with the bank's no, and with nothing else.
    """

    def __init__(self, run: Run, statements: Statements) -> None:
        self._run = run
        self._statements = statements

    async def authorize(self, payment: Payment, once: Once = always) -> bool:
        """Hold the money; the bank's answer stands, also when it was no.

        Raises `BankBusyError`, after which nothing was written, or `DeclinedError`.
        """
        now = datetime.now(UTC)

        def work(connection: Connection) -> bool | None:
            with once(connection) as is_first:  # its answer is not enough: who was declined is told so every time
                found = self._find(connection, payment)
                state = self._open(connection, payment, now) if found is None else found.state
                if state == "declined":
                    return None
                return is_first and self._enter(connection, payment, "authorized")

        wrote = await self._run(work)
        if wrote is None:  # raised now that it is committed
            raise DeclinedError("the card was declined")
        return wrote

    async def capture(self, payment: Payment, once: Once = always) -> bool:
        """Take the money that is held; raise `DeclinedError` or `OutOfTurnError` when none is, or another amount."""
        return await self._move(payment, "captured", once)

    async def refund(self, payment: Payment, once: Once = always) -> bool:
        """Give back what is held or was taken; raise `DeclinedError` or `OutOfTurnError` when that is nothing."""
        return await self._move(payment, "refunded", once)

    async def _move(self, payment: Payment, step: Literal["captured", "refunded"], once: Once) -> bool:
        moved = {"paid": payment.order_id, "cents": _cents(payment)}

        def work(connection: Connection) -> bool:
            with once(connection) as is_first:
                if not is_first:
                    return False
                # Moved first: who moves it at the same time is waited for here, and entries are in the order of moves.
                if connection.execute(self._statements.move_payment[step], moved).rowcount == 1:
                    return self._enter(connection, payment, step)
                entered = {**_key(payment), "step": step}
                if connection.execute(self._statements.payment_step, entered).first() is not None:
                    return False
                raise _why_not(self._find(connection, payment), _cents(payment), step)

        return await self._run(work)

    async def know_cards(
        self, *, declined: Collection[str] = (), busy: Collection[str] = (), busy_until: float = 0
    ) -> None:
        """Note whose cards are not simply good: those that are declined, and those whose bank is busy until a Unix time."""
        until = datetime.fromtimestamp(busy_until, UTC)
        rows: list[dict[str, Any]] = [{"user_id": user, "is_declined": True, "busy_until": None} for user in declined]
        rows += [{"user_id": user, "is_declined": False, "busy_until": until} for user in busy]
        await self._run(lambda connection: connection.execute(self._statements.know_card, rows))

    async def histories(self) -> Counter[History]:
        """Return which steps payments have taken, in the order in which they were entered, and how many did."""

        def work(connection: Connection) -> Counter[History]:
            rows = connection.execute(self._statements.payment_steps).all()
            return Counter(tuple(row.step for row in steps) for _, steps in groupby(rows, lambda row: row.order_id))

        return await self._run(work, is_reading=True)

    def _open(self, connection: Connection, payment: Payment, now: datetime) -> str:
        """Ask the bank and write down where the payment stands, unless another delivery has done so meanwhile."""
        card = {"user_id": payment.user_id}
        state = _verdict(connection.execute(self._statements.card, card).first(), now)
        opened = {**_key(payment), **card, "amount_cents": _cents(payment), "state": state}
        if connection.execute(self._statements.open_payment, opened).rowcount == 1:
            return state
        return str(self._find(connection, payment).state)

    def _find(self, connection: Connection, payment: Payment) -> Any:
        return connection.execute(self._statements.payment, _key(payment)).first()

    def _enter(self, connection: Connection, payment: Payment, step: str) -> bool:
        return connection.execute(self._statements.enter_step, {**_key(payment), "step": step}).rowcount == 1


def _verdict(card: Any, now: datetime) -> str:
    """Return what the bank says of the card; one that nobody knows is good."""
    if card is None:
        return "authorized"
    if card.busy_until is not None and card.busy_until > now:
        raise BankBusyError((card.busy_until - now).total_seconds())
    return "declined" if card.is_declined else "authorized"


def _why_not(found: Any, cents: int, step: str) -> PaymentError:
    """Return why a payment cannot take the step from where it stands."""
    if found is None:
        return OutOfTurnError(f"a payment that was never authorized cannot be {step}")
    if found.state == "declined":
        return DeclinedError("the payment of this order was declined")
    if found.amount_cents != cents:
        return OutOfTurnError(f"a payment of another amount cannot be {step}")
    return OutOfTurnError(f"a payment that was {found.state} cannot be {step}")


def _key(payment: Payment) -> dict[str, Any]:
    return {"order_id": payment.order_id}


def _cents(payment: Payment) -> int:
    return int(payment.amount * 100)
