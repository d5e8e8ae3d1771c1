"""The crash journal: which messages were being handled when the process died, for the one that starts next."""

import asyncio
import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Journal", "NoJournal", "Suspects", "suspects"]

CONVICTING_DEATHS: Final = 2
_LONGEST_ID: Final = 120
"""SQS's message ids have 36 characters."""
_SLOT: Final = struct.Struct(f"<II{_LONGEST_ID}s")
"""Length of the message id (0: free), processes that have died of it before, message id."""
NOWHERE: Final = -1
_SUFFIX: Final = ".journal"
_TOKEN_BYTES: Final = 8


class Suspects:
    """The messages that were being handled in processes that died; one of them may have killed its process."""

    def __init__(self, found: Mapping[str, int] | None = None) -> None:
        """Take message ids, each with how many processes have died while they handled it and nothing else."""
        self._open = dict(found or {})
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        """How many have not ended well or ill since."""
        return len(self._open)

    def __contains__(self, message_id: object) -> bool:
        """Whether the message was being handled when a process died, and has not ended since."""
        return message_id in self._open

    def deaths(self, message_id: str) -> int:
        """Return how many processes have died while they handled this message and nothing else, as far as is known.

        One that was handled beside others is run again, alone: its neighbours go free.
        """
        return self._open.get(message_id, 0)

    def is_crasher(self, message_id: str) -> bool:
        """Whether it has killed: once may be somebody's `kill -9`, or the machine's."""
        return self.deaths(message_id) >= CONVICTING_DEATHS

    def clear(self, message_id: str) -> None:
        """Note that the message has come again and that the process has survived it."""
        if self._open and self._open.pop(message_id, None) is not None:
            self._fewer.set()

    async def until_fewer(self) -> None:
        """Wait until another one is cleared."""
        self._fewer.clear()
        await self._fewer.wait()


class NoJournal:
    """Where nothing can be written, nothing is suspected after a crash."""

    def begin(self, message_id: str, deaths: int) -> int:
        """Forget it."""
        del message_id, deaths
        return NOWHERE

    def end(self, slot: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Journal(NoJournal):
    """A file that says what runs in this process, for one queue; it outlives the process, however that ends.

    Its slots lie in memory that the kernel keeps (a shared mapping), so a message costs no system call. The file is locked
    while its process lives, so that others can tell a journal of the living from one of the dead. A crash of the whole
    machine may lose it; then nothing is suspected.
    """

    def __init__(self, folder: Path, queue: str, size: int) -> None:
        """Open a new journal with room for `size` messages; raise `OSError` when the folder cannot be written."""
        self._path = (
            folder / f"{queue}.{secrets.token_hex(_TOKEN_BYTES)}{_SUFFIX}"
        )  # containers that share a folder share pids, too
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._file, bytes(_SLOT.size * size))  # a hole would end the process when the disk is full: SIGBUS
        self._memory = mmap.mmap(self._file, _SLOT.size * size)
        self._free = list(range(size))

    def begin(self, message_id: str, deaths: int) -> int:
        """Write down that a message is being handled, and what is known of it; return its slot for `end`."""
        if not self._free:  # SQS gave more than was asked for
            return NOWHERE
        slot = self._free.pop()
        name = message_id.encode()[:_LONGEST_ID]
        _SLOT.pack_into(self._memory, slot * _SLOT.size, len(name), deaths, name)
        return slot

    def end(self, slot: int) -> None:
        """Write down that it is over, however it ended."""
        if slot != NOWHERE and not self._memory.closed:
            _SLOT.pack_into(self._memory, slot * _SLOT.size, 0, 0, b"")
            self._free.append(slot)

    def close(self) -> None:
        """Remove the journal: the process ends by itself, even if a handler ignores that."""
        with suppress(OSError):
            self._path.unlink()
        self._memory.close()
        os.close(self._file)


def suspects(folder: Path, queue: str) -> Suspects:
    """Read the journals that dead processes have left, and remove them."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob(f"{queue}.{'[0-9a-f]' * 2 * _TOKEN_BYTES}{_SUFFIX}")):  # not those of `{queue}.fifo`
        with suppress(OSError):
            left = _take(path)
            found |= {message_id: deaths + (len(left) == 1) for message_id, deaths in left.items()}
    return Suspects(found)


def _take(path: Path) -> dict[str, int]:
    """Return the messages in a journal, with their earlier deaths, and remove it; nothing when its process lives."""
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = os.read(file, os.fstat(file).st_size)
        path.unlink()
    finally:
        os.close(file)
    return dict(_messages(content))


def _messages(content: bytes) -> Iterator[tuple[str, int]]:
    for start in range(0, len(content) - _SLOT.size + 1, _SLOT.size):
        length, deaths, name = _SLOT.unpack_from(content, start)
        if length:
            yield name[:length].decode(errors="replace"), deaths
