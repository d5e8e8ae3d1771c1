"""`Faults`: what goes wrong between a source and its queue, on demand."""

import asyncio

import pytest

from worker.errors import Fault, SourceError
from worker.source import Copy, ReceiveRequest
from worker.testing import MemorySource

THROTTLED = SourceError(Fault.THROTTLED, "ThrottlingException")


def _request(limit: int = 10, *, wait: int = 0, attempt_id: str | None = None) -> ReceiveRequest:
    return ReceiveRequest(limit, wait, visibility_timeout_seconds=30, attempt_id=attempt_id)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _fault_of(call: object) -> Fault | None:
    try:
        await call  # type: ignore[misc]
    except SourceError as error:
        return error.fault
    return None


async def test_the_next_calls_fail_and_then_it_is_over() -> None:
    """`times` calls fail before they have an effect; the error is the one that was asked for."""
    source = MemorySource()
    source.send("message")
    rule = source.faults.fail("receive", THROTTLED, times=2)
    assert [await _fault_of(source.receive(_request())) for _ in range(3)] == [Fault.THROTTLED, Fault.THROTTLED, None]
    assert (rule.hits, source.calls["receive"]) == (2, 3)
    assert source.max_in_flight == 1


async def test_each_failure_is_an_error_of_its_own() -> None:
    """Tracebacks do not pile up in one shared exception."""
    source = MemorySource()
    source.faults.fail("depth", THROTTLED, times=2)
    raised = []
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            await source.depth()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert THROTTLED not in raised


async def test_chance_repeats_itself_for_the_same_seed() -> None:
    """A probability is drawn from the seed, per call."""

    async def falls(seed: int) -> list[Fault | None]:
        source = MemorySource()
        source.faults.seed(seed)
        source.faults.fail("depth", times=None, probability=0.3)
        return [await _fault_of(source.depth()) for _ in range(100)]

    first, same, other = await falls(1), await falls(1), await falls(2)
    assert first == same != other
    assert 15 < first.count(Fault.UNAVAILABLE) < 45


async def test_a_lost_answer_hides_messages_that_nobody_has() -> None:
    """The receive took effect, the caller got an error: hidden for one timeout, one count spent."""
    source = MemorySource()
    message_id = source.send("message")
    source.faults.lose_answer("receive")
    assert await _fault_of(source.receive(_request())) is Fault.TIMEOUT
    assert (source.in_flight, source.receives) == (1, {message_id: [0]})
    (message,) = await source.receive(_request(wait=20)) or await source.receive(_request(wait=20))
    assert (message.receive_count, _now()) == (2, 30)


async def test_a_lost_answer_to_a_delete_deletes() -> None:
    source = MemorySource()
    source.send("message")
    (message,) = await source.receive(_request())
    source.faults.lose_answer("delete")
    assert await _fault_of(source.delete([message.receipt])) is Fault.TIMEOUT
    assert source.is_empty


async def test_a_lost_answer_to_a_fifo_receive_is_healed_by_its_attempt_id() -> None:
    """The same attempt id gets the same messages and handles again, without a further count (R8)."""
    source = MemorySource("orders.fifo")
    source.send("a1", group_id="a")
    source.send("a2", group_id="a")
    source.faults.lose_answer("receive")
    assert await _fault_of(source.receive(_request(attempt_id="try-1"))) is Fault.TIMEOUT
    assert await source.receive(_request(attempt_id="try-2")) == []
    await asyncio.sleep(20)
    messages = await source.receive(_request(attempt_id="try-1"))
    assert [(message.body, message.receive_count) for message in messages] == [("a1", 1), ("a2", 1)]
    await asyncio.sleep(20)
    assert source.in_flight == 2
    assert await source.delete([message.receipt for message in messages]) == [None, None]


async def test_an_attempt_id_is_forgotten_after_five_minutes() -> None:
    source = MemorySource("orders.fifo")
    source.send("a1", group_id="a")
    (message,) = await source.receive(_request(attempt_id="try"))
    await source.extend([(message.receipt, 3600)])
    await asyncio.sleep(299)
    assert len(await source.receive(_request(attempt_id="try"))) == 1
    await source.extend([(message.receipt, 3600)])
    await asyncio.sleep(1)
    assert await source.receive(_request(attempt_id="try")) == []


async def test_a_call_may_hang_until_it_is_cancelled() -> None:
    """No answer ever comes; the caller's own deadline is what ends it (R5)."""
    source = MemorySource()
    source.faults.hang("delete")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await source.delete(["receipt"])
    assert _now() == 10


async def test_a_call_may_hang_and_then_time_out() -> None:
    source = MemorySource()
    source.faults.hang("receive", 30)
    assert await _fault_of(source.receive(_request())) is Fault.TIMEOUT
    assert _now() == 30


