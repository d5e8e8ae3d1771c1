"""Events as lines of JSON, from files and pipes."""

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import Outgoing, UsageError
from worker.cli import publish_input
from worker.cli.publish_input import Input
from worker.publisher.lines import LineError, read_line, read_payload


@pytest.mark.parametrize(
    ("text", "outgoing"),
    [
        ('{"event_type": "order.created", "data": {"n": 1}}', Outgoing("order.created", {"n": 1})),
        ('{"event": "order.created", "data": "text"}', Outgoing("order.created", "text")),
        ('{"event": "a.done", "event_type": "a.done", "data": null}', Outgoing("a.done", None)),
        (
            '{"event_type": "a.done", "data": [], "attributes": {"c": "DE", "n": 3, "t": 1.50}, "group_id": "g", "deduplication_id": "d"}',
            Outgoing("a.done", [], {"c": "DE", "n": 3, "t": Decimal("1.5")}, "g", "d"),
        ),
        (
            '{"event": "a.done", "data": 1, "expires_at": "2027-01-01T00:00:00Z"}',
            Outgoing("a.done", 1, expires_at=datetime(2027, 1, 1, tzinfo=UTC)),
        ),
        ('{"event": "a.done", "data": 1, "expires_at": 1798761600}', Outgoing("a.done", 1, expires_at=1798761600)),
        (
            ' {"event":"order.created","amount":9.90} \r',
            Outgoing("order.created", '{"event":"order.created","amount":9.90}'),
        ),
    ],
)
def test_a_line_says_what_to_publish(text: str, outgoing: Outgoing) -> None:
    """Wrapped with `data`, or an object with an `event` that is published byte for byte."""
    assert read_line(text) == outgoing


@pytest.mark.parametrize(
    ("text", "event"),
    [('{"n": 1.10}', '{"n": 1.10}'), ("[1]", "[1]"), ('"text"', "text"), ('{"event": 7}', '{"event": 7}')],
)
def test_a_line_without_a_type_is_a_payload_of_the_given_one(text: str, event: str) -> None:
    assert read_line(text, event_type="a.done", group_id="g") == Outgoing("a.done", event, group_id="g")
    assert read_payload(text) == event


def test_what_a_line_says_wins() -> None:
    text = '{"event_type": "b.done", "data": 1, "group_id": "own"}'
    assert read_line(text, event_type="a.done", group_id="g") == Outgoing("b.done", 1, group_id="own")
    assert read_line('{"event": "b.done"}', event_type="a.done", group_id="g").group_id == "g"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("secret", "is not JSON (Expecting value, at character 1)"),
        (
            '{"event": "a.done", "data": 1, "expires_at": "soon"}',
            "has an expires_at that is no time: write 2027-01-01T00:00:00Z, or Unix seconds",
        ),
        ("", "is not JSON (Expecting value, at character 1)"),
        ('{"a": NaN}', "is not JSON (NaN, Infinity and numbers of thousands of digits are none)"),
        ("1" * 5000, "is not JSON (NaN, Infinity and numbers of thousands of digits are none)"),
        ("[" * 100_000, "is not JSON (it is nested too deep)"),
        ('{"a": 1}', 'names no event type: write {"event_type": "order.created", "data": {...}}, or give EVENT_TYPE'),
        (
            '{"event": 1}',
            'names no event type: write {"event_type": "order.created", "data": {...}}, or give EVENT_TYPE',
        ),
        (
            '{"event_type": "a.done"}',
            'has an event_type but no data: write {"event_type": "order.created", "data": {...}}',
        ),
        (
            '{"event": "a.done", "data": 1, "atributes": {}}',
            "has a key beside data that says nothing about an event (atributes): did you mean attributes?",
        ),
        (
            '{"event": "a.done", "data": 1, "zzz": {}}',
            "has a key beside data that says nothing about an event (zzz): allowed are event_type, event, data, attributes, group_id, deduplication_id, expires_at",
        ),
        (
            '{"event": "a.done", "event_type": "b.done", "data": 1}',
            "must name one event type, in text, such as order.created",
        ),
        ('{"event": 1, "data": 1}', "must name one event type, in text, such as order.created"),
        ('{"event": "a.done", "event_type": 1, "data": 1}', "must name one event type, in text, such as order.created"),
        (
            '{"event": "a.done", "data": 1, "attributes": []}',
            'has attributes that are no object: write {"country": "DE", "items": 3}',
        ),
    ],
)
def test_a_broken_line_is_said_without_quoting_it(text: str, complaint: str) -> None:
    with pytest.raises(LineError) as raised:
        read_line(text)
    assert str(raised.value) == complaint
    assert raised.value.__context__ is None


