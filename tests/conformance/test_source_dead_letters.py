"""What every `Source` does with dead letters, and what it says of its queue."""

import base64
from typing import TYPE_CHECKING

import pytest

from worker.errors import Fault, SourceError
from worker.message import Attribute, Received
from worker.source import Copy, Depth, ReceiveRequest, Source

if TYPE_CHECKING:
    from conformance.conftest import Kit

MIB = 1_048_576
ATTRIBUTES = {
    "event_type": Attribute("String", "order.created"),
    "amount": Attribute("Number", "12.5"),
    "version": Attribute("Number.int", "3"),
    "digest": Attribute("Binary", bytes(range(256))),
}


def _request(limit: int = 10, *, wait: int = 0, visibility: int = 30) -> ReceiveRequest:
    return ReceiveRequest(limit, wait, visibility)


async def _one(source: Source, *, visibility: int = 30, wait: int = 0) -> Received:
    (message,) = await source.receive(_request(1, wait=wait, visibility=visibility))
    return message


async def _fault(source: Source, operation: str, *arguments: object) -> Fault:
    with pytest.raises(SourceError) as refusal:
        await getattr(source, operation)(*arguments)
    return refusal.value.fault


class TestDeadLetters:
    async def test_a_message_received_too_often_moves_at_the_next_receive(self, kit: "Kit") -> None:
        """SQS's own redrive: not when the count is reached, but when the message would be received again (S4)."""
        source = await kit.make(max_receive_count=2)
        message_id = await kit.send(source, "poison", attributes=ATTRIBUTES)
        for count in (1, 2):
            message = await _one(source)
            assert message.receive_count == count
            await source.extend([(message.receipt, 0)])
        assert (await source.depth()).visible == 1
        assert await source.receive(_request()) == []
        assert await source.depth() == Depth(0, 0, 0, 1)
        (dead,) = await kit.dead_letters(source)
        assert (dead.id, dead.body, dead.attributes) == (message_id, "poison", ATTRIBUTES)

    async def test_a_copy_keeps_body_attributes_and_trace(self, kit: "Kit") -> None:
        """What is sent to the dead-letter queue is what was received (S5)."""
        source = await kit.make()
        await source.dead_letter(Copy("line\r\nnext\t\U0001f600", attributes=ATTRIBUTES, trace_header="Root=1-2-3"))
        (dead,) = await kit.dead_letters(source)
        assert (dead.body, dead.attributes) == ("line\r\nnext\t\U0001f600", ATTRIBUTES)
        assert (dead.trace_header, dead.receive_count) == ("Root=1-2-3", 1)

    async def test_a_copy_without_dead_letter_queue_is_refused(self, kit: "Kit") -> None:
        source = await kit.make(has_dead_letters=False)
        assert await _fault(source, "dead_letter", Copy("body")) is Fault.MISSING

    async def test_a_copy_to_a_queue_that_is_gone_is_refused(self, kit: "Kit") -> None:
        assert await _fault(await kit.missing(), "dead_letter", Copy("body")) is Fault.MISSING

    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's, about 1 MiB at once
    async def test_a_mebibyte_is_taken_and_a_byte_more_is_not(self, kit: "Kit") -> None:
        """The limit is in bytes, not in characters."""
        source = await kit.make()
        await source.dead_letter(Copy("ü" * (MIB // 2)))
        assert (await source.depth()).dead_letters == 1
        assert await _fault(source, "dead_letter", Copy("ü" * (MIB // 2) + "x")) is Fault.INVALID

    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's, about 1 MiB at once
    async def test_attributes_count_towards_the_size(self, kit: "Kit") -> None:
        """So do their names and types: the dead letter's reason must fit (S5)."""
        source = await kit.make()
        copy = Copy("x" * (MIB - 10), {"name": Attribute("String", "v")})
        if kit.differs.takes_any_attributes:
            await source.dead_letter(copy)
        else:
            assert await _fault(source, "dead_letter", copy) is Fault.INVALID
        await source.dead_letter(Copy("x" * (MIB - 11), copy.attributes))

    @pytest.mark.parametrize("body", ["", "\x00", "tail\x1b", "\ufffe"])
    async def test_a_body_that_sqs_does_not_take_is_refused(self, kit: "Kit", body: str) -> None:
        assert await _fault(await kit.make(), "dead_letter", Copy(body)) is Fault.INVALID

    async def test_an_eleventh_attribute_is_refused(self, kit: "Kit") -> None:
        source = await kit.make()
        eleven = {f"name-{number}": Attribute("String", "value") for number in range(11)}
        if kit.differs.takes_eleven_attributes:
            await source.dead_letter(Copy("body", eleven))
        else:
            assert await _fault(source, "dead_letter", Copy("body", eleven)) is Fault.INVALID
        ten = dict(list(eleven.items())[:10])
        await source.dead_letter(Copy("body", ten))
        assert ten in [dead.attributes for dead in await kit.dead_letters(source)]

    async def test_an_empty_attribute_is_refused(self, kit: "Kit") -> None:
        source = await kit.make()
        copy = Copy("body", {"empty": Attribute("String", "")})
        if kit.differs.takes_any_attributes:
            await source.dead_letter(copy)
        else:
            assert await _fault(source, "dead_letter", copy) is Fault.INVALID

    async def test_text_that_looks_encoded_is_left_alone(self, kit: "Kit") -> None:
        source = await kit.make()
        attributes = {"text": Attribute("String", base64.b64encode(b"bytes").decode())}
        await source.dead_letter(Copy("body", attributes))
        (dead,) = await kit.dead_letters(source)
        assert dead.attributes == attributes


class TestFacts:
    async def test_the_queue_describes_itself(self, kit: "Kit") -> None:
        source = await kit.make(max_receive_count=7)
        facts = await source.describe()
        assert (facts.is_fifo, facts.visibility_timeout_seconds, facts.retention_seconds) == (False, 30, 345_600)
        assert (facts.max_receive_count, facts.dead_letter_found) == (7, True)
        assert facts.redrive_target is not None
        assert facts.redrive_target.startswith("orders-dlq")
        assert source.queue.startswith("orders")

    async def test_a_queue_without_redrive_says_so(self, kit: "Kit") -> None:
        source = await kit.make(has_dead_letters=False)
        facts = await source.describe()
        assert (facts.max_receive_count, facts.redrive_target, facts.dead_letter_found) == (None, None, False)
        assert (await source.depth()).dead_letters is None

    async def test_the_depth_counts_visible_hidden_delayed_and_dead(self, kit: "Kit") -> None:
        """The counts of M1."""
        source = await kit.make()
        for number in range(6):
            await kit.send(source, str(number))
        await kit.send(source, "later", delay_seconds=60)
        await source.receive(_request(2))
        await source.dead_letter(Copy("dead"))
        assert await source.depth() == Depth(visible=4, in_flight=2, delayed=1, dead_letters=1)

    @pytest.mark.parametrize(
        ("operation", "arguments"),
        [
            ("receive", [_request()]),
            ("extend", [[("receipt", 30)]]),
            ("delete", [["receipt"]]),
            ("describe", []),
            ("depth", []),
            ("check_settlement", []),
        ],
    )
    async def test_a_missing_queue_is_missing_for_every_call(
        self, kit: "Kit", operation: str, arguments: list[object]
    ) -> None:
        assert await _fault(await kit.missing(), operation, *arguments) is Fault.MISSING

    async def test_the_check_of_settlement_touches_no_message(self, kit: "Kit") -> None:
        """Nothing is deleted, released or extended by asking whether it would be allowed (S6)."""
        source = await kit.make()
        for number in range(2):
            await kit.send(source, str(number))
        await _one(source)
        before = await source.depth()
        await source.check_settlement()
        assert await source.depth() == before

    async def test_a_closed_source_leaves_its_messages(self, kit: "Kit") -> None:
        source = await kit.make()
        await kit.send(source, "body")
        depth = await source.depth()
        await source.close()
        assert depth.visible == 1
