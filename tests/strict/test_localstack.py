"""LocalStack as the strict tests use it: on loopback, gone with its parent, and never silently absent."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.localstack import PYTHON, LocalStack, LocalStackError

pytestmark = pytest.mark.strict
ROOT = Path(__file__).parents[2]

HOST = """
import os, sys, time
from pathlib import Path
from support.localstack import LocalStack

with LocalStack(Path(sys.argv[1])) as aws:
    os.fork() or (time.sleep(10), os._exit(0))  # another child, in which the pipe to LocalStack stays open
    print(aws.endpoint_url, flush=True)
    time.sleep(60)
"""


def is_answering(host: str, endpoint_url: str) -> bool:
    """Say whether anybody listens at `host` on the endpoint's port."""
    try:
        socket.create_connection((host, urlsplit(endpoint_url).port), timeout=1).close()
    except OSError:
        return False
    return True


def test_it_listens_on_loopback_only(strict_aws: LocalStack) -> None:
    """Another address of this machine, here a second loopback one, finds nobody on its port."""
    assert is_answering("127.0.0.1", strict_aws.endpoint_url)
    assert not is_answering("127.0.0.2", strict_aws.endpoint_url)


def test_it_keeps_a_log(strict_aws: LocalStack) -> None:
    """Every call is in it, for who looks for the cause of a failed test."""
    assert "AWS sqs.ListQueues => 200" in strict_aws.log_path.read_text()


def test_it_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """`kill -9` of the tests leaves no LocalStack behind; on Linux not even when another child keeps its pipe open."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    command = [sys.executable, "-c", HOST, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        endpoint_url = host.stdout.readline().strip()
        assert is_answering("127.0.0.1", endpoint_url)
        host.kill()
    deadline = time.monotonic() + (5 if sys.platform == "linux" else 15)
    while is_answering("127.0.0.1", endpoint_url):
        assert time.monotonic() < deadline, "LocalStack outlives its parent"
        time.sleep(0.05)


def test_without_an_installation_it_says_what_to_run(tmp_path: Path) -> None:
    """The strict tests fail then; a skipped suite would look like one that passed."""
    with pytest.raises(LocalStackError, match=r"is not installed: there is no .*; run: make strict"):
        LocalStack(tmp_path, python=tmp_path / "python").__enter__()


def test_a_process_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no wheel for this machine >&2\nexit 1\n")
    broken.chmod(0o700)
    with pytest.raises(LocalStackError, match=r"did not start .*no wheel for this machine; all of it is in .*\.log"):
        LocalStack(tmp_path, python=broken).__enter__()


def test_it_is_the_version_that_is_asked_for() -> None:
    """An old installation is renewed when the lock changes."""
    script = "import importlib.metadata as m; print(m.version('localstack-core'))"
    found = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert f"localstack-core=={found} " in (ROOT / "requirements-localstack.lock").read_text()
