"""Dead letters: the message as it was, and one attribute that tells why, where there is room for it."""

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

import pytest
from support.runs import refuse

from worker import Message
from worker.engine.dead_letters import MAX_REASON_CHARACTERS, REASON_ATTRIBUTE, compose, fingerprint
from worker.engine.delivery import Delivery
from worker.engine.lease import HeldLease, LeaseTerms
from worker.errors import EntryError
from worker.message import Attribute, Received
from worker.outcome import DeadLetter
from worker.source import Copy
from worker.testing import MemorySource
from worker.testing.fleet import Fleet, LoopClock
from worker.testing.refusals import check_message, message_bytes

MIB = 1_048_576

LogLines = list[MutableMapping[str, Any]]


async def _never_change(receipt: str, seconds: int) -> EntryError | None:
    raise AssertionError((receipt, seconds))


def _delivery(received: Received) -> Delivery:
    terms = LeaseTerms(timeout_seconds=30, max_seconds=3600, clock=LoopClock(MemorySource()), change=_never_change)
    return Delivery(received, HeldLease(terms, received, 0.0), received.receive_count)


def _copy(received: Received, fate: DeadLetter | None = None) -> Copy:
    fate = fate or DeadLetter("sold out")
    return compose(_delivery(received), fate, queue="orders", is_fifo=False, now_wall=1_800_000_000.0)


