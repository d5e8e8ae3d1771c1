"""Whose outbox `longshore run` sends: which database, and which topics' events."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from worker.settings.address import Address
from worker.settings.base import Settings, found, masked, note, refusal
from worker.settings.topic import topic_address
from worker.settings.urls import refuse_unreadable

__all__ = ["OutboxSettings"]

DATABASES: Final = ("sqlite:///orders.sqlite", "postgresql://user:password@host/database")
MAX_TOPICS: Final = 100


def _a_topic(text: str) -> str:
    topic_address(text)
    return text


class OutboxSettings(Settings):
    """Events that handlers stored with `outbox.publish`: `longshore run` sends them beside its consumers."""

    database: str | None = Field(
        default=None,
        json_schema_extra=note(allowed=" or ".join(DATABASES)),
        examples=["sqlite:///orders.sqlite"],
    )
    """URL of the database that handlers store them in. One with a password belongs into the environment: `LONGSHORE_OUTBOX__DATABASE`."""
    topics: tuple[Annotated[str, AfterValidator(_a_topic)], ...] = Field(
        default=(), max_length=MAX_TOPICS, strict=False, examples=[["order-payments.fifo"]]
    )
    """Whose events are sent: topics that are declared in `topics`, named as `outbox.publish` was told, by name or ARN."""

    @field_validator("database")
    @classmethod
    def _is_a_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql://")):
            raise refusal(f"is {found(masked(url))}, but must be a URL such as {' or '.join(DATABASES)}")
        if url is not None and url.startswith("postgresql:"):
            refuse_unreadable(url)
        return url

    @model_validator(mode="after")
    def _says_what_and_from_where(self) -> Self:
        if self.topics and self.database is None:
            raise refusal(
                "is missing, but outbox.topics wants to be sent from one: name it, or set LONGSHORE_OUTBOX__DATABASE",
                "database",
                "topics",
            )
        if self.database is not None and not self.topics:
            raise refusal(
                "is missing, but outbox.database has events for topics: name them, or leave the database out",
                "topics",
                "database",
            )
        for position, text in enumerate(self.topics):
            if text in self.topics[:position]:
                raise refusal(f"is {text} a second time: name each topic once", ("topics", position))
        return self

    def names(self) -> list[str]:
        """Return the topics' bare names."""
        return [Address.of_topic(text).name for text in self.topics]
