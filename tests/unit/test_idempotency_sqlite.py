"""What only the store in a file has: versions, folders, files that are none (I1)."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker.errors import ConfigError
from worker.idempotency import Begun, Mark, StoreError, open_store, sqlite

pytestmark = pytest.mark.real_time

MARK = Mark("orders:1", "p", "a", 30)


async def test_a_file_of_another_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "marks.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    store = open_store(f"sqlite:///{path}", retention_seconds=60)
    with pytest.raises(ConfigError, match="has version 7, but this release reads 1"):
        await store.open()
    await store.close()


@pytest.mark.parametrize("is_folder", [True, False])
async def test_what_is_no_database_is_a_store_that_does_not_answer(tmp_path: Path, *, is_folder: bool) -> None:
    path = tmp_path / "marks.sqlite"
    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"no database" * 100)
    store = open_store(f"sqlite:///{path}", retention_seconds=60)
    with pytest.raises(StoreError, match=r"marks\.sqlite cannot be used"):
        await store.open()
    with pytest.raises(StoreError):
        await store.begin([MARK])
    await store.close()


async def test_a_closed_store_does_not_answer(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/marks.sqlite", retention_seconds=60)
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.begin([MARK])


async def test_a_transaction_waits_for_that_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "marks.sqlite"
    store = open_store(f"sqlite:///{path}", retention_seconds=60)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = asyncio.create_task(store.begin([MARK]))
    await asyncio.sleep(0.05)
    assert not began.done()
    other.execute("COMMIT")
    other.close()
    assert await began == [Begun()]
    await store.close()


async def test_what_has_ended_is_forgotten_portion_by_portion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an index by time, which each mark would have to keep."""
    monkeypatch.setattr(sqlite, "PORTION", 10)
    store = open_store(f"sqlite:///{tmp_path}/marks.sqlite", retention_seconds=60)
    await store.begin([Mark(f"orders:{number}", "p", "a", -1 if number % 3 else 30) for number in range(100)])
    assert await store.prune() == 66
    assert await store.prune() == 0
    assert await store.begin([Mark("orders:3", "p", "b", 30)]) != [Begun()]
    await store.close()


async def test_a_prune_that_takes_long_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PORTION", 10)
    store = open_store(f"sqlite:///{tmp_path}/marks.sqlite", retention_seconds=60)
    await store.begin([Mark(f"orders:{number:02}", "p", "a", -1) for number in range(25)])
    moments = count()
    monkeypatch.setattr(sqlite, "PRUNE_SECONDS", 2.0)
    monkeypatch.setattr(sqlite, "time", SimpleNamespace(time=time.time, monotonic=lambda: next(moments)))
    assert [await store.prune(), await store.prune(), await store.prune()] == [10, 10, 5]
    await store.close()


async def test_calls_of_one_moment_share_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transact, shared = sqlite.SqliteStore._in_transaction, list[int]()

    def counted(store: sqlite.SqliteStore, works: Sequence[Callable[[], object]]) -> Sequence[object]:
        shared.append(len(works))
        return transact(store, works)

    monkeypatch.setattr(sqlite.SqliteStore, "_in_transaction", counted)
    store = open_store(f"sqlite:///{tmp_path}/marks.sqlite", retention_seconds=60)
    await store.begin([MARK])
    calls = [store.finish([MARK]), store.begin([MARK._replace(key="orders:2")]), store.release([MARK])]
    assert await asyncio.gather(*calls) == [None, [Begun()], None]
    assert shared == [1, 3]
    await store.close()
