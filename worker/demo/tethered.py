"""`Tethered`: a program in a process of its own that ends with us, whatever ends us.

Run by path, so that it imports nothing of Longshore, this file is what stands in between for a moment:
`python -P tethered.py PARENT PROGRAM ARGUMENT...` has the kernel kill it when its parent is gone, and becomes the program.
"""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Self

__all__ = ["Tethered"]

_PR_SET_PDEATHSIG = 1
_LAST_WORDS_LENGTH = 500


class Tethered:
    """A running program; what it says goes to a file."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls, name: str, command: tuple[str, ...], log: Path, environment: Mapping[str, str], *, told: str = ""
    ) -> Self:
        """Start the command in the folder of its log; `told` is what it can read from standard input."""
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(Path(__file__)), str(os.getpid()), *command),
                stdin=PIPE,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is ours
            )
        if process.stdin is not None:
            process.stdin.write(told.encode())
            process.stdin.close()
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it has ended; `None` while it runs."""
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The last line that it has said."""
        lines = self.log.read_text(errors="replace").splitlines() or ["it left no word"]
        return lines[-1][-_LAST_WORDS_LENGTH:]

    async def end(self, *, within_seconds: float) -> int:
        """Tell it to stop, kill it when it has not in time or when we are cancelled, and return its exit status."""
        try:
            async with asyncio.timeout(within_seconds):
                if self._process.returncode is None:
                    self._process.terminate()
                return await self._process.wait()
        except TimeoutError:
            return await self._kill()
        except asyncio.CancelledError:
            await self._kill()
            raise

    async def _kill(self) -> int:
        if self._process.returncode is None:
            self._process.kill()
        return await self._process.wait()


def _become(parent: int, command: list[str]) -> NoReturn:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel knew
        os._exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the program that our parent names


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
