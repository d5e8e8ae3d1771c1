"""Dead letters: the message as it was, one attribute that tells why, and the original only deleted after the copy."""

import asyncio
import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker import Message, PermanentError, TransientError
from worker.engine.dead_letters import MAX_REASON_CHARACTERS, REASON_ATTRIBUTE, compose, fingerprint
from worker.engine.delivery import Delivery
from worker.engine.lease import HeldLease, LeaseTerms
from worker.engine.slots import Slot, Slots
from worker.errors import EntryError, Fault, SourceError
from worker.message import Attribute, Received
from worker.outcome import Ack, DeadLetter, Retry
from worker.source import Copy
from worker.testing import MemorySource
from worker.testing.fleet import Fleet, LoopClock
from worker.testing.refusals import check_message, message_bytes

MIB = 1_048_576
HOUR = 3600
INVALID = SourceError(Fault.INVALID, "InvalidMessageContents")

LogLines = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def lines() -> Iterator[LogLines]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured


async def _refuse(message: Message[Any]) -> DeadLetter:
    return DeadLetter("sold out")


async def _fail(message: Message[Any]) -> None:
    raise RuntimeError("ledger down")


async def _never_change(receipt: str, seconds: int) -> EntryError | None:
    raise AssertionError((receipt, seconds))


def _delivery(received: Received) -> Delivery:
    terms = LeaseTerms(timeout_seconds=30, max_seconds=3600, clock=LoopClock(MemorySource()), change=_never_change)
    return Delivery(received, Slot(Slots(1)), HeldLease(terms, received, 0.0))


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
        await Fleet(source).run(_refuse)
        (letter,) = source.dead_letters
        assert letter.arrived_by == "copy"
        assert letter.body == '{"b":  "\\u00e4 ü"}'
        assert {name: value for name, value in letter.attributes.items() if name != REASON_ATTRIBUTE} == attributes
        assert letter.trace_header == "Root=1-5759e988-bd862e3fe1be46a994272793"
        assert source.is_empty

    async def test_one_json_attribute_tells_why_where_and_when(self) -> None:
        """Reason, error class, fingerprint, handler, source, attempts, times and trace in one attribute (S5)."""
        source = MemorySource()

        async def fail(message: Message[Any]) -> None:
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
        await Fleet(source).run(_refuse)
        (letter,) = source.dead_letters
        assert (letter.group_id, letter.deduplication_id) == ("customer-1", message_id)
        assert source.calls["dead_letter"] == 2

    async def test_on_a_standard_queue_there_is_no_deduplication_id(self) -> None:
        """A standard queue refuses one; a fair-queue group is passed on (S5)."""
        source = MemorySource()
        source.send("{}", group_id="tenant-1")
        await Fleet(source).run(_refuse)
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
        await Fleet(source).run(_refuse)
        (letter,) = source.dead_letters
        assert letter.attributes == _string_attributes(10)
        (line,) = [line for line in lines if line["event"].startswith("dead letter without its reason")]
        assert line["reason"] == "sold out"

    async def test_in_a_full_message_the_reason_is_left_out_and_logged(self, lines: LogLines) -> None:
        """The size limit wins over the reason, and the message over both (S5)."""
        source = MemorySource()
        source.send("b" * MIB)
        await Fleet(source).run(_refuse)
        (letter,) = source.dead_letters
        assert (letter.body, letter.attributes) == ("b" * MIB, {})
        assert any(line["event"].startswith("dead letter without its reason") for line in lines)


class TestFingerprint:
    def _error(self, text: str) -> Exception:
        try:
            raise ValueError(text)
        except ValueError as error:
            return error

    def _other_error(self) -> Exception:
        try:
            raise ValueError("17")
        except ValueError as error:
            return error

    def test_failures_of_the_same_kind_at_the_same_place_have_the_same(self) -> None:
        """What differs from message to message, such as an id in the text, does not count (S5)."""
        assert fingerprint("a", self._error("order 17")) == fingerprint("b", self._error("order 18"))

    def test_another_place_or_kind_has_another(self) -> None:
        assert fingerprint("a", self._error("17")) != fingerprint("a", self._other_error())
        assert fingerprint("a", self._error("17")) != fingerprint("a", KeyError("17"))
        assert fingerprint("a", None) != fingerprint("b", None)

    def test_hostile_text_has_one_too(self) -> None:
        assert len(fingerprint("\ud800\x00", None)) == 12


