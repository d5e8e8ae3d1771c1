"""`MemorySource`: what only the queue in memory has. What every source does is in tests/conformance."""

import asyncio
from collections import Counter

import pytest

from worker.errors import Fault, SourceError, UsageError
from worker.message import Attribute, Received
from worker.source import Copy, ReceiveRequest
from worker.testing import MemorySource, virtual_time
from worker.testing.memory_order import SHUFFLE_WINDOW

HOUR = 3600
DAY = 24 * HOUR


def _request(limit: int = 10, *, wait: int = 0, visibility: int = 30, attempt_id: str | None = None) -> ReceiveRequest:
    return ReceiveRequest(limit, wait, visibility, attempt_id)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _receive_one(source: MemorySource, *, visibility: int = 30, wait: int = 0) -> Received:
    (message,) = await source.receive(_request(1, wait=wait, visibility=visibility))
    return message


class TestTime:
    async def test_sent_at_advances_with_virtual_time(self) -> None:
        """A message sent an hour later carries a time that is an hour later."""
        source = MemorySource()
        source.send("first")
        await asyncio.sleep(HOUR)
        source.send("second")
        first, second = await source.receive(_request())
        assert second.sent_at - first.sent_at == pytest.approx(HOUR)

    async def test_no_extend_passes_twelve_hours_from_the_receive(self) -> None:
        """SQS refuses a total visibility over 12 h; the message stays hidden as it was (L5)."""
        source = MemorySource()
        source.send("long")
        message = await _receive_one(source, visibility=12 * HOUR - 60)
        await asyncio.sleep(6 * HOUR)
        assert await source.extend([(message.receipt, 6 * HOUR)]) == [None]
        (refusal,) = await source.extend([(message.receipt, 6 * HOUR + 1)])
        assert refusal is not None
        assert (refusal.fault, refusal.code) == (Fault.INVALID, "InvalidParameterValue")
        await asyncio.sleep(6 * HOUR - 1)
        assert source.in_flight == 1
        await asyncio.sleep(1)
        assert source.visible == 1

    async def test_retention_deletes_visible_and_hidden_messages_alike(self) -> None:
        """After the retention period a message is gone, without a word and without a dead letter (S7)."""
        source = MemorySource(retention_seconds=DAY)
        source.send("visible")
        await asyncio.sleep(DAY - 10)
        message = await _receive_one(source, visibility=HOUR)
        await asyncio.sleep(9)
        assert source.in_flight == 1
        await asyncio.sleep(1)
        assert source.is_empty
        assert source.dead_letters == []
        assert await source.delete([message.receipt]) == [None]

    async def test_a_redrive_keeps_the_age_of_a_message_and_a_copy_starts_anew(self) -> None:
        """SQS's own move keeps the send time, so the dead-letter queue's retention counts from there (S7)."""
        dead_letters = MemorySource("orders-dlq", retention_seconds=2 * DAY, dead_letter=False)
        source = MemorySource(max_receive_count=1, dead_letter=dead_letters)
        source.send("redriven")
        await asyncio.sleep(DAY)
        await _receive_one(source)
        await asyncio.sleep(30)
        assert await source.receive(_request()) == []
        await source.dead_letter(Copy("copied"))
        assert [letter.body for letter in source.dead_letters] == ["redriven", "copied"]
        await asyncio.sleep(DAY - 30)
        assert [letter.body for letter in source.dead_letters] == ["copied"]

    async def test_the_delay_of_a_queue_holds_for_each_message_and_gives_way_to_its_own(self) -> None:
        source = MemorySource(delay_seconds=60)
        source.send("by the queue")
        source.send("its own", delay_seconds=10)
        assert (source.delayed, source.visible) == (2, 0)
        (first,) = await source.receive(_request(wait=20))
        assert (_now(), first.body) == (10, "its own")
        await source.delete([first.receipt])
        await asyncio.sleep(49)
        assert (source.delayed, source.visible) == (1, 0)
        await asyncio.sleep(1)
        assert (source.delayed, source.visible) == (0, 1)

    def test_what_was_sent_before_the_loop_is_there_in_the_loop_and_after_it(self) -> None:
        """A test may send outside of any event loop and look at the queue when the loop has ended."""
        source = MemorySource()
        source.send("early")

        async def consume() -> None:
            message = await _receive_one(source)
            await asyncio.sleep(5)
            await source.delete([message.receipt])
            source.send("late", delay_seconds=10)

        virtual_time.run(consume())
        assert source.delayed == 1

    def test_time_stands_still_between_two_loops(self) -> None:
        """A second event loop goes on where the first one ended, whatever its clock says."""
        source = MemorySource()
        source.send("message")

        async def take() -> None:
            await asyncio.sleep(100)
            await _receive_one(source, visibility=30)

        async def wait_for_it() -> float:
            assert await source.receive(_request(wait=20)) == []
            assert (await _receive_one(source, wait=20)).receive_count == 2
            return _now()

        virtual_time.run(take())
        assert virtual_time.run(wait_for_it()) == 30


