"""An exception in a log line is short, structured and free of payloads (M3)."""

import sqlite3

import asyncpg
import pydantic
import pytest
import sqlalchemy
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from worker.errors import PermanentError
from worker.telemetry.exceptions import describe, in_lines, said

CARD = "4111111111111111"
TAKEN = f'duplicate key value violates unique constraint "uq_pkey"\nDETAIL:  Key (id)=({CARD}) already exists.'


class Order(pydantic.BaseModel):
    order_id: int


def failing(error: Exception) -> None:
    raise error


def caught(error: Exception) -> Exception:
    with pytest.raises(type(error)) as raised:
        failing(error)
    return raised.value


def test_it_says_what_it_is_what_it_says_and_where_it_came_from() -> None:
    fields = describe(caught(ValueError("bad")))
    assert (fields["type"], fields["message"]) == ("ValueError", "bad")
    inner, outer = fields["stack"]
    assert inner.startswith("unit/test_logs_exceptions.py:")
    assert (inner.split()[1], outer.split()[1]) == ("failing", "caught")


def test_a_long_message_is_cut() -> None:
    fields = describe(ValueError("x" * 10_000))
    assert len(fields["message"]) < 600
    assert fields["message"].endswith("(10000 characters)")


def test_a_validation_error_names_fields_and_rules_and_quotes_nothing() -> None:
    """The text of pydantic itself text contains the input, which is the payload (M3)."""
    with pytest.raises(pydantic.ValidationError) as raised:
        Order.model_validate({"order_id": "secret"})
    fields = describe(raised.value)
    assert fields["message"] == "order_id: int_parsing"
    assert "secret" not in str(fields)


def asyncpg_error(kind: type[asyncpg.PostgresError], text: str) -> asyncpg.PostgresError:
    return kind(text)


def through_sqlalchemy(error: Exception) -> Exception:
    """Return the error as SQLAlchemy's asyncpg dialect raises it: wrapped twice, with the statement and its parameters."""
    adapted = AsyncAdapt_asyncpg_dbapi.IntegrityError(f"{type(error)}: {error}", error)  # type: ignore[no-untyped-call]
    adapted.__cause__ = error
    return sqlalchemy.exc.IntegrityError("INSERT INTO uq VALUES ($1)", (CARD,), adapted)


def test_an_error_of_a_database_keeps_its_class_its_state_and_its_first_line() -> None:
    taken = asyncpg_error(asyncpg.UniqueViolationError, TAKEN)
    sentence = 'UniqueViolationError 23505: duplicate key value violates unique constraint "uq_pkey"'
    assert said(taken) == sentence.removeprefix("UniqueViolationError ")
    assert said(through_sqlalchemy(taken)) == sentence
    fields = describe(caught(through_sqlalchemy(taken)))
    assert CARD not in str(fields)
    assert fields["message"] == sentence


def test_an_error_of_sqlite_through_sqlalchemy_has_neither_statement_nor_parameters() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table uq (id text primary key)"))
        connection.execute(sqlalchemy.text("insert into uq values (:id)"), {"id": CARD})
        with pytest.raises(sqlalchemy.exc.IntegrityError) as raised:
            connection.execute(sqlalchemy.text("insert into uq values (:id)"), {"id": CARD})
    engine.dispose()
    assert said(raised.value) == "IntegrityError: UNIQUE constraint failed: uq.id"
    assert CARD not in str(describe(raised.value))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg_error(asyncpg.InvalidTextRepresentationError, f'invalid input syntax for type integer: "{CARD}"'),
        asyncpg.exceptions._base.DataError(f"invalid input for query argument $1: '{CARD}'"),
        sqlite3.IntegrityError(1062, f"Duplicate entry '{CARD}' for key 'PRIMARY'"),
        sqlalchemy.exc.StatementError("text", "insert", (CARD,), ValueError(f"no number: '{CARD}'")),
    ],
)
def test_a_database_does_not_quote_the_value_that_it_refuses(error: Exception) -> None:
    assert CARD not in said(error)
    assert CARD not in str(describe(error))


def test_what_a_driver_stumbled_over_is_not_told_a_second_time() -> None:
    """The cause of a database's error is about the value; that of an author's own error is told."""
    error = sqlalchemy.exc.StatementError(
        f"(builtins.ValueError) no number: {CARD}", "insert", (CARD,), origin := ValueError(f"no number: {CARD}")
    )
    error.__cause__ = origin
    assert CARD not in str(describe(error))
    outer = RuntimeError("not stored")
    outer.__cause__ = sqlite3.IntegrityError("UNIQUE constraint failed: uq.id")
    assert describe(outer)["cause"]["message"] == "UNIQUE constraint failed: uq.id"


def test_the_first_line_of_any_other_exception_is_kept_and_the_whole_reason_of_an_author() -> None:
    assert said(ValueError("stock is negative\nrow: 4111")) == "stock is negative"
    assert said(PermanentError("no such order\nask the shop")) == "no such order\nask the shop"


def test_causes_are_told_three_deep_and_suppressed_ones_not() -> None:
    error = ValueError("0")
    for number in range(1, 6):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer
    fields = describe(error)
    assert fields["cause"]["cause"]["message"] == "3"
    assert "cause" not in fields["cause"]["cause"]
    silent = ValueError("outer")
    silent.__context__, silent.__suppress_context__ = KeyError("inner"), True
    assert "cause" not in describe(silent)


def test_a_group_is_told_by_its_members() -> None:
    """`unhandled errors in a TaskGroup` alone says nothing."""
    fields = describe(ExceptionGroup("group", [ValueError(str(number)) for number in range(9)]))
    assert [member["message"] for member in fields["members"]] == ["0", "1", "2", "3", "4"]


def test_an_exception_whose_text_raises_is_told_by_its_type() -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert describe(RudeError())["message"] == "(its text raises RuntimeError)"


def test_the_innermost_frames_are_kept() -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            raise ValueError("deep")

    with pytest.raises(ValueError, match="deep") as raised:
        dive(50)
    stack = describe(raised.value)["stack"]
    assert len(stack) == 12
    assert all(frame.endswith(" dive") for frame in stack)


def test_text_for_a_terminal_has_a_line_per_frame_and_indents_what_is_inside() -> None:
    outer = ExceptionGroup("group", [caught(ValueError("inner"))])
    first, second, third, _ = in_lines(outer).splitlines()
    assert first == "ExceptionGroup: group (1 sub-exception)"
    assert second == "  ValueError: inner"
    assert third.startswith("      at unit/")