def _reason(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    attribute = attributes[REASON_ATTRIBUTE]
    assert attribute.data_type == "String"
    facts: dict[str, Any] = json.loads(attribute.value)
    return facts


def _string_attributes(count: int) -> dict[str, Attribute]:
    return {f"attribute_{number}": Attribute("String", "value") for number in range(count)}


class TestTheCopy:
    async def test_body_attributes_and_trace_are_what_was_received(self) -> None:
        """Same body, same attributes with their types; AWSTraceHeader is passed on (S5)."""
        source = MemorySource()
        attributes = {
            "event_type": Attribute("String", "order.created"),
            "amount": Attribute("Number.decimal", "12.30"),
            "blob": Attribute("Binary", b"\x00\xff"),
        }
        source.send(
            '{"b":  "\\u00e4 ü"}', attributes=attributes, trace_header="Root=1-5759e988-bd862e3fe1be46a994272793"
        )
        await Fleet(source).run(refuse)
        (letter,) = source.dead_letters
        assert letter.arrived_by == "copy"
        assert letter.body == '{"b":  "\\u00e4 ü"}'
        assert {name: value for name, value in letter.attributes.items() if name != REASON_ATTRIBUTE} == attributes
        assert letter.trace_header == "Root=1-5759e988-bd862e3fe1be46a994272793"
        assert source.is_empty

    async def test_one_json_attribute_tells_why_where_and_when(self) -> None:
        """Reason, error class, fingerprint, handler, source, attempts, times and trace in one attribute (S5)."""
        source = MemorySource()

        async def fail(_: Message[Any]) -> None:
            raise RuntimeError("ledger down")

        message_id = source.send("{}", attributes={"event_type": "order.created"}, trace_header="Root=1-abc")
        await Fleet(source, attempts=2).run(fail)
        (letter,) = source.dead_letters
        facts = _reason(letter.attributes)
        assert len(facts.pop("fingerprint")) == 12
        assert facts.pop("sent_at") < facts.pop("dead_lettered_at")
        assert facts == {
            "reason": "RuntimeError: ledger down",
            "error": "RuntimeError",
            "handler": f"{__name__}.{fail.__qualname__}",
            "source": "orders",
            "attempts": 2,
            "message_id": message_id,
            "trace": "Root=1-abc",
        }

    async def test_a_reason_without_error_or_handler_leaves_them_out(self) -> None:
        facts = _reason(_copy(Received("id", "receipt", "body")).attributes)
        assert set(facts) == {"reason", "fingerprint", "source", "attempts", "message_id", "dead_lettered_at"}

    async def test_an_older_reason_is_replaced(self) -> None:
        """A message that was replayed by hand and fails again carries one reason: the newest (S5)."""
        old = {REASON_ATTRIBUTE: Attribute("String", '{"reason": "old"}')}
        copy = _copy(Received("id", "receipt", "body", old))
        assert _reason(copy.attributes)["reason"] == "sold out"
        assert len(copy.attributes) == 1

    async def test_on_fifo_the_group_is_kept_and_the_message_id_deduplicates(self) -> None:
        """As SQS's own redrive does; so a copy that is sent twice arrives once (S5)."""
        source = MemorySource("orders.fifo")
        source.faults.lose_answer("dead_letter")
        message_id = source.send("{}", group_id="customer-1", deduplication_id="mine")
        await Fleet(source).run(refuse)
        (letter,) = source.dead_letters
        assert (letter.group_id, letter.deduplication_id) == ("customer-1", message_id)
        assert source.calls["dead_letter"] == 2

    async def test_on_a_standard_queue_there_is_no_deduplication_id(self) -> None:
        """A standard queue refuses one; a fair-queue group is passed on (S5)."""
        source = MemorySource()
        source.send("{}", group_id="tenant-1")
        await Fleet(source).run(refuse)
        (letter,) = source.dead_letters
        assert (letter.group_id, letter.deduplication_id) == ("tenant-1", None)


class TestRoomForTheReason:
    async def test_a_long_reason_is_cut(self) -> None:
        copy = _copy(Received("id", "receipt", "body"), DeadLetter("x" * 5000))
        assert _reason(copy.attributes)["reason"] == "x" * MAX_REASON_CHARACTERS

    @pytest.mark.parametrize("reason", ["x" * 900, "ü" * 900, "\x00" * 900, "\U0001f600\ud800" * 450])
    async def test_the_reason_is_cut_to_what_room_the_message_leaves(self, reason: str) -> None:
        """Body and user attributes win; SQS takes the copy whatever the reason is made of (S5)."""
        received = Received("id", "receipt", "b" * (MIB - 1000), _string_attributes(9))
        copy = _copy(received, DeadLetter(reason))
        assert reason.startswith(_reason(copy.attributes)["reason"])
        assert copy.body == received.body
        assert message_bytes(copy) <= MIB
        check_message(copy, is_fifo=False)

    @pytest.mark.parametrize("free_bytes", range(0, 1200, 100))
    async def test_no_copy_is_ever_larger_than_sqs_takes(self, free_bytes: int) -> None:
        received = Received("id", "receipt", "b" * (MIB - free_bytes))
        copy = _copy(received, DeadLetter("sold out " * 50))
        assert message_bytes(copy) <= MIB
        assert copy.body == received.body

    async def test_beside_ten_attributes_the_reason_is_left_out_and_logged(self, lines: LogLines) -> None:
        """SQS takes ten attributes: the user's ones win (S5)."""
        source = MemorySource()
        source.send("{}", attributes=_string_attributes(10))
        await Fleet(source).run(refuse)
        (letter,) = source.dead_letters
        assert letter.attributes == _string_attributes(10)
        (line,) = [line for line in lines if line["event"].startswith("dead letter without its reason")]
        assert line["reason"] == "sold out"

    async def test_in_a_full_message_the_reason_is_left_out_and_logged(self, lines: LogLines) -> None:
        """The size limit wins over the reason, and the message over both (S5)."""
        source = MemorySource()
        source.send("b" * MIB)
        await Fleet(source).run(refuse)
        (letter,) = source.dead_letters
        assert (letter.body, letter.attributes) == ("b" * MIB, {})
        assert any(line["event"].startswith("dead letter without its reason") for line in lines)


class TestFingerprint:
    def _error(self, text: str) -> Exception:
        try:
            int(text)
        except ValueError as error:
            return error
        raise AssertionError

    def _other_error(self) -> Exception:
        try:
            int("seventeen")
        except ValueError as error:
            return error
        raise AssertionError

    def test_failures_of_the_same_kind_at_the_same_place_have_the_same(self) -> None:
        """What differs from message to message, such as an id in the text, does not count (S5)."""
        assert fingerprint("a", self._error("order 17")) == fingerprint("b", self._error("order 18"))

    def test_another_place_or_kind_has_another(self) -> None:
        assert fingerprint("a", self._error("seventeen")) != fingerprint("a", self._other_error())
        assert fingerprint("a", self._error("seventeen")) != fingerprint("a", KeyError("seventeen"))
        assert fingerprint("a", None) != fingerprint("b", None)

    def test_hostile_text_has_one_too(self) -> None:
        assert len(fingerprint("\ud800\x00", None)) == 12