class TestPolls:
    async def test_parked_receives_are_served_in_the_order_of_their_arrival(self) -> None:
        """Who has waited longest gets the next message."""
        source = MemorySource()
        served: list[int] = []

        async def poll(number: int) -> None:
            await source.receive(_request(1, wait=20))
            served.append(number)

        async with asyncio.TaskGroup() as polls:
            for number in range(5):
                polls.create_task(poll(number))
            await asyncio.sleep(1)
            for _ in range(5):
                source.send("message")
                await asyncio.sleep(1)
        assert served == [0, 1, 2, 3, 4]

    async def test_a_newcomer_does_not_overtake_a_parked_receive(self) -> None:
        """Of what is there when a second receive arrives, the first one is given its share first."""
        queue = MemorySource().store
        parked = asyncio.create_task(queue.receive(_request(1, wait=20)))
        await asyncio.sleep(1)
        first, second = queue.put(Copy("first")), queue.put(Copy("second"))
        assert [message.id for message in await queue.receive(_request())] == [second]
        assert [message.id for message in await parked] == [first]

    async def test_what_is_sent_together_arrives_together(self) -> None:
        source = MemorySource()
        poll = asyncio.create_task(source.receive(_request(wait=20)))
        await asyncio.sleep(3)
        for number in range(12):
            source.send(str(number))
        assert len(await poll) == 10
        assert _now() == 3

    async def test_a_parked_receive_is_woken_by_an_expiry_that_was_moved_closer(self) -> None:
        """A shorter visibility timeout than the one it parked with ends its wait at the right moment."""
        source = MemorySource()
        source.send("message")
        message = await _receive_one(source, visibility=600)
        poll = asyncio.create_task(source.receive(_request(wait=20)))
        await asyncio.sleep(1)
        await source.extend([(message.receipt, 4)])
        assert [again.id for again in await poll] == [message.id]
        assert _now() == 5

    async def test_a_message_that_comes_at_the_very_end_of_the_wait_is_returned(self) -> None:
        source = MemorySource()
        source.send("message", delay_seconds=20)
        assert len(await source.receive(_request(wait=20))) == 1

    async def test_an_idle_poll_costs_one_call_and_its_wait(self) -> None:
        source = MemorySource()
        assert await source.receive(_request(wait=20)) == []
        assert (_now(), source.calls["receive"]) == (20, 1)

    async def test_a_cancelled_poll_takes_nothing(self) -> None:
        source = MemorySource()
        poll = asyncio.create_task(source.receive(_request(wait=20)))
        await asyncio.sleep(1)
        poll.cancel()
        await asyncio.sleep(1)
        source.send("message")
        assert (await _receive_one(source)).receive_count == 1

    async def test_a_ghost_poll_takes_the_next_message_although_its_caller_has_gone(self) -> None:
        """A client killed in a long poll may still be given a message: hidden for one timeout, one count spent (R5)."""
        source = MemorySource()
        source.faults.ghost_polls = True
        poll = asyncio.create_task(source.receive(_request(wait=20, visibility=30)))
        await asyncio.sleep(1)
        poll.cancel()
        await asyncio.sleep(1)
        source.send("message")
        await asyncio.sleep(0)
        assert source.in_flight == 1
        await asyncio.sleep(28)
        assert (await _receive_one(source, wait=5)).receive_count == 2
        assert _now() == 32


