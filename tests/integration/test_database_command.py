"""`longshore database` and `longshore outbox`: what is printed, and what a mistake is told."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.command import failure, longshore, mistake
from support.inbox import execute, transaction
from support.postgres import Postgres

from worker import LongshoreError, Router, UsageError, outbox
from worker import migrate as migrate_for_users
from worker.fleet.lifespans import lifespan
from worker.sql.database import open_database
from worker.sql.tables import migrate, prune, statements

pytestmark = pytest.mark.integration


async def test_the_tables_are_made_once(orders_url: str, tmp_path: Path) -> None:
    for said in ("created the tables, now of version 1", "the tables are of version 1 already"):
        ended = longshore("database", "migrate", "--database", orders_url, folder=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert said in ended.stdout
        assert "p%40ss" not in ended.stdout  # no password is shown
    ended = longshore("database", "prune", "--database", orders_url, folder=tmp_path)
    assert "deleted 0 marks and 0 sent events of 14 days ago and before" in ended.stdout


async def test_a_schema_that_is_run_by_hand_is_the_same(tmp_path: Path) -> None:
    """For migrations of one's own, such as Alembic's."""
    url = f"sqlite:///{tmp_path / 'own.sqlite'}"
    (tmp_path / "own.sqlite").touch()
    ended = longshore("database", "schema", "--dialect", "sqlite", folder=tmp_path)
    for statement in ended.stdout.split(";\n"):
        await execute(url, statement)
    async with open_database(url) as database:
        assert await migrate(database) == (1, 1)
    assert "GENERATED ALWAYS AS IDENTITY" in longshore("database", "schema", folder=tmp_path).stdout


async def test_newer_and_missing_tables_are_one_sentence(orders_url: str, tmp_path: Path) -> None:
    if orders_url.startswith("sqlite"):
        assert "does not exist" in mistake(longshore("database", "prune", "--database", orders_url, folder=tmp_path))
        await execute(orders_url, "SELECT 1")  # makes its file
    said = mistake(longshore("database", "prune", "--database", orders_url, folder=tmp_path))
    assert said.endswith("has no tables of Longshore's, and version 1 is wanted: run `longshore database migrate`")
    longshore("database", "migrate", "--database", orders_url, folder=tmp_path)
    await execute(orders_url, "INSERT INTO longshore_schema (version) VALUES (2)")
    for command in ("prune", "migrate"):
        said = mistake(longshore("database", command, "--database", orders_url, folder=tmp_path))
        assert "has Longshore's tables of version 2, and this Longshore knows 1: upgrade it" in said
    options = ("--topic", "orders", "--once")
    said = mistake(longshore("outbox", "--database", orders_url, *options, folder=tmp_path))
    assert "upgrade it" in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://ann:secret@db/orders", "the address of the database is none that can be opened"),
        ("postgresql://127.0.0.1", "the address of the database is none that can be opened"),
        ("sqlite://orders.sqlite", "the address of the database is none that can be opened"),
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(tmp_path: Path, url: str, said: str) -> None:
    sentence = mistake(longshore("database", "migrate", "--database", url, folder=tmp_path))
    assert said in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://ann:secret@127.0.0.1:1/orders", "the database postgresql://127.0.0.1:1/orders cannot be opened"),
        ("sqlite:////nowhere/orders.sqlite", "cannot be opened (unable to open database file)"),
    ],
)
def test_a_database_that_is_away_is_a_failure_and_no_mistake(tmp_path: Path, url: str, said: str) -> None:
    """A job that is run again by its exit status tells the two apart."""
    sentence = failure(longshore("database", "migrate", "--database", url, folder=tmp_path))
    assert said in sentence
    assert "secret" not in sentence


async def test_a_lifespan_whose_database_is_away_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """It is no defect of the handlers, so the log has no traceback."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        await migrate_for_users("postgresql://ann:secret@127.0.0.1:1/orders")
        yield

    with pytest.raises(LongshoreError, match=r"^handlers `shop:router`: the database .* cannot be opened") as caught:
        async with lifespan(Router(lifespan=opened), "shop:router"):
            raise AssertionError("it was entered")
    assert not isinstance(caught.value, UsageError)
    assert "raised" not in capsys.readouterr().out


async def past_of(url: str, days: int) -> str:
    """Return the moment so many days ago as the database writes it."""
    ask = f"datetime('now', '-{days} days')" if url.startswith("sqlite") else f"now() - interval '{days} days'"
    return str((await execute(url, f"SELECT {ask}"))[0][0])


