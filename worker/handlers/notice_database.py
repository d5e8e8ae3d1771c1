"""The notices' database, on SQLite or PostgreSQL: what is done to it is done in a transaction of its own."""

from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, func, insert, select

from worker.handlers.tables import UtcDateTime
from worker.handlers.transactions import Transactions

__all__ = ["WRITE", "NoticeDatabase", "Rows"]

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


class Rows(NamedTuple):
    """How many notices were written down."""

    written: int
    different: int
    """Fewer than `written` when one was written twice."""


class NoticeDatabase(Transactions):
    """The notices' table."""

    def __init__(self, url: str) -> None:
        super().__init__(url, _METADATA, "the notices' database")

    async def count(self) -> Rows:
        """Count what was written down."""
        row: Any = await self.run(lambda connection: connection.execute(_COUNT).one())
        return Rows(*row)
