"""Where the work of handlers with an `idempotency_key` is marked, and for how long it is known to be done."""

import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from worker.settings.base import Settings, found, masked, note, refusal
from worker.settings.urls import refuse_unreadable

__all__ = ["STORES", "IdempotencySettings"]

STORES: Final = {
    "sqlite": "sqlite:///var/idempotency.sqlite",
    "postgresql": "postgresql://user:password@host/database",
    "redis": "redis://:password@host:6379/0",
    "rediss": "rediss://:password@host:6379/0",
    "dynamodb": "dynamodb://table",
}
"""The kinds of stores, each with an example of its URL."""


_TABLE: Final = re.compile(r"dynamodb://[A-Za-z0-9_.-]{3,255}")


class IdempotencySettings(Settings):
    """Where the work of handlers with an `idempotency_key` is marked, so that a duplicate is not run again."""

    store: str | None = Field(
        default=None,
        json_schema_extra=note(allowed=" or ".join(STORES.values())),
        examples=["sqlite:///var/idempotency.sqlite"],
    )
    """URL of the store. One with a password belongs into the environment: `LONGSHORE_IDEMPOTENCY__STORE`."""
    retention_seconds: int = Field(default=1_209_600, ge=60, le=31_536_000)
    """Seconds for which it is known that work is done; at least as long as duplicates may come, which is the retention of queues and dead-letter queues."""

    @field_validator("store")
    @classmethod
    def _is_a_store(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            kind, is_whole = parts.scheme, bool(parts.netloc or len(parts.path) > 1)
        except ValueError:
            kind, is_whole = "", False
        if kind not in STORES or not is_whole or not url.startswith(f"{kind}://"):
            raise refusal(f"is {found(masked(url))}, but must be a URL such as {', '.join(STORES.values())}")
        if kind == "sqlite" and (parts.netloc or not parts.path.strip("/")):
            raise refusal(f"is {found(masked(url))}, but must be sqlite:/// and the path of a file: {STORES['sqlite']}")
        if kind == "dynamodb" and not _TABLE.fullmatch(url):
            raise refusal(f"is {found(url)}, but must be dynamodb:// and the name of a table: {STORES['dynamodb']}")
        if kind in {"postgresql", "redis", "rediss"}:
            refuse_unreadable(url)
        return url