@pytest.mark.postgres
async def test_a_database_that_does_not_allow_it_is_one_sentence(postgres: Postgres, tmp_path: Path) -> None:
    """A role that may not create tables, as an application's often may not."""
    url = await postgres.make_database()
    await execute(url, "CREATE ROLE reader LOGIN PASSWORD 'reader'")
    limited = f"postgresql://reader:reader@{url.partition('@')[2].rpartition('@')[2]}"
    said = failure(longshore("database", "migrate", "--database", limited, folder=tmp_path))
    assert "did not do it (permission denied for schema public)" in said


async def test_old_marks_and_sent_events_are_deleted(orders_url: str) -> None:
    """Those of more than fourteen days; what waits stays, however old."""
    async with open_database(orders_url, create=True) as database:
        await migrate(database)
        for days in (13, 15):
            past = await past_of(orders_url, days)
            mark = f"INSERT INTO longshore_inbox VALUES ('q', 't', 'k{days}', 'm', 1, '{past}')"  # noqa: S608 - a test's
            await execute(orders_url, mark)
            for sent in (f"'{past}'", "NULL"):
                columns = "topic, event_type, body, attributes, stored_at, sent_at"
                event = f"INSERT INTO longshore_outbox ({columns}) VALUES ('t', 'e', 'b', '{{}}', '{past}', {sent})"  # noqa: S608 - a test's
                await execute(orders_url, event)
        assert await prune(database) == (1, 1)
    assert [tuple(row) for row in await execute(orders_url, "SELECT key FROM longshore_inbox")] == [("k13",)]
    assert [tuple(row) for row in await execute(orders_url, "SELECT count(*) FROM longshore_outbox")] == [(3,)]


def test_the_pages_columns_are_those_of_the_table() -> None:
    """The table of the inbox is documented."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "commit-effects-once.md").read_text()
    (table,) = (text for text in statements("sqlite") if text.startswith("CREATE TABLE longshore_inbox"))
    columns = re.findall(r"^    (\w+) (?:TEXT|BIGINT)", table, re.MULTILINE)
    assert len(columns) == 6
    assert all(f"`{column}`" in page for column in columns)


async def test_the_relay_sends_what_waits(
    orders_url: str,
    tmp_path: Path,
    make_outlet: Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]],
    aws_environment: dict[str, str],
) -> None:
    """`--once`, for cron and for a first look."""
    topic, arrived = await make_outlet("events")
    async with open_database(orders_url, create=True) as database:
        await migrate(database)
    async with transaction("sqlite3" if orders_url.startswith("sqlite") else "asyncpg", orders_url) as (connection, _):
        for number in range(25):
            await outbox.publish(connection, "order.paid", str(number), topic=topic)
    ended = longshore(
        *("outbox", "--database", orders_url, "--topic", topic, "--once"), folder=tmp_path, environment=aws_environment
    )
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "sent 25 events"), ended.stderr
    assert sorted(await arrived(), key=int) == [str(number) for number in range(25)]


async def test_the_relay_says_what_it_could_not_send(
    orders_url: str,
    tmp_path: Path,
    make_outlet: Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]],
    aws_environment: dict[str, str],
) -> None:
    """For cron, which looks at the exit status: what SNS did not take waits, and what it never takes is refused."""
    topic, arrived = await make_outlet("events")
    async with open_database(orders_url, create=True) as database:
        await migrate(database)
    async with transaction("sqlite3" if orders_url.startswith("sqlite") else "asyncpg", orders_url) as (connection, _):
        for name, text in ((topic, "1"), ("nosuch", "2"), ("nosuch", "3"), (topic, "x" * 300_000)):
            await outbox.publish(connection, "order.paid", text, topic=name, max_bytes=1_000_000)
    topics = ("--topic", topic, "--topic", "nosuch")
    ended = await asyncio.to_thread(
        longshore, "outbox", "--database", orders_url, *topics, "--once", folder=tmp_path, environment=aws_environment
    )
    assert ended.returncode == 1
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("longshore: not all events were sent: 2 of nosuch wait still: order.paid was not published")
    assert f"; 1 of {topic} were refused for good, and the column refusal of longshore_outbox says why" in said
    assert ended.stdout.splitlines()[-1] == "sent 1 events"
    assert await arrived() == ["1"]
