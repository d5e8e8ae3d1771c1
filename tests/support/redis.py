"""`RedisServer`: a Redis from Debian's packages for tests, on loopback, on a free port, in memory only."""

import shutil
import socket
import subprocess
import time
from typing import Self

__all__ = ["RedisServer"]

_START_SECONDS = 10.0


class RedisServer:
    """A server; a context manager. It can be stopped and started again on its port, and then knows nothing any more."""

    def __init__(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when it answers."""
        binary = shutil.which("redis-server")
        if binary is None:
            raise FileNotFoundError("there is no redis-server: apt-get install redis-server, or leave out -m redis")
        self._process = subprocess.Popen(
            [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        ends_at = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert time.monotonic() < ends_at, "redis-server did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
