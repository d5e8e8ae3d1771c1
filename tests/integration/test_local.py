"""The embedded AWS: quick to come, sure to go."""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.aws.session import AwsClients
from worker.errors import LongshoreError, UsageError
from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]

HOST = """
import asyncio, os, time
from worker.local import EmbeddedAws

async def main():
    async with EmbeddedAws() as aws:
        {before}
        print(aws.pid, flush=True)
        await asyncio.sleep({seconds})

asyncio.run(main())
"""


def start_host(*, before: str = "", seconds: float = 60) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOST.format(before=before, seconds=seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_running(pid: int) -> bool:
    """Say whether the process exists; one that ended and was not reaped does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        os.kill(pid, 0)
        return True
    return state != "Z"


def wait_until_gone(pid: int, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} outlives its parent"
        time.sleep(0.02)


async def test_it_starts_and_ends_quickly_and_leaves_no_file() -> None:
    aws = EmbeddedAws()
    async with aws:
        pid, log = aws.pid, aws.log_path
        assert aws.endpoint_url.startswith("http://127.0.0.1:")
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert not is_running(pid)
    assert not log.parent.exists()
    with pytest.raises(LongshoreError):
        _ = aws.pid


async def test_two_do_not_meet() -> None:
    """Each has its own port and its own queues."""
    async with EmbeddedAws() as one, EmbeddedAws() as other:
        assert one.endpoint_url != other.endpoint_url
        async with AwsClients(one.access) as ones, AwsClients(other.access) as others:
            await ones.settle.call("create_queue", QueueName="only-here")
            assert not (await others.settle.call("list_queues")).get("QueueUrls")


def test_its_environment_leads_any_sdk_there(embedded_aws: EmbeddedAws) -> None:
    """A child process with these variables talks to the embedded AWS without further settings."""
    script = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    environment: Mapping[str, str] = {**os.environ, **embedded_aws.environment}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip().endswith(":root")


HOLD_THE_PIPE = "os.fork() or (time.sleep(8), os._exit(0))"  # another child, in which the pipe stays open


@pytest.mark.parametrize("before", ["", HOLD_THE_PIPE] if sys.platform == "linux" else [""])
def test_it_ends_with_a_killed_parent(before: str) -> None:
    """`kill -9` of the parent leaves no ministack behind; on Linux not even when another child keeps its pipe open."""
    host = start_host(before=before)
    assert host.stdout is not None
    assert host.stderr is not None
    with host.stdout, host.stderr:
        pid = int(host.stdout.readline())
        assert is_running(pid)
        host.kill()
        host.wait()
        wait_until_gone(pid, seconds=2)


def test_it_writes_nothing_to_the_terminal() -> None:
    with start_host(seconds=0) as host:
        out, err = host.communicate(timeout=30)
    assert out.strip().isdigit()
    assert err == ""
    assert host.returncode == 0


async def test_without_ministack_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is a user's mistake, with the commands that mend it; the public index has another Longshore (X1)."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"make setup .* pip install 'longshore-[0-9.]+-py3-none-any\.whl\[local\]'$"):
        await EmbeddedAws().__aenter__()


async def test_a_process_that_ends_at_once_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LongshoreError, match="did not start"):
        async with asyncio.timeout(20):
            await EmbeddedAws().__aenter__()
