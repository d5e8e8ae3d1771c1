"""`LocalStack`: the AWS of the strict tests, in a process and a venv of its own, on loopback, while its parent lives."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker.aws.session import AwsAccess, Credentials

__all__ = ["PYTHON", "LocalStack", "LocalStackError"]

PYTHON = Path(__file__).parents[2] / ".venv-localstack" / "bin" / "python"
"""Made by `make strict`: LocalStack pins a botocore of its own, so it cannot share our venv."""

_HOST = "127.0.0.1"
_REGION = "us-east-1"
_CREDENTIALS = Credentials("longshore-strict", "longshore-strict")
_SERVICES = ("cloudwatch", "s3", "sns", "sqs", "sts")
_START_SECONDS = 90.0
_BACKLOG = 1024
_LOG_LINES = 5


class LocalStackError(Exception):
    """LocalStack cannot be started; one sentence says why and where its log lies."""


class LocalStack:
    """SQS, SNS, S3, CloudWatch and STS in memory, stricter than the embedded AWS about SQS; a context manager.

    It listens on loopback only, on a port the system picks, writes `localstack.log` and everything else into `folder`,
    reads nothing of the user's environment, calls nobody, and ends with its parent, also when that is killed.
    Entering raises `LocalStackError`.
    """

    def __init__(self, folder: Path, *, python: Path = PYTHON) -> None:
        self.endpoint_url = ""
        """Known once entered."""
        self.log_path = folder / "localstack.log"
        self._folder = folder
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def access(self) -> AwsAccess:
        """What `AwsClients` wants to know."""
        return AwsAccess(region=_REGION, endpoint_url=self.endpoint_url, credentials=_CREDENTIALS)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that lead any AWS SDK here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": _CREDENTIALS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": _CREDENTIALS.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def pid(self) -> int:
        """Of its process, and of its process group."""
        assert self._process is not None, "LocalStack is not running"
        return self._process.pid

    def __enter__(self) -> Self:
        if not self._python.exists():
            raise LocalStackError(f"LocalStack is not installed: there is no {self._python}; run: make strict")
        try:
            # The listening socket is handed over: no other process can take the port in between,
            # and clients that come early wait in its backlog.
            with socket.create_server((_HOST, 0), backlog=_BACKLOG) as listening:
                port = listening.getsockname()[1]
                self.endpoint_url = f"http://{_HOST}:{port}"
                self._spawn(listening.fileno(), port)
            self._until_healthy(port)
        except BaseException as error:
            self._end()
            if isinstance(error, (OSError, http.client.HTTPException, ValueError)):  # the last is what is no JSON
                raise LocalStackError(
                    f"LocalStack did not start ({error!r}): {self._last_words()}; all of it is in {self.log_path}"
                ) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _spawn(self, listening: int, port: int) -> None:
        script = Path(__file__).with_name("localstack_process.py")
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-P", str(script), str(listening)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._process_environment(port),
                pass_fds=(listening,),
                start_new_session=True,  # Ctrl-C is the tests': they still have queues to delete
            )

    def _process_environment(self, port: int) -> Mapping[str, str]:
        folder = str(self._folder)
        return {
            "SERVICES": ",".join(_SERVICES),
            "EAGER_SERVICE_LOADING": "1",
            "GATEWAY_LISTEN": f"{_HOST}:{port}",
            "LOCALSTACK_HOST": f"{_HOST}:{port}",
            "SQS_ENDPOINT_STRATEGY": "path",  # else queue URLs name hosts that only some resolvers know
            "SQS_DELAY_PURGE_RETRY": "1",  # as AWS: one purge a minute
            "SQS_DELAY_RECENTLY_DELETED": "1",  # as AWS: a name is free again after a minute
            "SQS_ENABLE_MESSAGE_RETENTION_PERIOD": "1",
            "DISABLE_EVENTS": "1",  # it would report its use
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",  # it would serve DNS
            "OVERRIDE_IN_DOCKER": "0",  # in a container too it is a process among others
            "DOCKER_HOST": f"unix://{folder}/no-docker.sock",
            "LOCALSTACK_VOLUME_DIR": folder,
            "FILESYSTEM_ROOT": folder,
            "PATH": os.defpath,
            "HOME": folder,
        }

    def _until_healthy(self, port: int) -> None:
        """Ask until every service runs, then once for queues: the first call of all takes seconds, more than a test waits.

        A connection breaks when the process ends.
        """
        ends_at = time.monotonic() + _START_SECONDS
        while (left := ends_at - time.monotonic()) > 0:
            states = _answer(port, left, "GET", "/_localstack/health")["services"]
            if all(states.get(service) == "running" for service in _SERVICES):
                _answer(port, left, "POST", "/", {"X-Amz-Target": "AmazonSQS.ListQueues"})
                return
            time.sleep(0.1)
        raise TimeoutError(f"not healthy within {_START_SECONDS:g} s")

    def _last_words(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return " / ".join(lines[-_LOG_LINES:]) or "it said nothing"

    def _end(self) -> None:
        """Kill it: its world is in memory and in a folder that nobody needs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answer(
    port: int, timeout_seconds: float, method: str, path: str, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    connection = http.client.HTTPConnection(_HOST, port, timeout=timeout_seconds)
    try:
        connection.request(method, path, "{}" if method == "POST" else None, headers or {})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()
