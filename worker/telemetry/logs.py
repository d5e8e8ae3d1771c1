"""Log lines: one JSON object each, or text on a terminal; writing one never raises into the caller.

structlog's configuration is one per process, so the output is too: loggers that exist already follow a new stream.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from threading import RLock
from typing import Any, BinaryIO, Literal, cast

import orjson
import structlog

from worker.errors import UsageError
from worker.telemetry.exceptions import describe, in_lines
from worker.telemetry.logged_state import LoggedState

__all__ = ["LoggedState", "configure", "dropped_lines"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_ALIASES = {"warn": "warning", "exception": "error", "fatal": "critical", "notset": "debug"}
_MAX_LINE_BYTES = 16_000  # container runtimes cut a line in two at 16 KiB
_CUT_LENGTH = 500

Event = MutableMapping[str, Any]
Render = Callable[[Any, str, Event], bytes]


class _Output:
    """Where lines go. What it does not take is dropped and counted."""

    def __init__(self) -> None:
        self.dropped = 0
        self._raw: Any = None
        self._is_torn = False
        self._lock = RLock()  # a signal handler may log in the middle of a line

    def open(self, stream: BinaryIO | None) -> None:
        """Write to the stream from now on, past its buffer: a line that a full disk refused must not be tried again at exit."""
        self._raw = getattr(stream, "raw", stream)
        self._is_torn = False

    def write(self, line: bytes) -> None:
        with self._lock:
            rest = b"\n" + line if self._is_torn else line
            try:
                while rest:
                    count = self._raw.write(rest)
                    if not count:  # a pipe that does not block is full
                        raise BlockingIOError
                    self._is_torn = not rest[:count].endswith(b"\n")
                    rest = rest[count:]
            except (OSError, ValueError, AttributeError):  # refused, closed, or there is no stdout at all
                self.dropped += 1


_OUTPUT = _Output()


class _Lines:
    """What structlog writes through: the line is finished already."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def msg(self, line: bytes) -> None:
        _OUTPUT.write(line)

    debug = info = warning = error = critical = log = msg
    warn = exception = fatal = failure = err = msg


class _FromStdlib(logging.Handler):
    """Brings what libraries log into the same stream and format."""

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the text, or raise: the text alone must do
            text = str(record.msg)
        event: Event = {"event": text}
        if record.exc_info:
            event["event"] = text.partition("\n")[0]  # asyncio goes on with the task's repr, which quotes the exception
            event["exc_info"] = record.exc_info
        _OUTPUT.write(self._render(_Lines(record.name), record.levelname.lower(), event))


def configure(
    format: Literal["json", "console", "auto"],  # noqa: A002 - the name of the setting
    level: str,
    stream: BinaryIO | None = None,
) -> None:
    """Send all log lines to the stream (standard output by default); `auto` is text on a terminal and JSON elsewhere.

    Libraries that use `logging` come out at warning and above, whatever the level: below it they quote requests.
    Raises `UsageError` for a format or level that does not exist.
    """
    if level not in _LEVELS:
        raise UsageError(f"log.level is {level!r}; allowed are {', '.join(_LEVELS)}: choose one of them")
    if format not in {"json", "console", "auto"}:
        raise UsageError(f"log.format is {format!r}; allowed are json, console, auto: choose one of them")
    if stream is None:
        stream = cast("BinaryIO | None", getattr(sys.stdout, "buffer", None))
    is_terminal = _is_terminal(stream)
    is_text = format == "console" or (format == "auto" and is_terminal)
    render = _console(has_colors=is_terminal) if is_text else _to_json
    _OUTPUT.open(stream)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, cast("structlog.typing.Processor", render)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [*(old for old in root.handlers if not isinstance(old, _FromStdlib)), _FromStdlib(render)]
    root.setLevel(max(logging.WARNING, _LEVELS[level]))


def dropped_lines() -> int:
    """Return how many lines the output did not take since the process started."""
    return _OUTPUT.dropped


def _is_terminal(stream: BinaryIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):  # closed
        return False


def _now() -> str:
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06}Z"


@lru_cache(maxsize=1)  # a busy worker writes thousands of lines within one second
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _error_of(exc_info: object) -> BaseException | None:
    """Return the exception that a log call is about: given as such, as a triple, or as 'the current one'."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _to_json(logger: Any, method: str, event: Event) -> bytes:
    error = _error_of(event.pop("exc_info", None))
    line: dict[str, Any] = {"timestamp": "", "level": "", "event": ""}
    if logger.name is not None:
        line["logger"] = logger.name
    line.update(event)
    line["timestamp"] = _now()  # last, so that no field of a caller takes their place
    line["level"] = _ALIASES.get(method, method)
    if error is not None:
        line["exception"] = describe(error)
    return _dump(line)


def _dump(line: dict[str, Any]) -> bytes:
    """Return the line, whatever is in it: what JSON cannot say is said by `str`, what is too long is cut."""
    try:
        data = orjson.dumps(line, default=_text, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a huge integer, a lone surrogate, a circle
        try:
            data = json.dumps(line, default=_text, skipkeys=True).encode() + b"\n"
        except (ValueError, RecursionError):
            line = {key: _text(value) for key, value in line.items()}
            data = json.dumps(line).encode() + b"\n"
    if len(data) <= _MAX_LINE_BYTES:
        return data
    short = {
        key: value if key == "exception" else _text(value) for key, value in line.items()
    }  # an exception is bounded
    return json.dumps(short, default=_text, skipkeys=True).encode() + b"\n"


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a stranger's __str__ may do anything, and a log line must still come out
        return f"({type(value).__name__})"
    return text if len(text) <= _CUT_LENGTH else f"{text[:_CUT_LENGTH]}..."


def _console(*, has_colors: bool) -> Render:
    renderer = structlog.dev.ConsoleRenderer(
        colors=has_colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False, pad_event_to=0
    )

    def render(logger: Any, method: str, event: Event) -> bytes:
        error = _error_of(event.pop("exc_info", None))
        # A control character from a message must not reach the terminal as one.
        shown: dict[str, Any] = {
            key: value if not isinstance(value, str) or value.isprintable() else repr(value)
            for key, value in event.items()
        }
        shown |= {"timestamp": _now()[11:23], "level": _ALIASES.get(method, method)}
        if logger.name is not None:
            shown["logger"] = logger.name
        if error is not None:
            shown["exception"] = in_lines(error)
        return f"{renderer(logger, method, shown)}\n".encode("utf-8", "backslashreplace")

    return render
