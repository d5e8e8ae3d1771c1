"""`Demo`: a script is played in a folder that goes with it, unless something has to be looked into."""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from worker.demo.show import Show
from worker.errors import LongshoreError

__all__ = ["INTERRUPTED", "PATIENCE_SECONDS", "Demo", "Script", "verdict"]

INTERRUPTED: Final = 130
"""What shells expect of a program that Ctrl-C has ended."""
PATIENCE_SECONDS: Final = 120.0
"""How long everything that was published may take to end."""


class Script(Protocol):
    """What is to happen to a fleet."""

    async def play(self, show: Show, folder: Path) -> int:
        """Let it happen; return 0 when the books balance, 1 when they do not, 130 when it was interrupted."""


class Demo:
    """Plays a script and shows it."""

    def __init__(self, show: Show, script: Script) -> None:
        self._show = show
        self._script = script

    async def run(self) -> int:
        """Return 0 when the books balance, 1 when they do not, 130 when the demo was interrupted."""
        folder = Path(tempfile.mkdtemp(prefix="longshore-demo-"))
        try:
            status = await self._script.play(self._show, folder)
        except (LongshoreError, asyncio.CancelledError):
            shutil.rmtree(folder)
            raise
        if status in {0, INTERRUPTED}:
            shutil.rmtree(folder)
        else:
            self._show.say(f"what the workers have logged is in {folder}")
        return status


def verdict(show: Show, faults: Sequence[str], *, is_complete: bool, balanced: str) -> int:
    """Say what does not balance, or that the books do, and return the exit status."""
    for fault in faults:
        show.say(f"books do not balance: {fault}")
    if not is_complete:
        show.say("the demo ended before every event had")
    if faults or not is_complete:
        return 1
    show.say(f"books balance: {balanced}")
    return 0
