"""Entries that come due together share a call, and each gets its own answer."""

import asyncio
from collections.abc import Sequence

from worker.engine.batcher import GATHER_SECONDS, GIVEN_UP, Batcher
from worker.errors import EntryError, Fault, SourceError

UNAVAILABLE = SourceError(Fault.UNAVAILABLE, "ServiceUnavailable")
BAD = EntryError(Fault.LOST, "ReceiptHandleIsInvalid")


class Wire:
    """A batch call that notes what it was given and when, and takes a second unless told otherwise."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.calls: list[tuple[float, list[str]]] = []
        self.error: Exception | None = None
        self.refused: set[str] = set()

    @property
    def batches(self) -> list[list[str]]:
        return [entries for _, entries in self.calls]

    async def __call__(self, entries: Sequence[str]) -> list[EntryError | None]:
        self.calls.append((_now(), list(entries)))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return [BAD if entry in self.refused else None for entry in entries]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _names(count: int) -> list[str]:
    return [f"receipt-{number}" for number in range(count)]


async def _submit_all(batcher: Batcher[str], entries: Sequence[str]) -> list[EntryError | None]:
    return await asyncio.gather(*(batcher.submit(entry) for entry in entries))


async def test_a_lone_entry_is_sent_without_waiting_for_others() -> None:
    """A lone message is deleted without waiting (S1)."""
    wire = Wire()
    started = _now()
    assert await Batcher(wire, "delete").submit("lone") is None
    assert wire.calls == [(started, ["lone"])]


async def test_what_ends_together_goes_together_ten_at_a_time() -> None:
    """Deletes go in batches of up to ten (S1)."""
    wire = Wire()
    await _submit_all(Batcher(wire, "delete"), _names(25))
    assert [len(batch) for batch in wire.batches] == [10, 10, 5]
    assert [entry for batch in wire.batches for entry in batch] == _names(25)


async def test_entries_gather_for_twenty_milliseconds_while_a_call_is_on_the_wire() -> None:
    """A slow call does not hold the next entries back for longer than the gathering time (S1)."""
    wire = Wire(seconds=10)
    batcher = Batcher(wire, "delete")
    async with asyncio.TaskGroup() as group:
        started = _now()
        for name in _names(3):
            group.create_task(batcher.submit(name))
            await asyncio.sleep(0.005)
    assert wire.batches == [["receipt-0"], ["receipt-1", "receipt-2"]]
    assert wire.calls[1][0] - started < 0.005 + 2 * GATHER_SECONDS


async def test_what_gathers_is_sent_as_soon_as_the_wire_is_free() -> None:
    """Nobody waits out the gathering time when the call before has already ended (S1)."""
    wire = Wire(seconds=0.008)
    batcher = Batcher(wire, "delete")
    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.submit("first"))
        await asyncio.sleep(0.004)
        group.create_task(batcher.submit("second"))
        await asyncio.sleep(0.005)
        assert wire.batches == [["first"], ["second"]]


async def test_every_entry_gets_its_own_answer() -> None:
    """Results are read per entry, by position: one bad receipt does not fail its neighbours (S1)."""
    wire = Wire()
    wire.refused = {"receipt-3"}
    answers = await _submit_all(Batcher(wire, "delete"), _names(5))
    assert answers == [None, None, None, BAD, None]


async def test_a_call_that_fails_as_a_whole_is_the_answer_to_all_its_entries() -> None:
    wire = Wire()
    wire.error = UNAVAILABLE
    answers = await _submit_all(Batcher(wire, "delete"), _names(3))
    assert answers == [EntryError(Fault.UNAVAILABLE, "ServiceUnavailable")] * 3


async def test_a_batch_that_sqs_refuses_as_a_whole_is_split() -> None:
    """One entry that AWS will never accept cannot take the others with it (S1)."""

    async def picky(entries: Sequence[str]) -> list[EntryError | None]:
        if "broken" in entries:
            raise SourceError(Fault.INVALID, "InvalidBatchEntry")
        return [None] * len(entries)

    answers = await _submit_all(Batcher(picky, "delete"), ["fine", "broken", "fine too"])
    assert answers == [None, EntryError(Fault.INVALID, "InvalidBatchEntry"), None]


async def test_a_defect_of_the_source_leaves_nobody_waiting() -> None:
    """A source that raises what it must not raise is answered for, so that slots come back (S6)."""
    wire = Wire()
    wire.error = ZeroDivisionError("a defect")
    answers = await _submit_all(Batcher(wire, "delete"), _names(2))
    assert answers == [EntryError(Fault.UNAVAILABLE, "ZeroDivisionError")] * 2


async def test_a_source_that_answers_for_too_few_entries_leaves_nobody_waiting() -> None:
    """Which entries the answers are about cannot be told, so all of them count as failed (S1, S6)."""

    async def short(entries: Sequence[str]) -> list[EntryError | None]:
        return [None] * (len(entries) - 1)

    answers = await _submit_all(Batcher(short, "delete"), _names(3))
    assert [answer.fault for answer in answers if answer is not None] == [Fault.UNAVAILABLE] * 3


async def test_a_call_that_ends_in_a_cancellation_of_its_own_leaves_nobody_waiting() -> None:
    """A library that cancels itself must not keep messages in hand for ever (S6)."""

    async def cancelled(entries: Sequence[str]) -> list[EntryError | None]:
        raise asyncio.CancelledError(len(entries))

    assert await _submit_all(Batcher(cancelled, "delete"), _names(2)) == [GIVEN_UP] * 2


async def test_a_caller_that_gives_up_does_not_disturb_its_neighbours() -> None:
    wire = Wire()
    batcher = Batcher(wire, "delete")
    impatient = asyncio.create_task(batcher.submit("impatient"))
    patient = asyncio.create_task(batcher.submit("patient"))
    await asyncio.sleep(0.5)
    impatient.cancel()
    assert await patient is None
    assert impatient.cancelled()


async def test_closing_gives_up_what_is_on_the_wire_and_what_waits() -> None:
    """No call outlives its queue's consumer: nothing leaks (D5)."""
    wire = Wire(seconds=3600)
    batcher = Batcher(wire, "delete")
    first = asyncio.create_task(batcher.submit("on the wire"))
    await asyncio.sleep(1)
    second = asyncio.create_task(batcher.submit("waiting"))
    await asyncio.sleep(0)
    await batcher.close()
    assert [await first, await second] == [GIVEN_UP] * 2
    assert wire.batches == [["on the wire"]]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_an_idle_batcher_does_nothing() -> None:
    wire = Wire()
    batcher = Batcher(wire, "delete")
    await batcher.submit("one")
    await batcher.close()
    await batcher.close()
    assert wire.batches == [["one"]]
