"""Opening limits: what is no URL of Redis is told without a word of it, as parts of a password may stand anywhere in it."""

import pytest

from worker import ConfigError, LongshoreError, UsageError
from worker.idempotency.postgresql import PostgresStore
from worker.idempotency.redis import RedisStore
from worker.limits.opened import ask_store

WRONG = {
    "bad port": "redis://me:s3cret@cache:s3cret/0",
    "bad scheme": "s3cret://me:s3cret@cache:6379/0",
    "bad db": "redis://me:s3cret@cache:6379/0?db=s3cret",
    "password with a hash": "redis://me:s3cret#word@cache:6379/0",
    "password with a slash": "redis://me:s3cret/word@cache:6379/0",
    "password with a bracket": "redis://me:s3cret[word@cache:6379/0",
}


@pytest.mark.parametrize("url", WRONG.values(), ids=WRONG)
async def test_no_part_of_a_wrong_url_is_quoted(url: str) -> None:
    with pytest.raises(UsageError, match=r"^limits\.crm\.store is no URL of Redis, .*: write redis://HOST") as told:
        await ask_store(url, "shop", "crm", 1)
    with pytest.raises(ConfigError, match=r"^idempotency\.store is no URL of Redis, .*: write redis://HOST") as refused:
        RedisStore(url, retention_seconds=60)
    for error in (told.value, refused.value):
        assert_tells_nothing(error)


async def test_nor_of_one_that_postgresql_cannot_read() -> None:
    """Settings do not read the query; the driver does, when it connects."""
    store = PostgresStore("postgresql://me:s3cret@127.0.0.1/shop?sslmode=s3cret", retention_seconds=60)
    with pytest.raises(
        ConfigError, match=r"^idempotency\.store is a URL that PostgreSQL's client cannot read"
    ) as refused:
        await store.is_made()
    await store.close()
    assert_tells_nothing(refused.value)


def assert_tells_nothing(error: LongshoreError) -> None:
    assert "s3cret" not in str(error)
    assert error.__suppress_context__  # nor does a traceback
