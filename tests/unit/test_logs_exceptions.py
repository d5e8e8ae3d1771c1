"""An exception in a log line is short, structured and free of payloads (M3)."""

import pydantic
import pytest

from worker.telemetry.exceptions import describe, in_lines


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
