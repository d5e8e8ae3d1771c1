"""`longshore local`: an embedded AWS for terminals of one's own, for as long as it is wanted."""

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.command import COMMAND, clean_environment, longshore, mistake

from worker.errors import LongshoreError
from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration

FLEET = """
topics: {events: {}}
queues:
  orders:
    handlers: nowhere:router
    subscribe: [{topic: events}]
"""
Local = subprocess.Popen[str]


@contextmanager
def local(folder: Path, *arguments: str) -> Iterator[tuple[Local, Mapping[str, str]]]:
    """Run `longshore local` and yield it with the variables of its line; it is ended if the test has not done so."""
    process = subprocess.Popen(
        [*COMMAND, "local", *arguments],
        cwd=folder,
        env=clean_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            export, *variables = shlex.split(process.stdout.readline()) or [""]
            assert export == "export"
            yield process, dict(each.split("=", 1) for each in variables)
        finally:
            if process.poll() is None:
                process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def is_listening(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_its_line_leads_another_terminal_to_the_fleets_topology(tmp_path: Path) -> None:
    """On the port that was asked for; standard output holds the line alone, so that a shell can read it from a file."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    port = free_port()
    with local(tmp_path, "--port", str(port), "--config", "fleet.yaml") as (process, environment):
        assert environment["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"
        there = longshore("topology", "plan", "--check", folder=tmp_path, environment=environment)
        assert (there.returncode, there.stdout, there.stderr) == (0, "nothing to do\n", "")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert err == "The embedded AWS with 4 resources lives until Ctrl-C. In other terminals:\n"
    assert not is_listening(port)


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT, signal.SIGTERM]])
def test_signals_end_it_in_order_however_many(tmp_path: Path, signals: list[signal.Signals]) -> None:
    """The status is 0, its folder and its AWS are gone, and it looks at no fleet file that it was not given."""
    (tmp_path / "fleet.yaml").write_text("nonsense")
    with local(tmp_path) as (process, environment):
        for number in signals:
            process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "The embedded AWS lives until Ctrl-C. In other terminals:\n")
    assert not is_listening(int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2]))


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    """It names the port and what to do; nothing was started (X1)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        ended = longshore("local", "--port", str(port), folder=tmp_path)
    sentence = mistake(ended)
    assert f"port {port} on 127.0.0.1 is taken by another process: stop it, choose another port" in sentence
    assert ended.stdout == ""


def test_a_fleet_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    assert "nowhere.yaml does not exist" in mistake(longshore("local", "--config", "nowhere.yaml", folder=tmp_path))


async def test_an_aws_that_ends_by_itself_is_reported() -> None:
    """Else the terminals would talk to nobody while this one still says that it lives."""
    async with EmbeddedAws() as aws:
        os.kill(aws.pid, signal.SIGKILL)
        with pytest.raises(LongshoreError, match="the embedded AWS has ended unasked"):
            await aws.ended()