class TestCounters:
    async def test_the_books_are_kept(self) -> None:
        """Calls, receive times and the most messages in flight can be looked up."""
        source = MemorySource()
        ids = [source.send(str(number)) for number in range(3)]
        messages = await source.receive(_request())
        await asyncio.sleep(7)
        await source.extend([(messages[0].receipt, 0)])
        await source.delete([message.receipt for message in messages[1:]])
        await source.delete([(await _receive_one(source)).receipt])
        await source.depth()
        assert source.calls == Counter(receive=2, delete=2, extend=1, depth=1)
        assert source.receives == {ids[0]: [0, 7], ids[1]: [0], ids[2]: [0]}
        assert source.max_in_flight == 3
        assert source.is_empty

    async def test_dead_letters_tell_how_they_came(self) -> None:
        source = MemorySource(max_receive_count=1)
        source.send("poison", attributes={"kind": "bad"}, trace_header="Root=1")
        await _receive_one(source)
        await asyncio.sleep(30)
        await source.receive(_request())
        await source.dead_letter(Copy("judged", {"n": Attribute("Number", "1")}))
        redriven, copied = source.dead_letters
        assert (redriven.body, redriven.arrived_by, redriven.receive_count) == ("poison", "redrive", 1)
        assert redriven.attributes == {"kind": Attribute("String", "bad")}
        assert (redriven.trace_header, redriven.arrived_at) == ("Root=1", 30)
        assert (copied.body, copied.arrived_by, copied.receive_count) == ("judged", "copy", 0)

    async def test_the_dead_letter_queue_is_a_source_of_its_own(self) -> None:
        """What lies in it can be received and deleted like any message."""
        source = MemorySource()
        await source.dead_letter(Copy("judged"))
        message = await _receive_one(source.dead_letter_queue)
        assert (message.body, source.dead_letter_queue.queue) == ("judged", "orders-dlq")
        await source.dead_letter_queue.delete([message.receipt])
        assert source.dead_letters == []

    async def test_two_sources_at_one_queue_share_its_messages_and_nothing_else(self) -> None:
        """Two processes: one is denied and closed, the other goes on."""
        one = MemorySource()
        two = one.another()
        one.faults.deny("receive")
        one.send("message")
        with pytest.raises(SourceError, match="AccessDenied"):
            await one.receive(_request())
        await one.close()
        assert (await _receive_one(two)).body == "message"
        assert (one.calls["receive"], two.calls["receive"], one.in_flight) == (1, 1, 1)

    async def test_nothing_may_be_called_after_the_close(self) -> None:
        source = MemorySource()
        await source.close()
        with pytest.raises(UsageError, match="after it was closed"):
            await source.receive(_request())

    async def test_a_queue_without_dead_letter_queue_says_so(self) -> None:
        source = MemorySource(dead_letter=False)
        with pytest.raises(UsageError, match="dead_letter=True"):
            _ = source.dead_letters
        facts = await source.describe()
        assert (facts.max_receive_count, facts.redrive_target, facts.dead_letter_found) == (None, None, False)
        assert (await source.depth()).dead_letters is None


class TestOrder:
    async def _bodies(self, source: MemorySource) -> list[str]:
        for number in range(100):
            source.send(str(number))
        return [message.body for _ in range(10) for message in await source.receive(_request())]

    async def test_a_standard_queue_keeps_the_order_unless_it_is_shuffled(self) -> None:
        assert await self._bodies(MemorySource()) == [str(number) for number in range(100)]

    async def test_a_shuffled_queue_loses_nothing_and_repeats_itself_for_the_same_seed(self) -> None:
        """The order is random within a window, the same for the same seed."""
        sources = [MemorySource() for _ in range(3)]
        for source, seed in zip(sources, (1, 1, 2), strict=True):
            source.shuffle(seed)
        first, same, other = [await self._bodies(source) for source in sources]
        assert first == same != other
        assert sorted(first, key=int) == [str(number) for number in range(100)]
        assert all(int(body) - position <= SHUFFLE_WINDOW for position, body in enumerate(first))

    async def test_only_an_empty_standard_queue_can_be_shuffled(self) -> None:
        source = MemorySource()
        source.send("message")
        for refused in (source, MemorySource("orders.fifo")):
            with pytest.raises(UsageError, match="standard and empty"):
                refused.shuffle(1)


class TestLimits:
    async def test_at_the_in_flight_limit_a_short_poll_of_a_standard_queue_is_refused(self) -> None:
        """AWS answers OverLimit to a short poll and nothing to a long one."""
        source = MemorySource()
        source.store.in_flight_limit = 2
        for number in range(3):
            source.send(str(number))
        assert len(await source.receive(_request())) == 2
        with pytest.raises(SourceError, match="OverLimit"):
            await source.receive(_request())
        assert await source.receive(_request(wait=5)) == []

    async def test_at_the_in_flight_limit_a_fifo_queue_returns_nothing(self) -> None:
        source = MemorySource("orders.fifo")
        source.store.in_flight_limit = 1
        source.send("a", group_id="a")
        source.send("b", group_id="b")
        assert len(await source.receive(_request())) == 1
        assert await source.receive(_request()) == []


class TestSpeed:
    async def test_timers_of_settled_messages_are_dropped(self) -> None:
        """Ten thousand messages through the queue leave no trace of their visibility and retention timers (D5)."""
        source = MemorySource()
        for number in range(10_000):
            source.send(str(number))
        while messages := await source.receive(_request(visibility=12 * HOUR)):
            await source.delete([message.receipt for message in messages])
        assert source.is_empty
        assert len(source.store._timers) < 200

    async def test_beats_do_not_pile_up(self) -> None:
        """A lease that is extended ten thousand times keeps a bounded number of timers (D5)."""
        source = MemorySource()
        source.send("message")
        message = await _receive_one(source)
        for _ in range(10_000):
            await source.extend([(message.receipt, 30)])
            await asyncio.sleep(0.001)
        assert len(source.store._timers) < 200
        assert source.in_flight == 1
