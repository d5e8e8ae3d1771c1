"""What only the store in a file has: versions, folders, files that are none (I1)."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from worker.errors import ConfigError
from worker.idempotency import Begun, Mark, StoreError, open_store

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
