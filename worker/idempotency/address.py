"""From a URL to its store."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from worker.errors import ConfigError
from worker.idempotency.store import Store
from worker.settings.base import masked

if TYPE_CHECKING:
    from worker.aws.channel import Channel

__all__ = ["open_store"]


def open_store(url: str, *, retention_seconds: float, dynamodb: "Channel | None" = None) -> Store:
    """Return the store at a URL, not yet opened; raise `ConfigError` when its driver is not installed.

    `dynamodb` is the process's client of DynamoDB, which `dynamodb://TABLE` needs.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        from worker.idempotency.sqlite import SqliteStore

        return SqliteStore(Path(url.removeprefix("sqlite:///")), retention_seconds=retention_seconds)
    if scheme == "postgresql":
        from worker.idempotency.postgresql import PostgresStore

        return PostgresStore(url, retention_seconds=retention_seconds)
    if scheme in {"redis", "rediss"}:
        from worker.idempotency.redis import RedisStore

        return RedisStore(url, retention_seconds=retention_seconds)
    if scheme == "dynamodb" and dynamodb is not None:
        from worker.idempotency.dynamodb import SCHEME, DynamoStore

        return DynamoStore(dynamodb, url.removeprefix(SCHEME), retention_seconds=retention_seconds)
    raise ConfigError(
        f"idempotency.store is {masked(url)}, but must begin with sqlite:, postgresql:, redis: or dynamodb:"
    )