@given(st.text())
def test_any_text_is_an_event_or_a_broken_line(text: str) -> None:
    try:
        event_type = read_line(text, event_type="a.done").event_type
    except LineError as error:
        event_type = str(error)
    assert event_type


class TestInput:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "events.jsonl"

    def test_blank_lines_are_counted_but_left_out(self, path: Path) -> None:
        """Numbers are those that an editor shows."""
        path.write_bytes(b'\xef\xbb\xbf"a"\r\n\n  \n"b"\n"c"')
        lines = list(Input(str(path), 1).lines())
        assert [(line.number, line.read("x.done", None).event) for line in lines] == [(1, "a"), (4, "b"), (5, "c")]

    def test_lines_before_the_first_wanted_are_left_out(self, path: Path) -> None:
        path.write_text('"a"\n"b"\n"c"\n')
        assert [line.number for line in Input(str(path), 3).lines()] == [3]

    def test_a_file_can_be_read_twice(self, path: Path) -> None:
        path.write_text('"a"\n"b"\n')
        source = Input(str(path), 1)
        assert source.can_be_read_twice
        assert [line.number for line in source.lines()] == [line.number for line in source.lines()] == [1, 2]

    def test_lines_may_be_cut_anywhere(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(publish_input, "_CHUNK_BYTES", 3)
        texts = ["", "a", "ab", "äöü", "x" * 50]
        path.write_text("\n".join(f'"{text}"' for text in texts))
        assert [line.read("x.done", None).event for line in Input(str(path), 1).lines()] == texts

    def test_an_endless_line_does_not_fill_the_memory(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is a broken line, and the next one is read."""
        monkeypatch.setattr(publish_input, "MAX_LINE_BYTES", 100_000)
        path.write_text('"a"\n' + "x" * 300_000 + '\n"b"\n')
        first, second, third = Input(str(path), 1).lines()
        assert [line.number for line in (first, second, third)] == [1, 2, 3]
        with pytest.raises(LineError, match="is longer than 100,000 bytes"):
            second.read("x.done", None)
        assert third.read("x.done", None).event == "b"
        splitter = publish_input._Splitter(1)
        for _ in range(10):
            assert list(splitter.split(b"x" * 50_000)) == []
        assert sum(map(len, splitter._open)) == 100_000

    def test_a_line_that_is_not_utf_8_is_broken(self, path: Path) -> None:
        path.write_bytes(b'"a\xff"\n')
        (line,) = Input(str(path), 1).lines()
        with pytest.raises(LineError, match=r"is not UTF-8, at byte 3") as raised:
            line.read("x.done", None)
        assert raised.value.__context__ is None

    def test_what_cannot_be_read_is_said(self, path: Path) -> None:
        with pytest.raises(
            UsageError, match=r"cannot be read \(No such file or directory\): name a file of JSON lines"
        ):
            Input(str(path), 1)
        with pytest.raises(UsageError, match="is a directory: name a file of JSON lines with --file"):
            Input(str(path.parent), 1)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, threading.Event]]:
    """A pipe that gives a line, waits, gives another, and ends."""
    path, goes_on = tmp_path / "pipe", threading.Event()
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(b'"a"\n"b')
            goes_on.wait(10)
            pipe.write(b'"\n')

    writer = threading.Thread(target=write)
    writer.start()
    yield path, goes_on
    goes_on.set()
    writer.join()


@pytest.mark.real_time
async def test_a_pipe_is_read_as_it_comes(pipe: tuple[Path, threading.Event]) -> None:
    """A line is there before the next, and a silent pipe does not hold up the event loop."""
    path, goes_on = pipe
    source = Input(str(path), 1)
    assert not source.can_be_read_twice
    lines = source.stream()
    assert (await anext(lines)).number == 1
    second = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.05)
    assert not second.done()
    goes_on.set()
    assert (await second).read("x.done", None).event == "b"
    assert [line async for line in lines] == []


@pytest.mark.real_time
async def test_a_file_is_streamed_without_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('"a"\n"b"\n')
    before = threading.active_count()
    assert [line.number async for line in Input(str(path), 1).stream()] == [1, 2]
    assert threading.active_count() == before
