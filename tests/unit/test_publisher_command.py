"""`longshore publish`: what it refuses, and what it knows of its lines when it ends."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker import UsageError
from worker.cli.app import app
from worker.cli.publish import _Wish
from worker.cli.publish_input import Line, read_moment
from worker.cli.publish_sending import Pace, Sending
from worker.errors import EntryError, Fault
from worker.publisher import Outgoing, Publisher, PublishError
from worker.publisher.lines import LineError
from worker.publisher.topic import Publication
from worker.testing import MemoryTopic

FLEET = """
topics: {order-events: {}, %s}
queues: {orders: {handlers: "shop:router"}}
"""


def refusal(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what the command says before it comes near AWS."""
    result = CliRunner().invoke(app, ["publish", *arguments], env=environ)
    assert isinstance(result.exception, UsageError), result.output
    assert result.output == ""
    return str(result.exception)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a fleet file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LONGSHORE_CONFIG", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is nothing to publish: give one event with --data, or many with --file"),
        (
            ["--data", "{}", "--file", "x"],
            "--data and --file are both given: give one event with --data, or many with --file",
        ),
        (
            ["--file", "x", "--rate", "0"],
            "--rate is 0, but must be more than 0 events a second: leave it out for no limit",
        ),
        (
            ["--file", "x", "--rate", "nan"],
            "--rate is nan, but must be more than 0 events a second: leave it out for no limit",
        ),
        (["--file", "x", "--from-line", "0"], "--from-line is 0, but the first line is 1"),
        (["--data", "{}", "--rate", "1"], "--rate has no effect on one event: leave it out, or give many with --file"),
        (
            ["--data", "{}", "--skip-bad"],
            "--skip-bad has no effect on one event: leave it out, or give many with --file",
        ),
        (
            ["--data", "{}", "--from-line", "2"],
            "--from-line has no effect on one event: leave it out, or give many with --file",
        ),
        *(
            (
                ["--data", "{}", "--expires-at", text],
                f"--expires-at is {text!r}, but must be a time with its zone such as 2027-01-01T00:00:00Z, or Unix seconds",
            )
            for text in ("tomorrow", "2027-01-01T00:00:00", "1798761600000", "nan")
        ),
        (["--data", "{}"], "no topic is named, and there is no fleet file to take it from: name one with --topic"),
        (
            ["--data", "{}", "--topic", "t", "--config", "no.yaml"],
            "the fleet file no.yaml does not exist: name an existing file with --config",
        ),
        (
            ["--data", "{}", "--topic", "a b"],
            "the topic 'a b' must be a topic's name of 1 to 256 letters, digits, - and _ (.fifo at the end makes it FIFO)",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, arguments: list[str], sentence: str) -> None:
    """One sentence, and no call (X1)."""
    del folder
    assert refusal(*arguments) == sentence


@pytest.mark.parametrize(
    ("more", "topic", "sentence"),
    [
        (
            "mail-events: {}",
            [],
            "the fleet file has the topics order-events, mail-events: name the one to publish to with --topic",
        ),
        (
            "",
            ["--topic", "order-event"],
            "--topic order-event is not a topic of the fleet file; did you mean order-events?",
        ),
        ("", ["--topic", "zzz"], "--topic zzz is not a topic of the fleet file; allowed are order-events, or an ARN"),
    ],
)
def test_the_topic_is_one_of_the_fleet_file(folder: Path, more: str, topic: list[str], sentence: str) -> None:
    """The only one needs not be named; a mistyped one is not created or guessed."""
    (folder / "fleet.yaml").write_text(FLEET % more)
    assert refusal("order.created", "--data", "{}", *topic) == sentence


