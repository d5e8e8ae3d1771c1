"""The crash journal: what ran when a process died, and what becomes of it in the next one (E4)."""

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.lease_work import Work, settled
from support.loop_time import now

from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.engine.journal import Journal, NoJournal, Suspects, suspects
from worker.fleet.state import State
from worker.message import Message
from worker.settings import FleetSettings
from worker.source import ReceiveRequest
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def message(number: int) -> str:
    return f"message-{number}"


def die(journal: Journal) -> None:
    """Let go of the journal as a killed process does: nothing is written, the lock is gone."""
    journal._memory.close()  # it holds the file open, too
    os.close(journal._file)


class TestFile:
    def test_a_dead_process_leaves_what_it_was_handling(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path, "orders", 4)
        slots = [journal.begin(message(number), 0) for number in range(3)]
        journal.end(slots[1])
        die(journal)
        found = suspects(tmp_path, "orders")
        assert len(found) == 2
        assert found.deaths("message-0") == 0  # its neighbour may have done it
        assert list(tmp_path.iterdir()) == []

    def test_what_ran_alone_is_known_as_such(self, tmp_path: Path) -> None:
        """The second time in a row it is a crasher; once may be somebody's `kill -9`."""
        journal = Journal(tmp_path, "orders", 4)
        journal.begin(message(7), 1)
        die(journal)
        found = suspects(tmp_path, "orders")
        assert (found.deaths("message-7"), found.is_crasher("message-7")) == (2, True)

    def test_a_living_process_is_suspected_of_nothing(self, tmp_path: Path) -> None:
        """Its file is locked; others on the same machine leave it alone."""
        journal = Journal(tmp_path, "orders", 4)
        journal.begin(message(0), 0)
        assert len(suspects(tmp_path, "orders")) == 0
        assert len(list(tmp_path.iterdir())) == 1
        journal.close()

    @pytest.mark.parametrize("other", ["orders-dlq", "orders.fifo", "my-orders"])
    def test_another_queue_is_nobodys_business(self, tmp_path: Path, other: str) -> None:
        journal = Journal(tmp_path, other, 4)
        journal.begin(message(0), 0)
        die(journal)
        assert len(suspects(tmp_path, "orders")) == 0

    def test_a_process_that_ends_by_itself_leaves_nothing(self, tmp_path: Path) -> None:
        """Not even if a handler runs on: it was asked to end, it did not crash."""
        journal = Journal(tmp_path, "orders", 4)
        slot = journal.begin(message(0), 0)
        journal.close()
        journal.end(slot)
        assert list(tmp_path.iterdir()) == []

    def test_more_than_there_is_room_for_is_not_listed(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path, "orders", 1)
        slots = [journal.begin(message(number), 0) for number in range(2)]
        for slot in slots:
            journal.end(slot)
        assert journal.begin(message(2), 0) == slots[0]
        journal.close()

    def test_its_room_is_there_from_the_start(self, tmp_path: Path) -> None:
        """No message may find the disk full: the memory would not be there, and the process would be ended."""
        journal = Journal(tmp_path, "orders", 1000)
        (file,) = tmp_path.iterdir()
        os.fsync(journal._file)
        assert file.stat().st_blocks * 512 >= file.stat().st_size > 0
        journal.close()

    def test_a_file_that_is_no_journal_is_taken_away(self, tmp_path: Path) -> None:
        (tmp_path / "orders.0123456789abcdef.journal").write_bytes(b"\xff" * 300)
        suspects(tmp_path, "orders")
        assert list(tmp_path.iterdir()) == []


