"""Settlement of dead letters: the original is deleted only after the copy, and kept when the copy is refused."""

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from itertools import pairwise
from typing import Any

from support.loop_time import now
from support.runs import Handled, refuse

from worker import Message, PermanentError, TransientError
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.errors import Fault, SourceError
from worker.message import Attribute
from worker.outcome import DeadLetter, Retry
from worker.source import Copy
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HOUR = 3600
INVALID = SourceError(Fault.INVALID, "InvalidMessageContents")

LogLines = list[MutableMapping[str, Any]]


def _reason(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    attribute = attributes[REASON_ATTRIBUTE]
    assert attribute.data_type == "String"
    facts: dict[str, Any] = json.loads(attribute.value)
    return facts


class TestCopyFirst:
    async def test_the_original_is_deleted_only_after_the_copy_is_confirmed(self) -> None:
        """While the dead-letter queue does not answer, the original stays (S5)."""
        source = MemorySource()
        source.faults.slow("dead_letter", 60, times=1)
        source.send("{}")
        async with Fleet(source).running(refuse):
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
        await Fleet(source).run(refuse)
        assert len(source.receives[message_id]) == 1

    async def test_a_passing_refusal_is_tried_again_under_the_lease(self) -> None:
        source = MemorySource()
        source.faults.fail("dead_letter", times=5)
        message_id = source.send("{}")
        await Fleet(source).run(refuse)
        assert len(source.dead_letters) == 1
        assert len(source.receives[message_id]) == 1

    async def test_a_copy_whose_answer_was_lost_is_sent_twice_and_nothing_is_lost(self) -> None:
        """Twice is possible, loss is not (S5)."""
        source = MemorySource()
        source.faults.lose_answer("dead_letter")
        source.send("{}")
        await Fleet(source).run(refuse)
        assert [letter.body for letter in source.dead_letters] == ["{}", "{}"]
        assert source.is_empty

    async def test_what_was_copied_and_not_deleted_is_deleted_when_it_comes_again(self) -> None:
        """A copied message is not run again and not copied again (S2, S5)."""
        source = MemorySource(visibility_timeout_seconds=10)
        runs = 0

        async def refuse_and_go_dark(_: Message[Any]) -> DeadLetter:
            nonlocal runs
            runs += 1
            source.faults.dark(now() + 0.001, now() + 30)  # the copy is through, the delete is not
            return DeadLetter("sold out")

        source.faults.slow("delete", 1, times=1)
        message_id = source.send("{}")
        await Fleet(source).run(refuse_and_go_dark)
        assert (runs, len(source.dead_letters)) == (1, 1)
        assert len(source.receives[message_id]) > 1


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
        async with fleet.running(refuse):
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
        async with fleet.running(refuse):
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
        async with fleet.running(refuse):
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
        async with fleet.running(refuse) as consumer:
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
        await fleet.run(refuse, seconds=1300)
        received = source.receives[message_id]
        assert [round(later - earlier) for earlier, later in pairwise(received)] == [600, 600]
        loud = [line for line in lines if "no dead-letter queue" in line["event"]]
        assert [line["log_level"] for line in loud] == ["error"] * 3

    async def test_used_up_attempts_are_retried_at_the_longest_delay(self) -> None:
        source = MemorySource(dead_letter=False)
        message_id = source.send("{}")
        fleet = Fleet(source, dead_letter="none", attempts=2, retry={"base_seconds": 1, "max_seconds": 600})
        await fleet.run(Handled(*[RuntimeError("ledger down")] * 9), seconds=700)
        first, second, third = source.receives[message_id]
        assert second - first < 3
        assert 600 <= third - second < 602


class TestRetention:
    async def test_a_failure_within_the_last_hour_is_saved_into_the_dead_letter_queue(self) -> None:
        """Retention deletes silently; a copy's clock starts anew (S7)."""
        source = MemorySource(retention_seconds=24 * HOUR)
        source.send("{}")
        handler = Handled(Retry(after=11.5 * HOUR), Retry(after=11.75 * HOUR), Retry(reason="busy"))
        await Fleet(source, attempts=9).run(handler, seconds=23.9 * HOUR)
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