class TestCopyFirst:
    async def test_the_original_is_deleted_only_after_the_copy_is_confirmed(self) -> None:
        """While the dead-letter queue does not answer, the original stays (S5)."""
        source = MemorySource()
        source.faults.slow("dead_letter", 60, times=1)
        source.send("{}")
        async with Fleet(source).running(_refuse):
            await asyncio.sleep(59)
            assert (source.in_flight, source.calls["delete"]) == (1, 0)
            await asyncio.sleep(2)
            assert source.is_empty
        assert len(source.dead_letters) == 1

    async def test_the_lease_is_kept_while_the_copy_is_on_its_way(self) -> None:
        """Beats go on until the delete: nobody else gets the message meanwhile (S5, L2)."""
        source = MemorySource(visibility_timeout_seconds=5)
        source.faults.slow("dead_letter", 60, times=1)
        message_id = source.send("{}")
        await Fleet(source).run(_refuse)
        assert len(source.receives[message_id]) == 1

    async def test_a_passing_refusal_is_tried_again_under_the_lease(self) -> None:
        source = MemorySource()
        source.faults.fail("dead_letter", times=5)
        message_id = source.send("{}")
        await Fleet(source).run(_refuse)
        assert len(source.dead_letters) == 1
        assert len(source.receives[message_id]) == 1

    async def test_a_copy_whose_answer_was_lost_is_sent_twice_and_nothing_is_lost(self) -> None:
        """Twice is possible, loss is not (S5)."""
        source = MemorySource()
        source.faults.lose_answer("dead_letter")
        source.send("{}")
        await Fleet(source).run(_refuse)
        assert [letter.body for letter in source.dead_letters] == ["{}", "{}"]
        assert source.is_empty

    async def test_what_was_copied_and_not_deleted_is_deleted_when_it_comes_again(self) -> None:
        """A copied message is not run again and not copied again (S2, S5)."""
        source = MemorySource(visibility_timeout_seconds=10)
        runs = 0

        async def refuse(message: Message[Any]) -> DeadLetter:
            nonlocal runs
            runs += 1
            source.faults.dark(_now() + 0.001, _now() + 30)  # the copy is through, the delete is not
            return DeadLetter("sold out")

        source.faults.slow("delete", 1, times=1)
        message_id = source.send("{}")
        await Fleet(source).run(refuse)
        assert (runs, len(source.dead_letters)) == (1, 1)
        assert len(source.receives[message_id]) > 1


def _now() -> float:
    return asyncio.get_running_loop().time()


def _problem(fleet: Fleet) -> str | None:
    assert fleet.consumer is not None
    return fleet.consumer.context.vitals.problems.get("dead_letter")