def told(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a process of its own, since it takes over the log; return its status and standard error."""
    command = (sys.executable, "-c", "from worker.cli import main; main()", "publish", *arguments)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.stdout == ""
    return result.returncode, result.stderr


def test_nothing_is_sent_of_a_file_with_a_broken_line(folder: Path) -> None:
    """It is read to its end before the first call, and the first broken line is named by its number."""
    (folder / "events.jsonl").write_text('{"event": "a.done"}\n\nsecret\n{"event": ""}\n')
    assert told(folder, "--topic", "orders", "--file", "events.jsonl") == (
        2,
        "longshore: events.jsonl: 2 lines are broken, the first: line 3 is not JSON (Expecting value, at character 1); nothing was published: correct the file, or leave broken lines out with --skip-bad\n",
    )
    assert told(folder, "--topic", "orders", "--file", "events.jsonl", "--skip-bad", "--from-line", "3") == (
        2,
        "longshore: events.jsonl has no event from line 3 on: correct --from-line\n",
    )


def test_data_that_is_no_event_is_refused(folder: Path) -> None:
    assert told(folder, "a.done", "--topic", "t", "--data", "{") == (
        2,
        "longshore: --data is not JSON (Expecting property name enclosed in double quotes, at character 2)\n",
    )
    assert told(folder, "--topic", "t", "--data", "{}")[1].startswith("longshore: --data names no event type: write")


class Slow(MemoryTopic):
    """A topic that takes a second for each call."""

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        try:
            return await super().publish(publications)
        finally:
            await asyncio.sleep(1)


async def numbered(count: int, *, broken: int | None = None, seconds: float = 0) -> AsyncIterator[Line]:
    for number in range(1, count + 1):
        await asyncio.sleep(seconds)
        yield Line(number, b"{" if number == broken else json.dumps({"event": "a.done", "n": number}).encode())


def read(line: Line) -> Outgoing:
    return line.read(None, None)


async def test_every_line_is_published_in_order() -> None:
    topic = MemoryTopic()
    async with Publisher(topic) as publisher:
        sending = Sending(publisher, read)
        await sending.run(numbered(1000))
    assert [event["n"] for _, event in topic.published] == list(range(1, 1001))
    assert (sending.published, sending.failed, sending.next_line, sending.is_complete) == (1000, 0, 1001, True)


async def test_a_rate_is_kept() -> None:
    """Evenly, and what could not be kept for a while is not made up for in a burst."""
    topic = MemoryTopic()
    clock = asyncio.get_running_loop().time
    async with Publisher(topic) as publisher:
        started = clock()
        await Sending(publisher, read, pace=Pace(50)).run(numbered(101))
        assert clock() - started == pytest.approx(2, abs=0.05)
        pace = Pace(10)
        await pace.wait()
        await asyncio.sleep(60)
        started = clock()
        for _ in range(31):
            await pace.wait()
        assert clock() - started == pytest.approx(2, abs=0.11)


async def test_a_broken_line_ends_it_and_what_was_before_is_published() -> None:
    topic = Slow()
    async with Publisher(topic) as publisher:
        sending = Sending(publisher, read)
        await sending.run(numbered(500, broken=41))
    assert isinstance(sending.error, LineError)
    assert (sending.published, sending.failed, sending.next_line, sending.is_complete) == (40, 0, 41, False)
    assert len(topic.published) == 40


async def test_broken_lines_are_left_out_where_that_is_wanted() -> None:
    topic = MemoryTopic()
    async with Publisher(topic) as publisher:
        sending = Sending(publisher, read, skips_bad=True)
        await sending.run(numbered(500, broken=41))
    assert [number for number, _ in sending.skipped] == [41]
    assert (sending.published, sending.next_line, sending.is_complete) == (499, 501, True)


async def test_an_event_that_is_not_published_ends_it() -> None:
    """`next_line` is the first that is not surely published, and the later ones that were are counted."""
    topic = Slow()
    topic.fail(Fault.DENIED)
    async with Publisher(topic) as publisher:
        sending = Sending(publisher, read, skips_bad=True)
        await sending.run(numbered(1000))
    assert isinstance(sending.error, PublishError)
    assert (sending.failed, sending.next_line, sending.is_complete) == (1, 1, False)
    assert 0 < sending.published == sending.published_later == len(topic.published) < 200


async def test_stopping_lets_what_was_read_go_out() -> None:
    """Ctrl-C: what was accepted is waited for, so that the account is exact (X1)."""
    topic = Slow()
    async with Publisher(topic) as publisher:
        sending = Sending(publisher, read)
        running = asyncio.create_task(sending.run(numbered(1000, seconds=0.1)))
        await asyncio.sleep(5.05)
        sending.stop()
        await running
    assert sending.error is None
    assert (sending.published, sending.next_line, sending.is_complete) == (50, 51, False)
    assert [event["n"] for _, event in topic.published] == list(range(1, 51))
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_it_leaves_nothing_running() -> None:
    publisher = Publisher(Slow())
    await publisher.open()
    sending = Sending(publisher, read)
    running = asyncio.create_task(sending.run(numbered(1000, seconds=0.1)))
    await asyncio.sleep(5.05)
    running.cancel()
    await asyncio.wait({running})
    await publisher.close()
    assert running.cancelled()
    assert 0 < sending.next_line - 1 == sending.published < 50
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("text", ["2027-01-01T00:00:00Z", "2027-01-01T01:00+01:00", "1798761600", "1798761600.0"])
def test_a_deadline_is_for_events_that_name_none(text: str) -> None:
    wish = _Wish("order.created", None, "-", None, None, read_moment(text), False, None, False)
    named = Line(1, b'{"event": "a.done", "data": 1, "expires_at": 1}')
    assert wish.read(Line(1, b"{}")).expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert wish.read(named).expires_at == 1
