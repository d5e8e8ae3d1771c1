"""What every `Source` does on a standard queue: the one in memory as AWS does it, SQS as its emulator does it."""

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from worker.errors import EntryError, Fault, SourceError
from worker.message import Attribute, Received
from worker.source import Depth, ReceiveRequest, Source
from worker.testing import virtual_time

if TYPE_CHECKING:
    from conformance.conftest import Kit

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


def _faults(results: list[EntryError | None]) -> list[Fault | None]:
    return [result.fault if result is not None else None for result in results]


class Stopwatch:
    """Seconds since it was made, on the running loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()

    @property
    def seconds(self) -> float:
        return self._loop.time() - self._start


class TestReceive:
    async def test_a_message_arrives_as_it_was_sent(self, kit: "Kit") -> None:
        """Body and attributes, binary and numbers too, come unchanged; the id is the sender's."""
        source = await kit.make()
        message_id = await kit.send(source, '{"ü": "\U0001f600"}\n', attributes=ATTRIBUTES, trace_header="Root=1-2-3")
        message = await _one(source)
        assert (message.id, message.body, message.attributes) == (message_id, '{"ü": "\U0001f600"}\n', ATTRIBUTES)
        assert (message.receive_count, message.trace_header) == (1, "Root=1-2-3")
        assert (message.group_id, message.deduplication_id, message.sequence_number) == (None, None, None)
        assert message.sent_at == pytest.approx(time.time(), abs=60)

    async def test_what_was_not_sent_is_absent(self, kit: "Kit") -> None:
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source)
        assert (message.attributes, message.trace_header) == ({}, None)

    async def test_a_receive_returns_at_most_its_limit(self, kit: "Kit") -> None:
        """Never more than asked for, and nothing twice (R1)."""
        source = await kit.make()
        sent = {await kit.send(source, str(number)) for number in range(13)}
        batches = [await source.receive(_request(limit)) for limit in (1, 10, 10)]
        assert [len(batch) for batch in batches] == [1, 10, 2]
        assert {message.id for batch in batches for message in batch} == sent

    @pytest.mark.parametrize("limit", [0, 11])
    async def test_a_limit_out_of_range_is_refused(self, kit: "Kit", limit: int) -> None:
        source = await kit.make()
        if kit.differs.takes_a_limit_of_zero and limit == 0:
            assert await source.receive(_request(limit)) == []
        else:
            assert await _fault(source, "receive", _request(limit)) is Fault.INVALID

    @pytest.mark.parametrize(("wait", "visibility"), [(21, 30), (-1, 30), (0, 43_201), (0, -1)])
    async def test_a_wait_or_visibility_out_of_range_is_refused(self, kit: "Kit", wait: int, visibility: int) -> None:
        source = await kit.make()
        if kit.differs.takes_any_visibility if wait == 0 else kit.differs.takes_any_wait:
            await kit.send(source, "so that no wait is spent")
            assert len(await source.receive(_request(wait=wait, visibility=visibility))) == 1
        else:
            assert await _fault(source, "receive", _request(wait=wait, visibility=visibility)) is Fault.INVALID

    async def test_an_empty_queue_answers_a_short_poll_at_once(self, kit: "Kit") -> None:
        source = await kit.make()
        watch = Stopwatch()
        assert await source.receive(_request()) == []
        assert watch.seconds < 1

    async def test_an_empty_queue_keeps_a_long_poll_for_its_wait(self, kit: "Kit") -> None:
        source = await kit.make()
        watch = Stopwatch()
        assert await source.receive(_request(wait=1)) == []
        assert 0.9 <= watch.seconds < 3

    async def test_a_long_poll_is_woken_by_a_message(self, kit: "Kit") -> None:
        """The wait ends with the first message, not with its time (R2)."""
        source = await kit.make()
        await source.depth()
        watch = Stopwatch()
        poll = asyncio.create_task(source.receive(_request(wait=10)))
        await asyncio.sleep(0.5)
        await kit.send(source, "body")
        assert [message.body for message in await poll] == ["body"]
        assert watch.seconds < 5

    async def test_a_long_poll_is_woken_by_an_expiry(self, kit: "Kit") -> None:
        """A message whose visibility timeout ends goes to who waits."""
        source = await kit.make()
        await kit.send(source, "body")
        await _one(source, visibility=1)
        watch = Stopwatch()
        assert (await _one(source, wait=10)).receive_count == 2
        assert 0.5 <= watch.seconds < 5

    async def test_a_long_poll_is_woken_by_a_delayed_message(self, kit: "Kit") -> None:
        source = await kit.make()
        await kit.send(source, "body", delay_seconds=1)
        assert await source.receive(_request()) == []
        watch = Stopwatch()
        assert (await _one(source, wait=10)).receive_count == 1
        assert 0.5 <= watch.seconds < 5


