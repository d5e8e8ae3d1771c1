"""`longshore healthcheck`: one question to the worker next door, one answer as an exit status."""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from worker.cli import main

Healthcheck = Callable[..., tuple[object, str]]

QUEUES = {"queues": {"orders": {"handlers": "handlers:router", "dead_letter": "none"}}}


class Worker(BaseHTTPRequestHandler):
    """Answers what the test wants."""

    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b"{}"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a worker that is alive, until the test says otherwise."""
    monkeypatch.setattr(Worker, "asked", [])
    with HTTPServer(("127.0.0.1", 0), Worker) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def healthcheck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Healthcheck:
    """Return a function that runs the command with variables, and returns its status and what it complained about."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(json.dumps(QUEUES))

    def run(*arguments: str, **variables: object) -> tuple[object, str]:
        for name, value in variables.items():
            monkeypatch.setenv(f"LONGSHORE_{name}", str(value))
        monkeypatch.setattr(sys, "argv", ["longshore", "healthcheck", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert out == ""
        return ended.value.code, err

    return run


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - as in a container
def test_a_worker_that_is_alive_exits_with_0(healthcheck: Healthcheck, port: int, host: str) -> None:
    """It is looked for where fleet file and environment say that it listens; everywhere means here."""
    assert healthcheck(SERVER__HOST=host, SERVER__PORT=port) == (0, "")
    assert Worker.asked == ["/livez"]


def test_another_url_may_be_asked_and_needs_no_fleet_file(healthcheck: Healthcheck, port: int) -> None:
    assert healthcheck("--url", f"http://127.0.0.1:{port}/readyz?full=1", CONFIG="nowhere.yaml") == (0, "")
    assert Worker.asked == ["/readyz?full=1"]


def test_a_worker_that_is_not_alive_exits_with_1_and_its_reasons(
    healthcheck: Healthcheck, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "status", 503)
    monkeypatch.setattr(Worker, "body", b'{"alive": false, "problems": ["receive-orders", "beat-orders"]}')
    url = f"http://127.0.0.1:{port}/livez"
    assert healthcheck(SERVER__PORT=port) == (1, f"longshore: {url} answers 503: receive-orders; beat-orders\n")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"problems": 3}', b'{"problems": null}'])
def test_an_answer_that_is_not_the_workers_exits_with_1(
    healthcheck: Healthcheck, port: int, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Worker, "status", 404)
    monkeypatch.setattr(Worker, "body", body)
    status, said = healthcheck(SERVER__PORT=port)
    assert status == 1
    assert said.endswith("answers 404, but 200 is what says that all is well\n")


@pytest.mark.parametrize(
    ("listens_on", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]")],  # noqa: S104 - likewise
)
def test_nobody_there_exits_with_1_and_the_address_that_was_asked(
    healthcheck: Healthcheck, listens_on: str, asked: str
) -> None:
    status, said = healthcheck(SERVER__HOST=listens_on, SERVER__PORT=1)
    assert status == 1
    assert re.fullmatch(
        rf"longshore: http://{re.escape(asked)}:1/livez does not answer \([\w ]+\): is the worker running\?\n", said
    )


@pytest.mark.parametrize(
    "url",
    ["", " ", "127.0.0.1:8080", "https://127.0.0.1/livez", "http://", "http://h:x/", "http://h:99999/", "http://h/a b"],
)
def test_a_url_that_is_none_exits_with_2(healthcheck: Healthcheck, url: str) -> None:
    status, said = healthcheck("--url", url)
    assert status == 2
    assert said == f"longshore: --url is {url!r}, but must be one such as http://127.0.0.1:8080/readyz\n"


def test_a_port_that_only_the_worker_knows_exits_with_2(healthcheck: Healthcheck) -> None:
    status, said = healthcheck(SERVER__PORT=0)
    assert status == 2
    assert said.startswith("longshore: server.port is 0, so the worker listens on a port that only its log tells")
    assert "--url" in said


def test_a_fleet_file_that_is_not_there_exits_with_2(healthcheck: Healthcheck) -> None:
    status, said = healthcheck("--config", "nowhere.yaml")
    assert (status, "nowhere.yaml does not exist" in said) == (2, True)
