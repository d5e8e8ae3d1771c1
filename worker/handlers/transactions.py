"""`Transactions`: a database whose tables are ours, and what is said when it does not do what it is asked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection, MetaData, exc

from worker import LongshoreError, TransientError, UsageError, migrate
from worker.handlers.opening import address, make_tables, open_store

__all__ = ["Once", "Transactions", "always"]

T = TypeVar("T")
Once = Callable[[Connection], AbstractContextManager[bool]]
"""Says whether what follows in the connection's transaction is to be done, as `message.once(connection)` does."""

_OUR_MISTAKES: Final = (exc.DataError, exc.IntegrityError, exc.ProgrammingError, exc.NotSupportedError)


def always(_: Connection) -> AbstractContextManager[bool]:
    """Say that it is to be done, for what comes but once: a request is no message."""
    return nullcontext(enter_result=True)


class Transactions:
    """The database at `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; an async context manager.

    Making one raises `UsageError`, which calls it by its name, when the address is none; entering it, which makes the tables
    that are missing, those of inbox and outbox among them, when the database cannot be opened.
    """

    def __init__(self, url: str, tables: MetaData, name: str) -> None:
        self._name = name
        self._tables = tables
        self._url = url
        self._address = address(url, name)
        self._store = open_store(url, name)

    async def __aenter__(self) -> Self:
        try:
            await make_tables(self._store, self._tables)
            await migrate(self._url)
        except LongshoreError:
            await self._store.close()
            raise
        except (exc.SQLAlchemyError, OSError, TypeError, ValueError) as error:
            await self._store.close()
            raise UsageError(
                f"{self._name} {self._address} cannot be opened ({_cause(error)}); start it, or correct its address"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()

    async def run(self, work: Callable[[Connection], T], *, is_reading: bool = False) -> T:
        """Do the work in a transaction, committed unless it raises; one that only reads waits for no writer.

        Raises `TransientError` when the database does not answer, `LongshoreError` when it refuses a statement; the text of
        neither holds what was to be written.
        """
        try:
            return await self._store.run(work, is_reading=is_reading)
        except _OUR_MISTAKES as error:  # its text may quote a row, and this goes to logs
            raise LongshoreError(f"{self._name} refuses a statement ({type(_root(error)).__name__})") from None
        except (exc.DBAPIError, exc.TimeoutError, OSError) as error:
            raise TransientError(f"{self._name} does not answer ({type(_root(error)).__name__})") from error


def _root(error: BaseException) -> BaseException:
    """Return what the driver raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cause(error: BaseException) -> str:
    return " ".join(f"{type(_root(error)).__name__}: {_root(error)}".split())
