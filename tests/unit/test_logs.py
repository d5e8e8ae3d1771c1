"""Log lines: one JSON object each, in UTC, from us and from libraries, and never an error into the caller (M3)."""

import asyncio
import contextlib
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from worker.errors import UsageError
from worker.telemetry import logs


class Terminal(io.BytesIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class FullDisk(io.BytesIO):
    """A stream with room for a number of bytes."""

    room = 0

    def write(self, data: Any, /) -> int:
        taken = min(self.room, len(data))
        if not taken:
            raise OSError(28, "No space left on device")
        self.room -= taken
        return super().write(data[:taken])


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream() -> io.BytesIO:
    stream = io.BytesIO()
    logs.configure("json", "info", stream)
    return stream


def failing(error: Exception) -> None:
    raise error


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_that_says_when_how_grave_what_and_about_what(stream: io.BytesIO) -> None:
    structlog.get_logger("handler").bind(queue="orders", message_id="m-1").info("handled", seconds=0.5)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "event": "handled",
        "logger": "handler",
        "queue": "orders",
        "message_id": "m-1",
        "seconds": 0.5,
    }


def test_what_a_task_bound_to_its_context_is_in_its_lines(stream: io.BytesIO) -> None:
    """A library that logs inside a handler says which message it is about (M3)."""
    with structlog.contextvars.bound_contextvars(message_id="m-1"):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
    assert [line.get("message_id") for line in lines(stream)] == ["m-1", None]


def test_a_field_of_the_caller_does_not_replace_time_and_level(stream: io.BytesIO) -> None:
    structlog.get_logger().warning("x", level="mine", timestamp="never")
    (line,) = lines(stream)
    assert line["level"] == "warning"
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.BytesIO()
    logs.configure("json", "warning", stream)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.error("c")
    assert [line["event"] for line in lines(stream)] == ["c"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, 2**70),
        ({1}, "{1}"),
        (Path("a/b"), "a/b"),
        ({2: "two"}, {"2": "two"}),
    ],
)
def test_a_value_that_json_has_no_word_for_is_written_all_the_same(
    stream: io.BytesIO, value: object, shown: object
) -> None:
    import json

    structlog.get_logger().info("x", value=value)
    assert json.loads(stream.getvalue())["value"] == shown


def test_hostile_values_never_raise_into_the_caller(stream: io.BytesIO) -> None:
    """Surrogates, circles, deep nests and a __str__ that raises come out as something."""

    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    log = structlog.get_logger()
    for value in ("\ud800", circle, deep, Rude()):
        log.info("x", value=value)
    written = stream.getvalue().splitlines()
    assert len(written) == 4
    assert all(b'"event"' in line for line in written)
    assert b"(Rude)" in written[3]


def test_a_line_stays_below_what_container_runtimes_cut_in_two(stream: io.BytesIO) -> None:
    structlog.get_logger().info("x" * 50_000, event_type="y" * 1_000_000)
    assert len(stream.getvalue()) < 16_384
    assert lines(stream)[0]["event_type"].endswith("...")


def test_a_long_value_is_cut_and_the_exception_stays(stream: io.BytesIO) -> None:
    try:
        failing(ValueError("bad"))
    except ValueError:
        structlog.get_logger().exception("failed", event_type="y" * 1_000_000)
    (line,) = lines(stream)
    assert (line["level"], line["exception"]["type"], line["exception"]["message"]) == ("error", "ValueError", "bad")


def test_an_exception_is_told_however_it_is_given(stream: io.BytesIO) -> None:
    error = ValueError("bad")
    log = structlog.get_logger()
    log.error("a", exc_info=error)
    log.error("b", exc_info=(ValueError, error, None))
    log.error("c", exc_info=True)  # noqa: LOG014 - that there is none at the moment is the point
    assert [line.get("exception", {}).get("message") for line in lines(stream)] == ["bad", "bad", None]


def test_libraries_come_out_in_the_same_format_at_warning_and_above(stream: io.BytesIO) -> None:
    """Below it they quote requests, with payloads and signatures (M3)."""
    library = logging.getLogger("aiobotocore.test")
    library.debug("body=secret")
    library.info("body=secret")
    library.warning("retry %d of %d", 1, 3)
    try:
        failing(OSError("reset"))
    except OSError:
        library.exception("broken %s")
    warned, broken = lines(stream)
    assert (warned["event"], warned["level"], warned["logger"]) == ("retry 1 of 3", "warning", "aiobotocore.test")
    assert broken["exception"]["type"] == "OSError"


def test_a_library_whose_arguments_do_not_fit_its_text_is_quoted_without_them(stream: io.BytesIO) -> None:
    handler = next(handler for handler in logging.getLogger().handlers if isinstance(handler, logs._FromStdlib))
    handler.handle(logging.LogRecord("library", logging.ERROR, __file__, 1, "%d left", ("none",), None))
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("%d left", "library", "error")


