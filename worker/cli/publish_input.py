"""What comes from the command line: a moment, and lines from a file or from a pipe that may never end, with their numbers."""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from worker.errors import UsageError
from worker.publisher.composer import Outgoing
from worker.publisher.lines import LineError, read_line

__all__ = ["Input", "Line", "read_moment"]

MAX_LINE_BYTES: Final = 8_388_608
"""More than the largest message needs when every character of it is escaped."""
_CHUNK_BYTES: Final = 65_536
_CHUNKS_AHEAD: Final = 4
_BOM: Final = b"\xef\xbb\xbf"


class Line:
    """One line that is not blank."""

    __slots__ = ("_content", "number")

    def __init__(self, number: int, content: bytes | None) -> None:
        self.number = number
        self._content = content

    def read(self, event_type: str | None, group_id: str | None) -> Outgoing:
        """Return the event of the line; raise `LineError`."""
        if self._content is None:
            raise LineError(f"is longer than {MAX_LINE_BYTES:,} bytes")
        try:
            text = self._content.decode()
        except UnicodeDecodeError as error:
            why = f"is not UTF-8, at byte {error.start + 1}"
        else:
            return read_line(text, event_type=event_type, group_id=group_id)
        raise LineError(why)  # out here, because the decoder's error holds the line


class Input:
    """`--file PATH`, or standard input for `-`; lines before `from_line` are left out.

    Raises `UsageError` when it cannot be opened.
    """

    def __init__(self, path: str, from_line: int) -> None:
        self.name = "standard input" if path == "-" else path
        self._from_line = from_line
        try:
            self._descriptor = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY)
            mode = os.fstat(self._descriptor).st_mode
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is closed"
            raise UsageError(f"{self.name} cannot be read ({why}): name a file of JSON lines with --file") from None
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory: name a file of JSON lines with --file")
        self.can_be_read_twice = path != "-" and stat.S_ISREG(mode)

    def lines(self) -> Iterator[Line]:
        """Yield the lines of a file, from its beginning; raise `UsageError` where it cannot be read."""
        splitter = _Splitter(self._from_line)
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while chunk := os.read(self._descriptor, _CHUNK_BYTES):
                yield from splitter.split(chunk)
        except OSError as error:
            raise UsageError(f"{self.name} cannot be read ({error.strerror}): try a copy of it") from None
        yield from splitter.rest()

    async def stream(self) -> AsyncIterator[Line]:
        """Yield the lines of a file or pipe as they come; the event loop goes on while a pipe is silent."""
        if self.can_be_read_twice:
            for line in self.lines():
                yield line
            return
        splitter = _Splitter(self._from_line)
        async for chunk in _chunks(self._descriptor):
            for line in splitter.split(chunk):
                yield line
        for line in splitter.rest():
            yield line


def read_moment(text: str | None) -> datetime | None:
    """Read `--expires-at`, where it is given; raise `UsageError` for what is no moment."""
    if text is None:
        return None
    for read in (_unix_seconds, datetime.fromisoformat):
        with suppress(ValueError, OverflowError, OSError):
            moment = read(text)
            if moment.tzinfo is not None:
                return moment
    raise UsageError(
        f"--expires-at is {text[:40]!r}, but must be a time with its zone such as 2027-01-01T00:00:00Z, or Unix seconds"
    )


def _unix_seconds(text: str) -> datetime:
    return datetime.fromtimestamp(float(text), UTC)


class _Splitter:
    """Cuts chunks into lines; of a line that is too long it keeps no more than that there was one."""

    def __init__(self, from_line: int) -> None:
        self._from_line = from_line
        self._number = 0
        self._open: list[bytes] = []
        self._open_bytes = 0

    def split(self, chunk: bytes) -> Iterator[Line]:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._keep(part)
            yield from self.rest()
        self._keep(rest)

    def rest(self) -> Iterator[Line]:
        """End the line that is open."""
        content = None if self._open_bytes > MAX_LINE_BYTES else b"".join(self._open)
        self._open, self._open_bytes = [], 0
        self._number += 1
        if self._number == 1 and content is not None:
            content = content.removeprefix(_BOM)
        if self._number >= self._from_line and (content is None or content.strip()):
            yield Line(self._number, content)

    def _keep(self, part: bytes) -> None:
        self._open_bytes += len(part)
        if self._open_bytes <= MAX_LINE_BYTES:
            self._open.append(part)


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    """Read in a thread that ends with the process: a read that waits for a pipe cannot be cancelled."""
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[bytes] = asyncio.Queue()
    wanted = threading.Semaphore(_CHUNKS_AHEAD)

    def pump() -> None:
        chunk = b"-"
        with suppress(RuntimeError):  # the loop has ended before the pipe
            while chunk:
                wanted.acquire()
                try:
                    chunk = os.read(descriptor, _CHUNK_BYTES)
                except OSError:  # a terminal that went away is an end
                    chunk = b""
                loop.call_soon_threadsafe(read.put_nowait, chunk)

    threading.Thread(target=pump, name="input", daemon=True).start()
    while chunk := await read.get():
        wanted.release()
        yield chunk
