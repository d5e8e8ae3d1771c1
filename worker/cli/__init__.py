"""The commands of `longshore`: each is one function whose docstring is its help."""

import sys
from contextlib import suppress
from errno import EFBIG, EIO, ENOSPC

__all__ = ["main"]

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C has ended."""
OUTPUT_FAILS = {ENOSPC, EFBIG, EIO}


def main() -> None:
    """Run the command line: exit 2 for a user's mistake, 1 for a failure, each told in one sentence."""
    try:
        status = _run()
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def _run() -> int:
    from worker.cli.streams import mend_standard_streams

    mend_standard_streams()  # before anything opens a file or a socket

    from typer import TyperException

    from worker.cli.app import app
    from worker.errors import LongshoreError, UsageError

    try:
        return app(prog_name="longshore", standalone_mode=False) or 0
    except TyperException as error:
        return _told(_advice(error), 2)
    except UsageError as error:
        return _told(str(error), 2)
    except LongshoreError as error:
        return _told(str(error), 1)
    except OSError as error:  # what a command foresees it tells itself
        place = error.filename or ("standard output" if error.errno in OUTPUT_FAILS else None)
        reason = error.strerror or str(error)
        return _told(f"{place}: {reason}" if place else reason, 1)


def _advice(error: Exception) -> str:
    """Return the sentence of a wrong command line; the help, if a command was given without what it needs."""
    text = str(error.format_message())  # type: ignore[attr-defined]  # what the parser raises has it
    if "\n" in text:
        return text
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "longshore"
    text = text.rstrip(".").replace(". Did you", ", did you")
    return f"{text[:1].lower()}{text[1:]} (see {command} --help)"


def _told(text: str, status: int) -> int:
    with suppress(OSError):
        sys.stderr.write(text + "\n" if text.startswith("Usage:") else f"longshore: {' '.join(text.splitlines())}\n")
    return status