def test_the_debug_level_is_ours_and_not_the_libraries() -> None:
    stream = io.BytesIO()
    logs.configure("json", "debug", stream)
    structlog.get_logger().debug("ours")
    logging.getLogger("botocore.test").debug("theirs")
    assert [line["event"] for line in lines(stream)] == ["ours"]


async def test_a_task_that_fails_unseen_is_a_line_of_ours(stream: io.BytesIO) -> None:
    """What asyncio reports about a lost task is in the log like everything else."""
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": ValueError("bad")})
    (line,) = lines(stream)
    assert (line["logger"], line["level"], line["exception"]["message"]) == ("asyncio", "error", "bad")


async def test_what_asyncio_adds_of_a_task_that_fails_unseen_is_left_out(stream: io.BytesIO) -> None:
    """It is the repr of the task, which quotes all of its exception (M3)."""
    error = ValueError("taken\nDETAIL: Key (id)=(4111) already exists.")
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": error, "future": error})
    (line,) = lines(stream)
    assert line["event"] == "lost"
    assert "4111" not in str(line)


def test_configuring_twice_does_not_double_the_lines(stream: io.BytesIO) -> None:
    again = io.BytesIO()
    log = structlog.get_logger()
    log.info("first")
    logs.configure("json", "info", again)
    log.info("second")  # a logger that exists already follows
    logging.getLogger("library").warning("third")
    assert [line["event"] for line in lines(stream)] == ["first"]
    assert [line["event"] for line in lines(again)] == ["second", "third"]


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.BytesIO()
    logs.configure("auto", "info", terminal)
    structlog.get_logger().info("hello", queue="orders")
    logs.configure("auto", "info", pipe)
    structlog.get_logger().info("hello", queue="orders")
    assert not terminal.getvalue().startswith(b"{")
    assert b"\x1b[" in terminal.getvalue()
    assert lines(pipe)[0]["queue"] == "orders"


def test_text_says_the_same_as_json() -> None:
    stream = io.BytesIO()
    logs.configure("console", "info", stream)
    try:
        failing(ValueError("bad"))
    except ValueError:
        structlog.get_logger("handler").exception("failed", queue="orders", odd="\ud800")
    logging.getLogger("library").warning("w")
    text = stream.getvalue().decode()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \[error", text)
    assert "[handler]" in text
    assert "queue=orders" in text
    assert "ValueError: bad\n    at unit/test_logs.py:" in text
    assert "[library]" in text


def test_a_terminal_is_not_steered_by_what_a_message_says() -> None:
    """An event type is a stranger's text; its escape sequences are shown, not obeyed."""
    stream = io.BytesIO()
    logs.configure("console", "info", stream)
    structlog.get_logger().info("\x1b[2Jreceived", event_type="\x1b[2Jgone", other="a\nforged line")
    assert b"\x1b" not in stream.getvalue()
    assert stream.getvalue().count(b"\n") == 1


def test_a_line_that_a_full_disk_refuses_is_dropped_and_counted() -> None:
    """ENOSPC is the log's problem, not the message's; what is written later is whole lines."""
    disk = FullDisk()
    logs.configure("json", "info", disk)
    log, before = structlog.get_logger(), logs.dropped_lines()
    log.info("lost")
    disk.room = 10
    log.info("torn")
    disk.room = 10_000
    log.info("whole")
    assert logs.dropped_lines() - before == 2
    torn, whole = disk.getvalue().splitlines()
    assert len(torn) == 10
    assert orjson.loads(whole)["event"] == "whole"


def test_a_pipe_without_a_reader_and_a_closed_stream_are_survived() -> None:
    before = logs.dropped_lines()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as broken:  # noqa: PTH123 - a descriptor, not a path
        logs.configure("auto", "info", broken)
        structlog.get_logger().info("nobody reads")
        logging.getLogger("library").warning("nobody reads")
    structlog.get_logger().info("closed")
    logs.configure("auto", "info", broken)
    structlog.get_logger().info("closed from the start")
    assert logs.dropped_lines() - before == 4


def test_a_pipe_that_nobody_empties_does_not_stop_the_caller() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = logs.dropped_lines()
    with open(writer, "wb") as full, open(reader, "rb") as end:  # noqa: PTH123 - descriptors, not paths
        logs.configure("json", "info", full)
        for _ in range(2000):
            structlog.get_logger().info("x" * 100)
        assert logs.dropped_lines() > before
        end.read(4096)
        with contextlib.suppress(BlockingIOError):
            structlog.get_logger().info("again")


def test_no_stdout_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon may be started without one."""
    monkeypatch.setattr("sys.stdout", None)
    before = logs.dropped_lines()
    logs.configure("auto", "info")
    structlog.get_logger().info("unheard")
    assert logs.dropped_lines() - before == 1


@pytest.mark.parametrize(
    ("format_", "level", "sentence"),
    [
        ("xml", "info", "log.format is 'xml'; allowed are json, console, auto"),
        ("json", "loud", "log.level is 'loud'; allowed are debug, info, warning, error, critical"),
    ],
)
def test_a_wrong_format_or_level_is_one_sentence(format_: Any, level: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        logs.configure(format_, level)
