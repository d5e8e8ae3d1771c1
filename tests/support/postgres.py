"""`Postgres`: a PostgreSQL from Debian's packages for tests, on loopback, in a folder of its own, while its parent lives."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import asyncpg

__all__ = ["Postgres", "PostgresError"]

_BINARIES: Final = Path("/usr/lib/postgresql")
_HOST: Final = "127.0.0.1"
_USER: Final = "shop"
_PASSWORD: Final = "p@ss/w:rd"
"""Special characters have to be written as %XX in an address."""
_START_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)
_FAST_NOT_SAFE: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresError(Exception):
    """PostgreSQL cannot be started; one sentence says why."""


class Postgres:
    """A server to make databases on; a context manager. Entering raises `PostgresError`.

    It may not run as root, so it then runs as the user `postgres` of Debian's package, or as `nobody`.
    """

    def __init__(self) -> None:
        self.port = 0
        """Known once entered."""
        self._binaries = Path()
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """Return the address of a database, as `ORDERS_DATABASE` has it."""
        return f"postgresql://{_USER}:{quote(_PASSWORD, safe='')}@{_HOST}:{self.port}/{database}"

    async def make_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"orders_{uuid.uuid4().hex[:8]}"
        connection = await self.connect("postgres")
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return self.url(name)

    async def connect(self, database: str) -> Any:
        """Return a connection that may do everything."""
        return await asyncpg.connect(
            host=_HOST, port=self.port, user=_USER, password=_PASSWORD, database=database, timeout=_START_SECONDS
        )

    def __enter__(self) -> Self:
        self._binaries = _newest_binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="longshore-postgres-"))
        try:
            self._initialise()
            with socket.socket() as taken:
                taken.bind((_HOST, 0))
                self.port = taken.getsockname()[1]
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _initialise(self) -> None:
        secret = self._folder / "password"
        secret.write_text(_PASSWORD)
        if (user := _user()) is not None:
            for path in (self._folder, secret):
                shutil.chown(path, user)
        ended = subprocess.run(
            [
                *(
                    self._binaries / "initdb",
                    "--pgdata",
                    self._folder / "data",
                    "--username",
                    _USER,
                    "--pwfile",
                    secret,
                ),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            ],
            user=user,
            cwd=self._folder,
            env={"PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise PostgresError(f"initdb failed: {' '.join(ended.stderr.split())}")

    def start(self) -> None:
        """Start it on its data, and return once it takes connections."""
        settings = (f"listen_addresses={_HOST}", f"port={self.port}", "unix_socket_directories=", *_FAST_NOT_SAFE)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", *(f"--{setting}" for setting in settings)],
                user=_user(),
                cwd=self._folder,
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the tests'
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it only calls what is loaded already
            )
        ends_at = time.monotonic() + _START_SECONDS
        while not self._is_listening():
            if self._process.poll() is not None or time.monotonic() > ends_at:
                said = " / ".join((self._folder / "log").read_text(errors="replace").splitlines()[-3:])
                raise PostgresError(f"PostgreSQL did not start: {said or 'it said nothing'}")
            time.sleep(0.05)

    def _is_listening(self) -> bool:
        """Whether it says so; the port alone could be anybody's, and it listens before it serves."""
        return b"ready to accept connections" in (self._folder / "log").read_bytes()

    def stop(self) -> None:
        """End it at once; its data stays."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it and its sessions stand still while inside: it takes connections, and answers none."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        everyone = [self._process.pid, *map(int, children)]
        _signal(everyone, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(everyone, signal.SIGCONT)

    def _end(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # a session that has ended
            os.kill(process, number)


def _newest_binaries() -> Path:
    found = sorted(_BINARIES.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise PostgresError(
            f"there is no PostgreSQL under {_BINARIES}: install it with `apt-get install postgresql`, or leave these "
            f"tests out (-m 'not postgres')"
        )
    return found[-1].parent


def _user() -> str | None:
    """Return whom the server runs as, where that is not us."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _end_with_parent() -> None:
    """Let the kernel end the server when the tests are gone, whatever killed them."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
