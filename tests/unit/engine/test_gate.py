"""The gate of intake: nothing is received while nothing can be settled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog

from worker.engine.consumer import Consumer
from worker.engine.gate import PATIENCE_SECONDS, PROBE_CAP_SECONDS
from worker.errors import Fault, SourceError
from worker.message import Message
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource

LONGEST_WAIT_SECONDS = PROBE_CAP_SECONDS + 2


def handler_of(seconds: float = 0.0, seen: list[str] | None = None) -> Callable[[Message[str]], Awaitable[None]]:
    async def handler(message: Message[str]) -> None:
        if seen is not None:
            seen.append(message.body)
        await asyncio.sleep(seconds)

    return handler


def send(source: MemorySource, count: int) -> None:
    for number in range(count):
        source.send(str(number))


def is_open(consumer: Consumer) -> bool:
    """Whether intake goes on; what says so must agree."""
    is_ready = "settlement" not in consumer.context.vitals.problems
    assert consumer.context.metrics.snapshot()["settlement_blocked"] is not is_ready
    assert consumer._gate.is_closed is not is_ready
    return is_ready


async def test_denied_deletes_stop_intake_until_they_are_allowed() -> None:
    """One finished message that may not be deleted is enough: nothing more is received, and nothing is dead-lettered (S6)."""
    source = MemorySource(visibility_timeout_seconds=5)
    rules = source.faults.deny("delete")
    send(source, 50)
    seen: list[str] = []
    async with Fleet(source, concurrency=1).running(handler_of(0, seen)) as consumer:
        await asyncio.sleep(1)
        assert not is_open(consumer)
        assert "AccessDenied" in consumer.context.vitals.problems["settlement"]
        assert "sqs:DeleteMessage" in consumer.context.vitals.problems["settlement"]
        await asyncio.sleep(7200)  # the message's lease reaches its cap and its slot is free again
        assert (len(seen), len(source.receives)) == (1, 1)
        for rule in rules:
            rule.stop()
        await asyncio.sleep(LONGEST_WAIT_SECONDS + 10)
        assert is_open(consumer)
        assert source.is_empty
    assert sorted(seen, key=int) == [str(number) for number in range(50)]
    assert source.dead_letters == []


async def test_the_gate_is_looked_at_after_the_wait_for_room() -> None:
    """A loop that waited for room when the gate closed receives nothing once there is room (S6)."""
    source = MemorySource(visibility_timeout_seconds=5)
    send(source, 10)
    async with Fleet(source, concurrency=1, max_lease_seconds=60).running(handler_of(2)):
        await asyncio.sleep(1)
        assert source.calls["receive"] == 1
        source.faults.deny("delete", "extend")  # so that the lease ends and the slot comes back
        await asyncio.sleep(600)
        assert source.calls["receive"] == 1


async def test_beats_that_succeed_do_not_allow_denied_deletes() -> None:
    """With deletes denied and extends allowed the gate stays shut: one call's success says nothing of the other (S6)."""
    source = MemorySource(visibility_timeout_seconds=6)
    source.faults.deny("delete")
    async with Fleet(source, concurrency=20).running(handler_of(1)) as consumer:
        send(source, 1)
        await asyncio.sleep(2)
        send(source, 5)
        assert not is_open(consumer)
        extends = source.calls["extend"]
        receives = source.calls["receive"]
        for _ in range(120):
            await asyncio.sleep(1)
            assert not is_open(consumer)
        assert source.calls["extend"] > extends + 20
        assert source.calls["receive"] == receives
        source.faults.clear()


async def test_denied_beats_stop_intake() -> None:
    """Extends that are denied count like deletes: every long handler would lose its lease (S6)."""
    source = MemorySource(visibility_timeout_seconds=6)
    source.faults.deny("extend")
    send(source, 10)
    async with Fleet(source, concurrency=2).running(handler_of(4)) as consumer:
        await asyncio.sleep(2.5)
        assert not is_open(consumer)
        await asyncio.sleep(100)
        assert len(source.receives) == 2
        source.faults.clear()
        await asyncio.sleep(LONGEST_WAIT_SECONDS + 40)
        assert is_open(consumer)
        assert source.is_empty


async def test_passing_failures_stop_intake_after_ten_seconds() -> None:
    """Deletes that fail for passing reasons stop intake only when none has succeeded for ten seconds (S6)."""
    source = MemorySource(visibility_timeout_seconds=300)
    send(source, 100)
    async with Fleet(source, concurrency=10).running(handler_of(30)) as consumer:
        await asyncio.sleep(29)
        source.faults.fail("delete", times=None)
        source.faults.fail("check_settlement", times=None)
        await asyncio.sleep(1 + PATIENCE_SECONDS - 1)
        assert is_open(consumer)
        await asyncio.sleep(8)
        assert not is_open(consumer)
        assert "ServiceUnavailable" in consumer.context.vitals.problems["settlement"]
        assert "allow" not in consumer.context.vitals.problems["settlement"]
        source.faults.clear()
        await asyncio.sleep(LONGEST_WAIT_SECONDS)
        assert is_open(consumer)


