"""What `MemorySource` refuses because SQS does, though emulators accept much of it."""

from collections.abc import Callable

import pytest

from worker.errors import Fault, SourceError
from worker.message import Attribute
from worker.source import Copy, ReceiveRequest
from worker.testing import MemorySource
from worker.testing.refusals import MAX_MESSAGE_BYTES, check_batch, check_message, check_receive, message_bytes

INVALID = "InvalidParameterValue"
CONTENTS = "InvalidMessageContents"


def _code(refused: Callable[[], object]) -> str:
    with pytest.raises(SourceError) as refusal:
        refused()
    assert refusal.value.fault is Fault.INVALID
    return refusal.value.code


@pytest.mark.parametrize(
    ("name", "attribute", "code"),
    [
        ("aws.reserved", "value", INVALID),
        ("Amazon.reserved", "value", INVALID),
        ("two..dots", "value", INVALID),
        (".dot", "value", INVALID),
        ("a space", "value", INVALID),
        ("x" * 257, "value", INVALID),
        ("empty", "", INVALID),
        ("empty", b"", INVALID),
        ("kind", Attribute("Text", "value"), INVALID),
        ("kind", Attribute("Binary", "text"), INVALID),
        ("kind", Attribute("String", b"bytes"), INVALID),
        ("number", Attribute("Number", "many"), INVALID),
        ("control", "\x00", CONTENTS),
    ],
)
def test_an_attribute_that_sqs_refuses_is_refused(name: str, attribute: str | bytes | Attribute, code: str) -> None:
    assert _code(lambda: MemorySource().send("body", attributes={name: attribute})) == code


@pytest.mark.parametrize(
    "attribute", [Attribute("Number.int", "-1.5e3"), Attribute("String.json", "{}"), Attribute("Binary.gzip", b"\0")]
)
def test_custom_types_are_taken(attribute: Attribute) -> None:
    source = MemorySource()
    source.send("body", attributes={"a.b-c_d": attribute})
    assert source.stored()[0].attributes == {"a.b-c_d": attribute}


@pytest.mark.parametrize(
    ("body", "code"), [("", "MissingParameter"), ("\x00", CONTENTS), ("tail\x1f", CONTENTS), ("\ud800", CONTENTS)]
)
def test_a_body_that_sqs_refuses_is_refused(body: str, code: str) -> None:
    assert _code(lambda: MemorySource().send(body)) == code


@pytest.mark.parametrize("body", ["\t\n\r ~", "\ud7ff\ue000\ufffd", "\U00010000\U0010ffff"])
def test_the_edges_of_what_sqs_takes_are_taken(body: str) -> None:
    source = MemorySource()
    source.send(body)
    assert source.visible == 1


def test_the_size_counts_bytes_of_body_names_types_and_values() -> None:
    """1 MiB is taken, a byte more is not."""
    attributes = {"a": Attribute("String", "ß"), "b": Attribute("Binary", b"123")}
    assert message_bytes(Copy("ä", attributes)) == 2 + (1 + 6 + 2) + (1 + 6 + 3)
    fits = "x" * (MAX_MESSAGE_BYTES - 19)
    check_message(Copy(fits, attributes), is_fifo=False)
    assert _code(lambda: check_message(Copy(fits + "x", attributes), is_fifo=False)) == INVALID


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Copy("body", deduplication_id="id"), "MissingParameter"),
        (Copy("body", group_id="group"), INVALID),
        (Copy("body", group_id="two words", deduplication_id="id"), INVALID),
        (Copy("body", group_id="group", deduplication_id="x" * 129), INVALID),
    ],
)
def test_a_fifo_message_needs_a_group_and_a_deduplication_id(message: Copy, code: str) -> None:
    assert _code(lambda: check_message(message, is_fifo=True)) == code


def test_a_standard_queue_takes_a_group_but_no_deduplication_id() -> None:
    """Since 2025 a group id on a standard queue is for fair queues; it orders nothing."""
    source = MemorySource()
    source.send("body", group_id="tenant")
    assert source.stored()[0].group_id == "tenant"
    assert _code(lambda: source.send("body", deduplication_id="id")) == INVALID


@pytest.mark.parametrize(("queue", "delay_seconds"), [("orders", 901), ("orders", -1), ("orders.fifo", 1)])
def test_a_delay_out_of_range_is_refused(queue: str, delay_seconds: int) -> None:
    """At most 900 s, and none for a single message of a FIFO queue."""
    assert _code(lambda: MemorySource(queue).send("body", delay_seconds=delay_seconds, group_id="group")) == INVALID


@pytest.mark.parametrize("request_", [ReceiveRequest(0, 0, 30), ReceiveRequest(1, 21, 30), ReceiveRequest(1, 0, -1)])
def test_a_receive_out_of_range_is_refused(request_: ReceiveRequest) -> None:
    assert _code(lambda: check_receive(request_)) == INVALID


def test_a_batch_has_one_to_ten_entries() -> None:
    check_batch(["entry"] * 10)
    assert _code(lambda: check_batch([])).endswith("EmptyBatchRequest")
    assert _code(lambda: check_batch(["entry"] * 11)).endswith("TooManyEntriesInBatchRequest")


def test_an_error_never_quotes_the_payload() -> None:
    with pytest.raises(SourceError) as refusal:
        MemorySource().send("secret\x00")
    assert "secret" not in str(refusal.value)