class TestRefusedCopies:
    async def test_the_original_of_a_denied_copy_is_kept_waits_and_heals(self) -> None:
        """Never deleted, the longest delay, the problem named; healed once copies are allowed (S5)."""
        source = MemorySource()
        (denial,) = source.faults.deny("dead_letter")
        message_id = source.send("{}")
        fleet = Fleet(source, retry={"base_seconds": 1, "max_seconds": 600})
        async with fleet.running(_refuse):
            await asyncio.sleep(599)
            assert (source.in_flight, source.calls["delete"], source.dead_letters) == (1, 0, [])
            assert len(source.receives[message_id]) == 1
            assert "AccessDenied" in (_problem(fleet) or "")
            denial.stop()
            await asyncio.sleep(10)
            assert source.is_empty
            assert _problem(fleet) is None
        assert [letter.arrived_by for letter in source.dead_letters] == ["copy"]

    async def test_a_missing_dead_letter_queue_keeps_the_original_and_heals_when_it_is_made(self) -> None:
        source = MemorySource()
        source.dead_letter_queue.exists = False
        source.send("{}")
        fleet = Fleet(source, retry={"base_seconds": 1, "max_seconds": 60})
        async with fleet.running(_refuse):
            await asyncio.sleep(30)
            assert source.in_flight == 1
            assert _problem(fleet)
            source.dead_letter_queue.exists = True
            await asyncio.sleep(40)
            assert source.is_empty
            assert _problem(fleet) is None
        assert len(source.dead_letters) == 1

    async def test_a_copy_that_sqs_will_never_take_keeps_its_original(self) -> None:
        """Also what is wrong with the message itself is no reason to lose it (S5)."""
        source = MemorySource()
        source.faults.fail("dead_letter", INVALID, times=None)
        source.send("{}")
        fleet = Fleet(source)
        async with fleet.running(_refuse):
            await asyncio.sleep(300)
            assert (source.in_flight, source.calls["delete"]) == (1, 0)
            assert "InvalidMessageContents" in (_problem(fleet) or "")

    async def test_a_refused_copy_gives_its_slot_back(self) -> None:
        """One message that cannot be dead-lettered does not hold up the others (S6)."""
        source = MemorySource()
        source.faults.deny("dead_letter")
        handled = []

        async def refuse_the_first(message: Message[Any]) -> DeadLetter | None:
            if message.body == "bad":
                return DeadLetter("sold out")
            handled.append(message.body)
            return None

        source.send("bad")
        source.send("good")
        await Fleet(source, concurrency=1).run(refuse_the_first, seconds=10)
        assert handled == ["good"]

    async def test_a_defect_of_the_source_is_a_refused_copy(self) -> None:
        """Whatever a source raises, the original stays and the consumer goes on (S5, S6)."""

        class Defective(MemorySource):
            async def dead_letter(self, copy: Copy) -> None:
                raise ZeroDivisionError(copy.body)

        source = Defective()
        source.send("{}")
        fleet = Fleet(source, retry={"base_seconds": 1, "max_seconds": 60})
        async with fleet.running(_refuse) as consumer:
            await asyncio.sleep(30)
            assert (source.in_flight, consumer.in_hand, consumer.slots.taken) == (1, 0, 0)
            assert "ZeroDivisionError" in (_problem(fleet) or "")


class TestWithoutADeadLetterQueue:
    async def test_a_message_that_can_never_succeed_is_retried_at_the_longest_delay_loudly(
        self, lines: LogLines
    ) -> None:
        """`dead_letter: none`, said on purpose (S5)."""
        source = MemorySource(dead_letter=False)
        message_id = source.send("{}")
        fleet = Fleet(source, dead_letter="none", retry={"base_seconds": 1, "max_seconds": 600})
        await fleet.run(_refuse, seconds=1300)
        received = source.receives[message_id]
        assert [round(later - earlier) for earlier, later in zip(received, received[1:], strict=False)] == [600, 600]
        loud = [line for line in lines if "no dead-letter queue" in line["event"]]
        assert [line["log_level"] for line in loud] == ["error"] * 3

    async def test_used_up_attempts_are_retried_at_the_longest_delay(self) -> None:
        source = MemorySource(dead_letter=False)
        message_id = source.send("{}")
        fleet = Fleet(source, dead_letter="none", attempts=2, retry={"base_seconds": 1, "max_seconds": 600})
        await fleet.run(_fail, seconds=700)
        first, second, third = source.receives[message_id]
        assert second - first < 2
        assert 600 <= third - second < 602


class TestRetention:
    async def test_a_failure_within_the_last_hour_is_saved_into_the_dead_letter_queue(self) -> None:
        """Retention deletes silently; a copy's clock starts anew (S7)."""
        source = MemorySource(retention_seconds=24 * HOUR)
        source.send("{}")
        outcomes = iter([Retry(after=11.5 * HOUR), Retry(after=11.75 * HOUR), Retry(reason="busy"), Ack()])

        async def handle(message: Message[Any]) -> Retry | Ack:
            return next(outcomes)

        await Fleet(source, attempts=9).run(handle, seconds=23.9 * HOUR)
        (letter,) = source.dead_letters
        assert _reason(letter.attributes)["reason"] == "expiring"
        assert letter.arrived_at > 23 * HOUR

    async def test_permanent_and_transient_errors_keep_their_words(self) -> None:
        """The reason in the queue is what the handler said, not what we made of it (S5)."""
        source = MemorySource()

        async def handle(message: Message[Any]) -> None:
            if message.body == "permanent":
                raise PermanentError("sold out")
            raise TransientError("ledger busy", retry_after=1)

        source.send("permanent")
        source.send("transient")
        await Fleet(source, attempts=1).run(handle)
        reasons = {letter.body: _reason(letter.attributes)["reason"] for letter in source.dead_letters}
        assert reasons == {"permanent": "sold out", "transient": "ledger busy"}
