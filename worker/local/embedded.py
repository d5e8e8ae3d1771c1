"""`EmbeddedAws`: ministack in a process of its own, on loopback, for as long as its parent lives."""

import asyncio
import errno
import importlib.util
import os
import shlex
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from worker.aws.session import AwsAccess, Credentials
from worker.errors import LongshoreError, UsageError

__all__ = ["EmbeddedAws"]

_HOST = "127.0.0.1"
_REGION = "us-east-1"
_CREDENTIALS = Credentials("longshore-local", "longshore-local")
_START_SECONDS = 30.0
_END_SECONDS = 1.0
_BACKLOG = 1024
_LOG_LINES = 5


class EmbeddedAws:
    """An AWS that lives in memory; an async context manager.

    It checks signatures and policies (`AUTH=true`), so a queue without a policy gets nothing from SNS, as on AWS.
    It listens on loopback only, writes its log to a file, reads nothing of the user's environment, and ends with its
    parent, also when that is killed. Port 0 is one that the system picks. Entering raises `UsageError` without ministack
    and for a port that cannot be listened on.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.endpoint_url = ""
        """Known once entered."""
        self._port = port
        self._folder: Path | None = None
        self._process: Process | None = None

    @property
    def access(self) -> AwsAccess:
        """What `AwsClients` wants to know."""
        return AwsAccess(region=_REGION, endpoint_url=self.endpoint_url, credentials=_CREDENTIALS)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that lead any AWS SDK here, with credentials that may do everything."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": _CREDENTIALS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": _CREDENTIALS.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def shell_line(self) -> str:
        """The line that leads another terminal here; the credentials are the emulator's own."""
        return "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())

    @property
    def log_path(self) -> Path:
        """Where its output goes; gone once left."""
        if self._folder is None:
            raise LongshoreError("the embedded AWS is not running")
        return self._folder / "ministack.log"

    @property
    def pid(self) -> int:
        """Of its process."""
        if self._process is None:
            raise LongshoreError("the embedded AWS is not running")
        return self._process.pid

    async def ended(self) -> NoReturn:
        """Wait until its process ends although nobody has told it to, and raise `LongshoreError` then."""
        if self._process is not None:
            await self._process.wait()
        raise LongshoreError(f"the embedded AWS has ended unasked: {self._last_words() or 'it left no word'}")

    async def __aenter__(self) -> Self:
        if importlib.util.find_spec("ministack") is None:
            raise UsageError(
                f"the embedded AWS needs the package ministack, which is not installed: install Longshore with its extra "
                f"local, by make setup in a checkout or else from its wheel, "
                f"pip install 'longshore-{metadata.version('longshore')}-py3-none-any.whl[local]'"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="longshore-aws-"))
        try:
            # The listening socket is handed over: no other process can take the port in between,
            # and clients that come early wait in its backlog.
            with _listen(self._port) as listening:
                port = listening.getsockname()[1]
                self.endpoint_url = f"http://{_HOST}:{port}"
                await self._spawn(listening.fileno(), port)
            async with asyncio.timeout(_START_SECONDS):
                await self._until_healthy(port)
        except BaseException as error:
            last_words = self._last_words()
            await self._end()
            if isinstance(error, (OSError, EOFError)):  # TimeoutError is an OSError
                raise LongshoreError(f"the embedded AWS did not start: {last_words or error}") from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _spawn(self, listening: int, port: int) -> None:
        script = Path(__file__).with_name("ministack_process.py")
        with self.log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(script), str(listening)),
                stdin=PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._process_environment(port),
                pass_fds=(listening,),
                start_new_session=True,  # Ctrl-C is the parent's: it still has queues to settle with
            )

    def _process_environment(self, port: int) -> Mapping[str, str]:
        folder = str(self._folder)
        return {
            "AUTH": "true",
            "BIND_HOST": _HOST,
            "MINISTACK_HOST": _HOST,
            "GATEWAY_PORT": str(port),
            "MINISTACK_REGION": _REGION,
            "LOG_LEVEL": "WARNING",
            "AWS_ACCESS_KEY_ID": _CREDENTIALS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": _CREDENTIALS.secret_access_key,
            "IOT_MTLS_ENABLED": "0",  # opens another port
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": f"unix://{folder}/no-docker.sock",  # it would tidy up containers that are not ours
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PATH": os.defpath,
            "HOME": folder,
            "TMPDIR": folder,
        }

    async def _until_healthy(self, port: int) -> None:
        """Ask once: the answer comes when it can be given, or the connection breaks because the process ended."""
        reader, writer = await asyncio.open_connection(_HOST, port)
        try:
            writer.write(b"GET /_ministack/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = await reader.readline()
        finally:
            writer.close()
        if b" 200" not in status:
            raise EOFError(f"its health check answered {status!r}")

    def _last_words(self) -> str:
        if self._process is None or not self.log_path.exists():
            return ""
        return " / ".join(self.log_path.read_text(errors="replace").splitlines()[-_LOG_LINES:])

    async def _end(self) -> None:
        process, self._process = self._process, None
        folder, self._folder = self._folder, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port), backlog=_BACKLOG)
    except OSError as error:
        advice = "choose another port, or leave it out to take a free one"
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} on {_HOST} is taken by another process: stop it, {advice}") from error
        if error.errno == errno.EACCES:
            raise UsageError(
                f"port {port} on {_HOST} needs rights that this process does not have: {advice}"
            ) from error
        raise
