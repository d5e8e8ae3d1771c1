"""An event that says until when it is worth handling is not handled later."""

import asyncio
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest

from worker.aws.envelope import decode
from worker.engine.expiry import expires_at
from worker.errors import TransientError
from worker.message import Attribute, Message, Received
from worker.outcome import Retry
from worker.router import Batch, Router
from worker.telemetry import declared
from worker.telemetry.cells import Number
from worker.testing import Fleet, MemorySource

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def settled(fleet: Fleet) -> dict[str, int]:
    assert fleet.consumer is not None
    found = fleet.consumer.context.metrics.snapshot()["settled"]
    return {outcome: count for outcome, count in found.items() if count}


def send(source: MemorySource, body: str, seconds: float, **more: Any) -> None:
    moment = source.store.clock.unix_time() + seconds
    source.send(body, attributes={"event_type": "order.created", "expires_at": f"{moment}"}, **more)


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-01T00:00:00Z",
        "2027-01-01T00:00:00",
        "2027-01-01T01:00:00.000+01:00",
        "1798761600",
        "1798761600.0",
    ],
)
def test_a_time_is_iso_8601_or_unix_seconds(text: str) -> None:
    for attribute in (Attribute("String", text), Attribute("Number", text)):
        decoded = decode(Received("1", "receipt", "{}", {"expires_at": attribute}), "auto")
        assert expires_at(decoded) == NEW_YEAR


@pytest.mark.parametrize("text", ["", "soon", "9999-99-99", "1" * 100, "1798761600000", "nan", "-inf", "1e400"])
def test_what_is_no_time_is_refused_without_quoting_it(text: str) -> None:
    """Milliseconds are not guessed at: they lie beyond the year 9999, and a wrong guess would delete events."""
    decoded = decode(Received("1", "receipt", "{}", {"expires_at": Attribute("String", text)}), "auto")
    with pytest.raises(ValueError, match=r"^(it|as Unix seconds it) ") as refused:
        expires_at(decoded)
    assert not text or text not in str(refused.value)


async def test_a_deadline_that_cannot_be_read_is_none_counted_and_said_once(
    lines: list[MutableMapping[str, Any]],
) -> None:
    """A mistake of a publisher must not cost its events, and must not stay unknown."""
    source, seen = MemorySource(), []

    async def handle(message: Message[str]) -> None:
        seen.append(message.body)

    for text in ("1798761600000", "tomorrow", "nan"):
        source.send(text, attributes={"event_type": "order.created", "expires_at": text})
    fleet = Fleet(source)
    await fleet.run(handle)
    assert sorted(seen) == ["1798761600000", "nan", "tomorrow"]
    (line,) = [line for line in lines if "expires_at" in line["event"]]
    assert line["log_level"] == "warning"
    assert fleet.consumer is not None
    ((_, cell),) = fleet.consumer.context.metrics.sheet.series(declared.UNREADABLE_DEADLINES)
    assert isinstance(cell, Number)
    assert cell.value == 3


@pytest.mark.parametrize(
    ("body", "moment"),
    [
        ('{"due": 1798761600}', NEW_YEAR),
        ('{"due": "2027-01-01T00:00:00Z"}', NEW_YEAR),
        ('{"due": null}', None),
        ('{"other": {"due": 1}}', None),
        ('["due"]', None),
        ('{"due"', None),
    ],
)
def test_a_payload_may_say_it_under_the_key_of_the_setting(body: str, moment: float | None) -> None:
    decoded = decode(Received("1", "receipt", body, {"event_type": Attribute("String", "order.created")}), "auto")
    assert expires_at(decoded, "due") == moment
    assert expires_at(decoded) is None


