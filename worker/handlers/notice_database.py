"""The notices' database, on SQLite or PostgreSQL: what is done to it is done in a transaction of its own."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, String, Table, exc, func, insert, select

from worker import LongshoreError, TransientError, UsageError
from worker.handlers.opening import address, make_tables, open_store
from worker.handlers.tables import UtcDateTime

__all__ = ["WRITE", "NoticeDatabase", "Rows"]

T = TypeVar("T")

_NAME: Final = "the notices' database"
_METADATA: Final = MetaData()
_NOTICES: Final = Table(
    "notices",
    _METADATA,
    Column("entry", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("notice_id", String, nullable=False, index=True),  # not unique: what keeps a row single is the inbox's mark
    Column("recipient", String, nullable=False),
    Column("text", String, nullable=False),
    Column("written_at", UtcDateTime, nullable=False, server_default=func.now()),
)
WRITE: Final = insert(_NOTICES)
"""Writes a row of `notice_id`, `recipient` and `text`."""
_COUNT: Final = select(func.count(), func.count(_NOTICES.c.notice_id.distinct()))
_OUR_MISTAKES: Final = (exc.DataError, exc.IntegrityError, exc.ProgrammingError, exc.NotSupportedError)


class Rows(NamedTuple):
    """How many notices were written down."""

    written: int
    different: int
    """Fewer than `written` when one was written twice."""


class NoticeDatabase:
    """The database at `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; an async context manager.

    Entering it makes the table if it is missing, and raises `UsageError` when the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._address = address(url, _NAME)
        self._store = open_store(url, _NAME)

    async def __aenter__(self) -> Self:
        try:
            await make_tables(self._store, _METADATA)
        except (exc.SQLAlchemyError, OSError, TypeError, ValueError) as error:
            await self._store.close()
            raise UsageError(
                f"{_NAME} {self._address} cannot be opened ({_kind(error)}); start it, or correct its address"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do the work in a transaction, committed unless it raises; raise `TransientError` when the database does not answer."""
        try:
            return await self._store.run(work)
        except _OUR_MISTAKES as error:  # its text may quote a row, and this goes to logs
            raise LongshoreError(f"{_NAME} refuses a statement ({_kind(error)})") from None
        except (exc.DBAPIError, exc.TimeoutError, OSError) as error:
            raise TransientError(f"{_NAME} does not answer ({_kind(error)})") from error

    async def count(self) -> Rows:
        """Count what was written down."""
        row: Any = await self.run(lambda connection: connection.execute(_COUNT).one())
        return Rows(*row)


def _kind(error: BaseException) -> str:
    """Return the name of what the driver raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__
