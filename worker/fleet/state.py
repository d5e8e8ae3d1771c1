"""The folder where a process keeps what the next one must know: its crash journals."""

import os
import tempfile
from pathlib import Path

import structlog

from worker.engine.journal import Journal, NoJournal, Suspects, suspects
from worker.settings import FleetSettings

__all__ = ["State"]

log = structlog.get_logger("state")


class State:
    """The `state_dir` of a fleet, or a folder of the user's in the system's temporary one.

    Where it cannot be used, one warning says so, and a message that kills its process is not recognised.
    """

    def __init__(self, settings: FleetSettings) -> None:
        self.folder = Path(
            settings.state_dir or Path(tempfile.gettempdir()) / f"longshore-{settings.service}-{os.getuid()}"
        )
        self._is_anybodys = settings.state_dir is None
        self._is_usable = self._make()

    def journal(self, queue: str, size: int) -> tuple[NoJournal, Suspects]:
        """Return a new journal for as many messages of a queue as may be handled at once, and what those of dead processes say."""
        if self._is_usable:
            try:
                return Journal(self.folder, queue, size), suspects(self.folder, queue)
            except OSError as error:
                self._complain(error)
        return NoJournal(), Suspects()

    def _make(self) -> bool:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.folder.stat().st_uid
            if self._is_anybodys and owner != os.getuid():  # what a stranger has laid out there is not to be believed
                raise PermissionError(f"it belongs to user {owner}")
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: OSError) -> None:
        self._is_usable = False
        log.warning("state_dir cannot be used: a message that kills its process will not be recognised; mount a folder that can be written, or set state_dir", state_dir=str(self.folder), error=str(error))  # fmt: skip