async def test_one_success_ends_the_ten_seconds() -> None:
    """Half of all deletes failing is slow, not a reason to stop (S6)."""
    source = MemorySource()
    source.faults.fail("delete", probability=0.5, times=None)
    send(source, 500)
    async with Fleet(source, concurrency=10).running(handler_of(0.5)) as consumer:
        for _ in range(3000):  # a message none of whose deletes worked comes back when its lease has ended
            await asyncio.sleep(0.2)
            assert is_open(consumer)
        assert source.is_empty


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.INVALID])
async def test_a_refused_receipt_is_an_answer(fault: Fault) -> None:
    """SQS that refuses a receipt handle can be reached and lets us settle: it is no reason to stop (S6)."""
    source = MemorySource()
    source.faults.fail_entries("delete", SourceError(fault, "ReceiptHandleIsInvalid"), times=None)
    send(source, 20)
    async with Fleet(source, concurrency=1).running(handler_of(1)) as consumer:
        for _ in range(25):
            await asyncio.sleep(1)
            assert is_open(consumer)
        assert len(source.receives) == 20


async def test_a_closed_gate_asks_seldom_and_alone() -> None:
    """However many loops were open, one probe at a time asks, with growing pauses, and touches no message (S6)."""
    source = MemorySource(visibility_timeout_seconds=10)
    send(source, 2000)
    async with Fleet(source, concurrency=100, max_lease_seconds=60).running(handler_of(1)) as consumer:
        await asyncio.sleep(3)
        source.faults.deny("delete", "extend")
        await asyncio.sleep(60)
        assert not is_open(consumer)
        probes, receives = source.calls["check_settlement"], source.calls["receive"]
        await asyncio.sleep(600)
        assert 30 < source.calls["check_settlement"] - probes < 200
        assert source.calls["receive"] == receives


async def test_a_closed_gate_needs_no_message_to_open() -> None:
    """When nothing is in hand any more, the probe alone finds out that settlement works again (S6)."""
    source = MemorySource(visibility_timeout_seconds=5)
    source.faults.deny("delete", "extend")
    send(source, 3)
    async with Fleet(source, concurrency=1).running(handler_of()) as consumer:
        await asyncio.sleep(120)
        assert (consumer.in_hand, is_open(consumer)) == (0, False)
        source.faults.clear()
        await asyncio.sleep(LONGEST_WAIT_SECONDS + 1)
        assert is_open(consumer)
        assert source.is_empty


async def test_a_settlement_that_succeeds_opens_the_gate_before_the_probe() -> None:
    """After passing failures the first delete that SQS takes is proof enough (S6)."""
    source = MemorySource(visibility_timeout_seconds=300)
    rules = [source.faults.fail(operation, times=None) for operation in ("delete", "check_settlement")]
    send(source, 3)
    async with Fleet(source, concurrency=1).running(handler_of()) as consumer:
        await asyncio.sleep(60)
        assert not is_open(consumer)
        rules[0].stop()
        await asyncio.sleep(10)
        assert is_open(consumer)
        assert source.is_empty
        assert rules[1].hits > 0


async def test_a_queue_behind_a_closed_gate_drains() -> None:
    """A gate that is closed holds no drain up (S6, D1)."""
    source = MemorySource(visibility_timeout_seconds=5)
    source.faults.deny("delete", "extend")
    send(source, 3)
    async with Fleet(source, concurrency=1).running(handler_of()) as consumer:
        await asyncio.sleep(60)
        assert not is_open(consumer)
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 1


async def test_closing_and_opening_is_said_once() -> None:
    """The log names the reason when intake stops, reminds once a minute, and says when it goes on (S6, R6)."""
    source = MemorySource(visibility_timeout_seconds=5)
    source.faults.deny("delete")
    send(source, 3)
    with structlog.testing.capture_logs() as lines:
        async with Fleet(source, concurrency=1).running(handler_of()):
            await asyncio.sleep(55)
            source.faults.clear()
            await asyncio.sleep(LONGEST_WAIT_SECONDS)
    said = [line["event"] for line in lines if line["event"].startswith("settlement ")]
    assert said == ["settlement fails", "settlement works again"]


async def test_a_probe_that_crashes_is_tried_again() -> None:
    """A defect in the probe does not keep intake shut for ever (S6, D2)."""

    class BrokenSource(MemorySource):
        crashes = 2

        async def check_settlement(self) -> None:
            if self.crashes:
                self.crashes -= 1
                raise RuntimeError("a defect")
            await super().check_settlement()

    source = BrokenSource(visibility_timeout_seconds=5)
    source.faults.deny("delete")
    send(source, 3)
    async with Fleet(source, concurrency=1).running(handler_of()) as consumer:
        await asyncio.sleep(2)
        source.faults.clear()
        await asyncio.sleep(4 * LONGEST_WAIT_SECONDS)
        assert is_open(consumer)
        assert source.is_empty
