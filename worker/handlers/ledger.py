"""The orders' database: SQLite, one transaction per effect, each effect at most once."""

import sqlite3
import threading
import time
from collections.abc import Mapping

__all__ = ["Ledger", "StocktakeError", "UnknownProductError"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (kind TEXT, key TEXT, note TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stock (product TEXT PRIMARY KEY, quantity INTEGER, counted_until REAL DEFAULT 0) WITHOUT ROWID;
"""


class UnknownProductError(LookupError):
    """The product is not in stock and never was."""


class StocktakeError(Exception):
    """The product is being counted; its stock may not be changed until that is over."""

    def __init__(self, seconds_left: float) -> None:
        super().__init__(seconds_left)
        self.seconds_left = seconds_left


class Ledger:
    """One database file; safe to use from any thread. Every verb is one transaction."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
        self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def stock_up(self, quantities: Mapping[str, int], *, counting: str, counted_until: float) -> None:
        """Fill the shelves; one product is being counted until the given Unix time."""
        with self._lock, self._connection as transaction:
            transaction.executemany(
                "INSERT OR IGNORE INTO stock VALUES (?, ?, ?)",
                [(name, count, counted_until if name == counting else 0) for name, count in quantities.items()],
            )

    def record(self, kind: str, key: str, note: str) -> bool:
        """Write an effect down; false if it was there already."""
        with self._lock, self._connection as transaction:
            cursor = transaction.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?)", (kind, key, note))
            return cursor.rowcount == 1

    def reserve(self, order_id: str, product: str, quantity: int) -> None:
        """Take `quantity` out of stock for the order, once; raise `UnknownProductError` or `StocktakeError`."""
        with self._lock, self._connection as transaction:
            row = transaction.execute("SELECT counted_until FROM stock WHERE product = ?", (product,)).fetchone()
            if row is None:
                raise UnknownProductError(product)
            if (seconds_left := row[0] - time.time()) > 0:
                raise StocktakeError(seconds_left)
            reserved = transaction.execute(
                "INSERT OR IGNORE INTO effects VALUES ('reservations', ?, ?)", (order_id, f"{quantity} x {product}")
            )
            if reserved.rowcount == 1:
                transaction.execute("UPDATE stock SET quantity = quantity - ? WHERE product = ?", (quantity, product))

    def count(self, kind: str) -> int:
        """Return how many effects of the kind there are."""
        with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM effects WHERE kind = ?", (kind,)).fetchone()
            return int(count)
