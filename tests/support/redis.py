"""`Redis`: a Redis from Debian's packages for tests, on loopback, without a file, while its parent lives."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

__all__ = ["Redis", "RedisError"]

_HOST: Final = "127.0.0.1"
_PASSWORD: Final = "p@ss/w:rd"
"""Special characters have to be written as %XX in an address."""
_DATABASES: Final = 1000
_START_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class RedisError(Exception):
    """It cannot be started."""


class Redis:
    """A server of its own; a context manager."""

    def __init__(self) -> None:
        self.port = 0
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the database that is there without asking."""
        return f"redis://:{quote(_PASSWORD, safe='')}@{_HOST}:{self.port}/0"

    def make_database(self) -> str:
        """Return the address of a database that no other test uses."""
        self._databases += 1
        return f"redis://:{quote(_PASSWORD, safe='')}@{_HOST}:{self.port}/{self._databases}"

    def __enter__(self) -> Self:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise RedisError("there is no redis-server: apt-get install redis-server, or leave these tests out")
        self._program = program
        with socket.socket() as taken:
            taken.bind((_HOST, 0))
            self.port = taken.getsockname()[1]
        self._folder = Path(tempfile.mkdtemp(prefix="longshore-redis-"))
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def start(self) -> None:
        """Start it, empty, and return once it takes connections."""
        settings = {"bind": _HOST, "port": self.port, "save": "", "requirepass": _PASSWORD, "databases": _DATABASES}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, *(text for name, value in settings.items() for text in (f"--{name}", str(value)))],
                cwd=self._folder,
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the tests'
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it only calls what is loaded already
            )
        ends_at = time.monotonic() + _START_SECONDS
        while b"Ready to accept connections" not in (self._folder / "log").read_bytes():
            if self._process.poll() is not None or time.monotonic() > ends_at:
                said = (self._folder / "log").read_text(errors="replace").splitlines()[-3:]
                raise RedisError(f"Redis did not start: {' / '.join(said) or 'it said nothing'}")
            time.sleep(0.05)

    def pause(self) -> None:
        """Let it stand still: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; what has ended meanwhile has ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it; it forgets everything."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _end_with_parent() -> None:
    """Let the kernel end the server when the tests are gone, whatever killed them."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