class TestState:
    def test_a_folder_that_cannot_be_written_is_one_warning(self, tmp_path: Path, logs: list[EventDict]) -> None:
        (tmp_path / "file").write_text("")
        state = State(FleetSettings.model_validate({**FLEET, "state_dir": str(tmp_path / "file" / "below")}))
        journal, found = state.journal("orders", 10)
        assert (type(journal), len(found)) == (NoJournal, 0)
        assert [line["log_level"] for line in logs] == ["warning"]

    def test_a_folder_that_a_stranger_has_laid_out_is_not_believed(
        self, tmp_path: Path, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Anybody may write to the system's temporary folder, and a planted journal would dead-letter messages."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        real = os.getuid()
        planted = tmp_path / f"longshore-longshore-{real + 1}"
        planted.mkdir()
        monkeypatch.setattr(os, "getuid", lambda: real + 1)
        journal, _ = State(FleetSettings.model_validate(FLEET)).journal("orders", 10)
        assert type(journal) is NoJournal
        assert "belongs to user" in logs[0]["error"]

    def test_it_makes_its_folder(self, tmp_path: Path) -> None:
        state = State(FleetSettings.model_validate({**FLEET, "state_dir": str(tmp_path / "new")}))
        journal, _ = state.journal("orders", 10)
        assert len(list((tmp_path / "new").iterdir())) == 1
        journal.close()


FLEET = {"queues": {"orders": {"name": "orders", "handlers": "tests:router"}}}


async def send_received(source: MemorySource, body: str, times: int) -> str:
    """Send a message that was received so often already; it is the only one there."""
    message_id = source.send(body)
    for _ in range(times):
        (received,) = await source.receive(ReceiveRequest(1, 0, visibility_timeout_seconds=30))
        await source.extend([(received.receipt, 0)])
    return message_id


class TestCarefulStart:
    """Who starts after a crash handles one message at a time until the suspects were seen."""

    async def test_suspects_run_alone_and_go_free(self) -> None:
        source, work = MemorySource(visibility_timeout_seconds=30), Work(5)
        ids = [source.send(f"order {number}") for number in range(3)]
        fleet = Fleet(source, concurrency=10)
        fleet.suspects = Suspects(dict.fromkeys(ids, 0))
        await fleet.run(work)
        assert work.most_at_once == 1
        assert settled(fleet) == {"ack": 3}

    async def test_all_room_is_back_once_they_were_seen(self) -> None:
        source, work = MemorySource(visibility_timeout_seconds=30), Work(5)
        fleet = Fleet(source, concurrency=10)
        fleet.suspects = Suspects({source.send("suspect"): 0})
        async with fleet.running(work):
            await asyncio.sleep(6)
            for number in range(10):
                source.send(f"order {number}")
            await asyncio.sleep(3)
            assert work.running == 10

    async def test_it_is_over_after_one_visibility_timeout(self) -> None:
        """Somebody else may have had them."""
        source, work = MemorySource(visibility_timeout_seconds=30), Work(3600)
        fleet = Fleet(source, concurrency=10)
        fleet.suspects = Suspects({"somebody-elses": 2})
        for number in range(10):
            source.send(f"order {number}")
        async with fleet.running(work, drain_seconds=0):
            await asyncio.sleep(29)
            assert work.running == 1
            await asyncio.sleep(3)
            assert work.running == 10

    async def test_what_killed_a_process_alone_is_dead_lettered_unrun_at_its_last_attempt(self) -> None:
        source, work = MemorySource(visibility_timeout_seconds=30), Work(1)
        suspect = await send_received(source, "poison", 2)
        source.send("order")
        fleet = Fleet(source, attempts=3)
        fleet.suspects = Suspects({suspect: 2})
        await fleet.run(work)
        assert len(work.began) == 1
        (letter,) = source.dead_letters
        assert letter.body == "poison"
        assert json.loads(str(letter.attributes[REASON_ATTRIBUTE].value))["reason"] == "suspected crasher"

    @pytest.mark.parametrize(("deaths", "receive_count"), [(0, 2), (1, 2), (2, 1)])
    async def test_a_neighbour_or_one_with_attempts_left_is_run(self, deaths: int, receive_count: int) -> None:
        source, ran = MemorySource(visibility_timeout_seconds=30), []

        async def handler(message: Message[str]) -> None:
            ran.append((now(), message.receive_count))

        suspect = await send_received(source, "order", receive_count)
        fleet = Fleet(source, attempts=3)
        fleet.suspects = Suspects({suspect: deaths})
        await fleet.run(handler)
        assert [count for _, count in ran] == [receive_count + 1]
        assert source.dead_letters == []