async def test_what_is_too_late_is_deleted_unrun(lines: list[MutableMapping[str, Any]]) -> None:
    """It is no work that was done: counted by itself, and logged once."""
    source, seen = MemorySource(), []

    async def handle(message: Message[str]) -> None:
        seen.append(message.body)

    send(source, "late", -1)
    send(source, "in time", 60)
    fleet = Fleet(source)
    await fleet.run(handle)
    assert seen == ["in time"]
    assert settled(fleet) == {"ack": 1, "expired": 1}
    assert source.dead_letters == []
    (line,) = [line for line in lines if "expired" in line["event"]]
    assert line["log_level"] == "info"
    assert line["event_type"] == "order.created"


async def test_by_setting_it_is_dead_lettered() -> None:
    source = MemorySource()
    send(source, "late", -1)

    async def handle(message: Message[str]) -> None:
        raise AssertionError(message.body)

    fleet = Fleet(source, expired="dead_letter")
    await fleet.run(handle)
    assert [letter.body for letter in source.dead_letters] == ["late"]
    assert "too late: its expires_at has passed" in str(
        source.dead_letters[0].attributes["longshore.dead_letter"].value
    )
    assert settled(fleet) == {"dead_letter": 1}


async def test_a_retry_may_come_too_late() -> None:
    source, runs = MemorySource(), 0

    async def handle(message: Message[str]) -> None:  # noqa: ARG001 - a handler
        nonlocal runs
        runs += 1
        raise TransientError("busy", retry_after=60)

    send(source, "order", 30)
    fleet = Fleet(source)
    await fleet.run(handle)
    assert runs == 1
    assert settled(fleet) == {"retry": 1, "expired": 1}


async def test_a_message_that_waits_for_its_turn_may_come_too_late() -> None:
    """Its handler would start when the process has a slot for it; that is the moment that counts."""
    source, seen = MemorySource(), []

    async def handle(message: Message[str]) -> None:
        seen.append(message.body)
        await asyncio.sleep(100)

    send(source, "first", 30)
    send(source, "second", 30)
    fleet = Fleet(source, concurrency=2)
    fleet.cap = asyncio.Semaphore(1)
    await fleet.run(handle)
    assert len(seen) == 1
    assert settled(fleet) == {"ack": 1, "expired": 1}


async def test_in_a_fifo_group_those_behind_it_go_on() -> None:
    source, seen = MemorySource("orders.fifo"), []

    async def handle(message: Message[str]) -> None:
        seen.append(message.body)

    for body, seconds in (("one", 60), ("two", -1), ("three", 60)):
        send(source, body, seconds, group_id="group")
    fleet = Fleet(source)
    await fleet.run(handle)
    assert seen == ["one", "three"]
    assert settled(fleet) == {"ack": 2, "expired": 1}


async def test_a_batch_is_of_those_that_are_in_time() -> None:
    source, seen = MemorySource(), []
    router = Router()

    @router.on("*", batch=Batch(size=10))
    async def handle(messages: list[Message[str]]) -> None:
        seen.append(sorted(message.body for message in messages))

    for body, seconds in (("one", 60), ("two", -1), ("three", 60)):
        send(source, body, seconds)
    await Fleet(source).run(router)
    assert seen == [["one", "three"]]


async def test_what_was_skipped_does_not_close_the_breaker() -> None:
    """It says nothing of what the handlers depend on: while that is down, the others are still held."""
    source, runs = MemorySource(), 0

    async def handle(message: Message[str]) -> Retry | None:  # noqa: ARG001 - a handler
        nonlocal runs
        runs += 1
        return Retry(reason="down") if source.store.clock.unix_time() < down_until else None

    down_until = source.store.clock.unix_time() + 120
    for number in range(20):
        source.send(f"{number}", attributes={"event_type": "order.created"})
        send(source, f"short-lived {number}", 20)
    fleet = Fleet(source, attempts=3, breaker={"calls": 4, "pause_seconds": 5})
    await fleet.run(handle)
    assert source.dead_letters == []
    assert settled(fleet)["ack"] >= 20
    assert settled(fleet).get("expired", 0) > 0
