"""Settings of one limit: how many calls, or how many a second, something downstream takes."""

from typing import Literal, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from worker.settings.base import Settings, found, masked, note, refusal
from worker.settings.urls import refuse_unreadable

__all__ = ["LimitSettings"]

STORES = ("redis://", "rediss://")


class LimitSettings(Settings):
    """What something downstream takes; queues (`queues.NAME.limit`) and handlers (`limit="NAME"` in their decorator) keep to it."""

    concurrency: int | None = Field(
        default=None, ge=1, le=10_000, json_schema_extra=note(default="any number"), examples=[3]
    )
    """Messages of a queue, or calls of a handler, that may be in hand at once."""
    per_second: float | None = Field(default=None, ge=0.001, le=10_000)
    """Handler calls that may start in a second, evenly spaced; 0.5 is one in two seconds; unset, any number."""
    scope: Literal["process", "fleet"] = "process"
    """Whom the numbers count: `process` each worker process by itself, `fleet` all of them together, which needs a `store`."""
    store: str | None = Field(
        default=None,
        json_schema_extra=note(allowed="a URL of Redis, such as redis://localhost:6379/0"),
        examples=["redis://localhost:6379/0"],
    )
    """The Redis in which all processes count together."""
    fail: Literal["closed", "open"] = "closed"
    """While the store is gone: `closed` starts nothing new, `open` goes on with this process's share, and says so."""

    @field_validator("store")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(STORES):
            raise refusal(f"is {found(masked(url))}, but must be a URL of Redis such as redis://localhost:6379/0")
        if url is not None:
            refuse_unreadable(url)
        return url

    @field_serializer("store")
    def _without_password(self, url: str | None) -> str | None:
        """What is shown of the settings has no password in it."""
        return None if url is None else masked(url)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.concurrency is None and self.per_second is None:
            raise refusal("is missing, but a limit needs concurrency, per_second or both", "concurrency", "per_second")
        if self.scope == "fleet" and self.store is None:
            raise refusal(
                "is fleet, but counting over all processes needs a store: write store: redis://...", "scope", "store"
            )
        if self.scope == "process" and self.store is not None:
            raise refusal(
                "is given, but scope is process, which counts by itself: write scope: fleet, or leave it out",
                "store",
                "scope",
            )
        return self