class TestVisibility:
    async def test_a_received_message_is_hidden_from_others(self, kit: "Kit") -> None:
        source = await kit.make()
        await kit.send(source, "body")
        await _one(source)
        assert await source.receive(_request()) == []

    async def test_an_unsettled_message_comes_back_with_a_new_handle(self, kit: "Kit") -> None:
        """After the visibility timeout it is received again: same id, count 2, another receipt (D4)."""
        source = await kit.make()
        await kit.send(source, "body")
        first = await _one(source, visibility=1)
        second = await _one(source, wait=5)
        assert (first.id, first.receive_count, second.receive_count) == (second.id, 1, 2)
        assert first.receipt != second.receipt
        assert first.sent_at == second.sent_at

    async def test_an_extended_message_stays_hidden(self, kit: "Kit") -> None:
        """An extend counts from when it is made, not from the receive (L2)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source, visibility=1)
        assert await source.extend([(message.receipt, 30)]) == [None]
        assert await source.receive(_request(wait=2)) == []

    async def test_it_stays_hidden_when_the_event_loop_is_not_asked(self, kit: "Kit") -> None:
        """A blocking call does the same, per entry, while the loop can do nothing (L6)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source, visibility=2)
        assert _faults(source.extend_blocking([(message.receipt, 30), ("garbage", 30)])) == [None, Fault.LOST]
        assert await source.receive(_request(wait=3)) == []

    async def test_an_extend_by_zero_releases_at_once(self, kit: "Kit") -> None:
        """The message is visible again and the count was spent (S8)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source)
        assert await source.extend([(message.receipt, 0)]) == [None]
        assert (await _one(source)).receive_count == 2

    async def test_an_extend_of_a_lapsed_message_is_lost(self, kit: "Kit") -> None:
        """AWS says that it is not in flight; emulators answer with success, which proves nothing (L3)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source, visibility=1)
        await asyncio.sleep(1.5)
        expected = None if kit.differs.extends_what_has_lapsed else Fault.LOST
        assert _faults(await source.extend([(message.receipt, 0)])) == [expected]

    async def test_an_extend_of_a_deleted_message_is_lost(self, kit: "Kit") -> None:
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source)
        await source.delete([message.receipt])
        assert _faults(await source.extend([(message.receipt, 30)])) == [Fault.LOST]

    async def test_an_extend_beyond_twelve_hours_is_refused(self, kit: "Kit") -> None:
        """The message stays hidden as it was (L5)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source)
        expected = None if kit.differs.extends_beyond_twelve_hours else Fault.INVALID
        assert _faults(await source.extend([(message.receipt, 43_201)])) == [expected]
        assert await source.receive(_request()) == []


class TestDelete:
    async def test_a_deleted_message_is_gone_for_good(self, kit: "Kit") -> None:
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source, visibility=1)
        assert await source.delete([message.receipt]) == [None]
        assert await source.receive(_request(wait=2)) == []
        assert await source.depth() == Depth(0, 0, 0, 0)

    async def test_a_second_delete_changes_nothing(self, kit: "Kit") -> None:
        """A delete whose answer was lost can be repeated (S1)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source)
        await source.delete([message.receipt])
        expected = Fault.LOST if kit.differs.refuses_stale_deletes else None
        assert _faults(await source.delete([message.receipt])) == [expected]

    async def test_a_delete_with_an_old_handle_may_delete_nothing(self, kit: "Kit") -> None:
        """AWS answers with success and promises nothing; the newest handle deletes (S2)."""
        source = await kit.make()
        await kit.send(source, "body")
        old = await _one(source, visibility=1)
        new = await _one(source, wait=5)
        expected = Fault.LOST if kit.differs.refuses_stale_deletes else None
        assert _faults(await source.delete([old.receipt])) == [expected]
        assert (await source.depth()).in_flight == (0 if kit.differs.deletes_with_an_old_handle else 1)
        assert await source.delete([new.receipt]) == [None]
        assert (await source.depth()).in_flight == 0

    async def test_a_lapsed_message_that_nobody_took_can_still_be_deleted(self, kit: "Kit") -> None:
        """The newest handle of a standard queue's message is good after the timeout too (L3)."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source, visibility=1)
        await asyncio.sleep(1.5)
        assert await source.delete([message.receipt]) == [None]
        assert await source.depth() == Depth(0, 0, 0, 0)


class TestBatches:
    async def test_each_entry_has_its_own_result(self, kit: "Kit") -> None:
        """A false handle fails alone; results come in the order of the entries (S1)."""
        source = await kit.make()
        for number in range(2):
            await kit.send(source, str(number))
        first, second = await source.receive(_request())
        assert _faults(await source.extend([(first.receipt, 60), ("garbage", 60), (second.receipt, 60)])) == [
            None,
            Fault.LOST,
            None,
        ]
        assert _faults(await source.delete([first.receipt, "garbage", second.receipt])) == [None, Fault.LOST, None]
        assert (await source.depth()).in_flight == 0

    async def test_a_handle_may_stand_in_a_batch_twice(self, kit: "Kit") -> None:
        """Entries are told apart by position, so the batch is not refused."""
        source = await kit.make()
        await kit.send(source, "body")
        message = await _one(source)
        assert await source.extend([(message.receipt, 60), (message.receipt, 90)]) == [None, None]

    async def test_ten_entries_are_taken_and_eleven_are_not(self, kit: "Kit") -> None:
        source = await kit.make()
        for number in range(11):
            await kit.send(source, str(number))
        receipts = [message.receipt for _ in range(2) for message in await source.receive(_request())]
        assert len(receipts) == 11
        with pytest.raises((SourceError, ValueError)):
            await source.delete(receipts)
        with pytest.raises((SourceError, ValueError)):
            await source.extend([(receipt, 60) for receipt in receipts])
        assert await source.delete(receipts[:10]) == [None] * 10
        assert (await source.depth()).in_flight == 1


async def test_the_suite_runs_where_it_says(kit: "Kit", request: pytest.FixtureRequest) -> None:
    """The memory source is tested in virtual time, SQS on the real clock as an integration or a strict test."""
    on_sqs = any(request.node.get_closest_marker(name) for name in ("integration", "strict"))
    assert virtual_time.is_running() is not on_sqs
    assert type(kit).__name__ == ("SqsKit" if on_sqs else "MemoryKit")
