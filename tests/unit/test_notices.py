"""The notices' handlers, one event at a time, against a real database and a real SMS API."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from worker import Ack, DeadLetter, Outcome, Retry, Router, UsageError
from worker.demo.distributed_queue.sms_server import SmsServer
from worker.handlers import opening
from worker.handlers.notice_database import NoticeDatabase
from worker.handlers.notices import Notice, records, sms
from worker.handlers.sms_api import open_sms_api
from worker.testing import FakeLease, run

pytestmark = pytest.mark.real_time

NOTICE = Notice(notice_id="notice-1", to="+4915112345678", text="Your table is ready.")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[NoticeDatabase]:
    url = f"sqlite:///{tmp_path}/notices.sqlite"
    async with NoticeDatabase(url) as database:
        yield database


@pytest.fixture
async def server() -> AsyncIterator[SmsServer]:
    async with SmsServer(allowance=2, latency_seconds=0) as server:
        yield server


async def send(server: SmsServer, notice: Notice = NOTICE) -> Outcome:
    """Take one notice through the router that sends SMS."""
    async with open_sms_api(server.url) as api:
        return await run(sms, notice, state=api)


async def test_a_notice_that_comes_many_times_at_once_is_one_row(database: NoticeDatabase) -> None:
    """Also as another message, which a publisher that lost its answer has sent."""
    deliveries = (run(records, NOTICE, state=database, id=f"message-{number % 3}") for number in range(9))
    assert await asyncio.gather(*deliveries) == [Ack()] * 9
    assert await database.count() == (1, 1)


async def test_a_row_whose_lease_is_lost_is_not_written(database: NoticeDatabase) -> None:
    """Whoever has the message now writes it."""
    assert isinstance(await run(records, NOTICE, state=database, lease=FakeLease(is_lost=True)), Retry)
    assert await database.count() == (0, 0)


async def test_rows_wait_for_longshores_tables(database: NoticeDatabase) -> None:
    """Somebody has dropped the inbox: nothing is written, and the sentence says which command makes it."""
    await database.run(lambda connection: connection.execute(text("DROP TABLE longshore_inbox")))
    outcome = await run(records, NOTICE, state=database)
    assert isinstance(outcome, Retry)
    assert "longshore database migrate" in outcome.reason
    assert await database.count() == (0, 0)


async def test_a_new_database_that_another_worker_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that begin together: SQLite says "locked", and one of them makes the table."""
    monkeypatch.setattr(opening, "_SQLITE_PRAGMAS", ("busy_timeout=20",))
    with closing(sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        database = NoticeDatabase(f"sqlite:///{tmp_path}/new.sqlite")
        opened = asyncio.create_task(database.__aenter__())
        await asyncio.sleep(0.3)
        assert not opened.done()
        other.execute("ROLLBACK")
    async with await opened:
        assert await database.count() == (0, 0)


async def test_a_database_that_does_not_answer_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds its file, for longer than a transaction waits."""
    monkeypatch.setattr(opening, "_SQLITE_PRAGMAS", ("busy_timeout=50",))
    async with NoticeDatabase(f"sqlite:///{tmp_path}/held.sqlite") as database:
        with closing(sqlite3.connect(tmp_path / "held.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            outcome = await run(records, NOTICE, state=database)
        assert isinstance(outcome, Retry)
        assert outcome.reason == "the notices' database does not answer (OperationalError)"
        assert await database.count() == (0, 0)


@pytest.mark.parametrize("url", ["", "notices.sqlite", "mysql://host/notices", "postgresql://u:secret@/"])
def test_a_database_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"^the address of the notices' database") as caught:
        NoticeDatabase(url)
    assert "secret" not in str(caught.value)


async def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^the notices' database sqlite:///.*/none/x.sqlite cannot be opened \(Opera"):
        await NoticeDatabase(f"sqlite:///{tmp_path}/none/x.sqlite").__aenter__()


async def test_an_sms_is_sent_once_however_often_its_notice_comes(server: SmsServer) -> None:
    """The notice's id goes along as the key, and the API knows it again."""
    assert [await send(server), await send(server)] == [Ack(), Ack()]
    assert server.sent == {"notice-1": 1}


async def test_an_api_that_takes_no_more_calls_is_tried_again_when_it_says(server: SmsServer) -> None:
    """It allows two at once; the third is told to come back in a second, and its SMS is not sent."""
    server.latency_seconds = 0.3
    others = [
        asyncio.create_task(send(server, NOTICE.model_copy(update={"notice_id": f"other-{number}"})))
        for number in range(2)
    ]
    while server.most_in_flight < 2:  # noqa: ASYNC110 - what is waited for happens in another task
        await asyncio.sleep(0.01)
    outcome = await send(server)
    assert isinstance(outcome, Retry)
    assert (outcome.after, outcome.reason) == (1, "the SMS API takes no more calls for now (429)")
    assert await asyncio.gather(*others) == [Ack(), Ack()]
    assert (server.sent.total(), server.refused, server.most_in_flight) == (2, 1, 3)


@pytest.mark.parametrize(
    "notice",
    [
        {"notice_id": "a\r\nX-Evil: 1", "to": NOTICE.to, "text": "x"},
        {"notice_id": "1", "to": "015112345678", "text": "x"},
        {"notice_id": "1", "to": NOTICE.to, "text": ""},
        {"notice_id": "1", "to": NOTICE.to, "text": "\0"},
    ],
)
@pytest.mark.parametrize("router", [records, sms])
async def test_what_is_no_notice_is_dead_lettered(router: Router, notice: dict[str, str]) -> None:
    outcome = await run(router, notice, event_type="notice.requested", state=None)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason.startswith("the payload does not fit Notice")
