"""Settlement failures end no loop, but they stop intake until settlement works again."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.runs import Handled

from worker.engine.consumer import Consumer
from worker.errors import EntryError
from worker.outcome import Ack, DeadLetter, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HOUR = 3600


def _problem(consumer: Consumer) -> str | None:
    return consumer.context.vitals.problems.get("settlement")


class TestIntake:
    @pytest.mark.parametrize("operation", ["delete", "extend"])
    async def test_intake_stops_while_settlement_is_denied_and_resumes_when_it_is_allowed(self, operation: Any) -> None:
        """Work that cannot be settled is run once, and no other is begun: nothing is dead-lettered (S6)."""
        source = MemorySource()
        (denial,) = source.faults.deny(operation)
        for number in range(40):
            source.send(str(number))
        handler = Handled(seconds=15)
        async with Fleet(source, concurrency=4, attempts=2).running(handler) as consumer:
            await asyncio.sleep(HOUR)
            begun = len(set(handler.bodies))
            assert begun <= 8
            assert "AccessDenied" in (_problem(consumer) or "")
            denial.stop()
            await asyncio.sleep(300)
            assert _problem(consumer) is None
            assert source.is_empty
        assert sorted(set(handler.bodies), key=int) == [str(number) for number in range(40)]
        assert source.dead_letters == []

    async def test_done_work_is_run_once_however_long_deletes_are_denied(self) -> None:
        """Else every message would run `attempts` times and be dead-lettered though its work was done (S6, S2)."""
        source = MemorySource()
        (denial,) = source.faults.deny("delete")
        for number in range(20):
            source.send(str(number))
        handler = Handled()
        async with Fleet(source, concurrency=4, attempts=2).running(handler):
            await asyncio.sleep(5 * HOUR)
            assert len(handler.starts) == 4
            denial.stop()
            await asyncio.sleep(5 * HOUR)
            assert source.is_empty
        assert len(handler.starts) == 20
        assert source.dead_letters == []

    async def test_intake_goes_on_while_settlement_fails_for_less_than_ten_seconds(self) -> None:
        source = MemorySource()
        failing = source.faults.fail("delete", times=None)
        source.send("first")
        handler = Handled()
        async with Fleet(source).running(handler) as consumer:
            await asyncio.sleep(8)
            source.send("second")
            await asyncio.sleep(1)
            assert handler.bodies == ["first", "second"]
            assert _problem(consumer) is None
            failing.stop()

    async def test_intake_stops_when_no_settlement_succeeds_for_ten_seconds_while_due(self) -> None:
        """Passing faults stop intake too, once they have lasted (S6)."""
        source = MemorySource()
        rules = [source.faults.fail("delete", times=None), source.faults.fail("extend", times=None)]
        source.send("first")
        handler = Handled()
        async with Fleet(source, wait_time_seconds=1).running(handler) as consumer:
            await asyncio.sleep(20)
            source.send("second")
            await asyncio.sleep(5)
            assert handler.bodies == ["first"]
            assert "ServiceUnavailable" in (_problem(consumer) or "")
            for rule in rules:
                rule.stop()
            await asyncio.sleep(60)
            assert source.is_empty
            assert _problem(consumer) is None
        assert handler.bodies == ["first", "second"]

    async def test_copies_that_succeed_say_nothing_of_deletes(self) -> None:
        """A confirmed copy does not open intake while nothing can be deleted (S6)."""
        source = MemorySource()
        source.faults.fail("delete", times=None)
        source.faults.fail("extend", times=None)
        handler = Handled(*[DeadLetter("sold out")] * 3, seconds=0)
        for number in range(3):
            source.send(str(number), delay_seconds=number * 4)
        async with Fleet(source, wait_time_seconds=1).running(handler) as consumer:
            await asyncio.sleep(14)
            assert _problem(consumer) is not None
            source.faults.clear()

    async def test_a_source_that_raises_what_it_must_not_does_not_bring_the_consumer_down(self) -> None:
        """A settlement defect leaks no slot and ends no loop; when it is gone, everything is settled (S6)."""

        class Defective(MemorySource):
            is_defective = True

            async def delete(self, receipts: Sequence[str]) -> list[EntryError | None]:
                if self.is_defective:
                    raise ZeroDivisionError
                return await super().delete(receipts)

            async def extend(self, changes: Sequence[tuple[str, int]]) -> list[EntryError | None]:
                if self.is_defective:
                    raise ZeroDivisionError
                return await super().extend(changes)

        source = Defective()
        for number in range(6):
            source.send(str(number))
        handler = Handled(Ack(), Retry(), DeadLetter("sold out"), Ack())
        fleet = Fleet(source, concurrency=4)
        async with fleet.running(handler) as consumer:
            await asyncio.sleep(120)
            source.is_defective = False
            await asyncio.sleep(300)
            assert source.is_empty
            assert (consumer.in_hand, consumer.slots.taken) == (0, 0)
        assert fleet.fatal == []
        assert len(source.dead_letters) == 1
        assert set(handler.bodies) == {str(number) for number in range(6)}