@pytest.mark.parametrize(("after", "hidden_until"), [(False, 35), (True, 30)])
async def test_a_slow_call_is_slow_on_its_way_or_on_its_way_back(after: bool, hidden_until: int) -> None:  # noqa: FBT001 - a parameter of the test
    """A slow answer leaves less of the lease than a slow request."""
    source = MemorySource()
    source.send("message")
    source.faults.slow("receive", 5, times=1, after=after)
    (message,) = await source.receive(_request())
    assert _now() == 5
    await source.receive(_request(wait=20))
    await source.receive(_request(wait=20))
    assert source.receives[message.id][1] == hidden_until


async def test_in_the_dark_nothing_is_reached() -> None:
    """From start to end every call fails, and so does what was on the wire when the dark began."""
    source = MemorySource()
    source.faults.dark(10, 60)
    assert await _fault_of(source.receive(_request(wait=20))) is Fault.UNAVAILABLE
    assert _now() == 20
    assert await _fault_of(source.dead_letter(Copy("body"))) is Fault.UNAVAILABLE
    assert await _fault_of(source.describe()) is Fault.UNAVAILABLE
    await asyncio.sleep(40)
    assert await _fault_of(source.describe()) is None


async def test_what_is_on_its_way_when_the_dark_begins_does_not_arrive() -> None:
    source = MemorySource()
    source.send("message")
    (message,) = await source.receive(_request())
    source.faults.slow("delete", 5, times=1)
    source.faults.dark(3, 60)
    assert await _fault_of(source.delete([message.receipt])) is Fault.UNAVAILABLE
    assert source.in_flight == 1


async def test_single_entries_of_a_batch_fail() -> None:
    """The other entries are not affected; a failed entry had no effect, or (`after`) lost its answer (S1)."""
    source = MemorySource()
    for number in range(4):
        source.send(str(number))
    messages = await source.receive(_request())
    receipts = [message.receipt for message in messages]
    source.faults.fail_entries("delete", THROTTLED, times=1)
    source.faults.fail_entries("delete", times=1, after=True)
    results = await source.delete(receipts)
    assert [result.fault if result else None for result in results] == [Fault.THROTTLED, Fault.UNAVAILABLE, None, None]
    assert [stored.body for stored in source.stored()] == ["0"]


async def test_denied_operations_are_denied_until_the_rules_stop() -> None:
    """Receives go on while settlement is denied, as with a wrong IAM policy (S6)."""
    source = MemorySource()
    source.send("message")
    rules = source.faults.deny("delete", "extend")
    (message,) = await source.receive(_request())
    assert await _fault_of(source.delete([message.receipt])) is Fault.DENIED
    assert await _fault_of(source.extend([(message.receipt, 30)])) is Fault.DENIED
    assert await _fault_of(source.check_settlement()) is Fault.DENIED
    for rule in rules:
        rule.stop()
    assert await _fault_of(source.check_settlement()) is None
    assert await source.delete([message.receipt]) == [None]


async def test_a_message_comes_twice_in_one_response() -> None:
    """The same id with two handles: the newer one is good, the older one deletes nothing (R9)."""
    source = MemorySource()
    source.send("message")
    source.faults.double(same_response=True)
    first, second = await source.receive(_request())
    assert (first.id, first.receive_count, second.receive_count) == (second.id, 1, 2)
    assert await source.delete([first.receipt]) == [None]
    assert source.in_flight == 1
    assert await source.delete([second.receipt]) == [None]
    assert source.is_empty


async def test_a_message_comes_again_in_a_later_response() -> None:
    """The next receive returns it although it is in flight (R9)."""
    source = MemorySource()
    source.send("message")
    source.faults.double()
    (first,) = await source.receive(_request())
    (second,) = await source.another().receive(_request(wait=20))
    assert (first.id, second.receive_count, source.in_flight, _now()) == (second.id, 2, 1, 0)
    (refusal,) = await source.extend([(first.receipt, 60)])
    assert refusal is not None
    assert refusal.fault is Fault.LOST
    assert await source.receive(_request()) == []


async def test_a_doubled_message_that_was_deleted_in_time_does_not_come_again() -> None:
    source = MemorySource()
    source.send("message")
    source.faults.double()
    (first,) = await source.receive(_request())
    await source.delete([first.receipt])
    assert await source.receive(_request()) == []


async def test_clear_ends_everything() -> None:
    source = MemorySource()
    source.faults.fail("*", times=None)
    source.faults.dark(0, 100)
    source.faults.ghost_polls = True
    assert await _fault_of(source.depth()) is Fault.UNAVAILABLE
    source.faults.clear()
    assert await _fault_of(source.depth()) is None
    assert not source.faults.ghost_polls


async def test_a_queue_that_was_deleted_is_missing_for_every_source() -> None:
    source = MemorySource()
    other = source.another()
    source.exists = False
    assert await _fault_of(other.receive(_request())) is Fault.MISSING
    assert await _fault_of(other.describe()) is Fault.MISSING
    source.exists = True
    assert await _fault_of(other.describe()) is None
