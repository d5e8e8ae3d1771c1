"""Settings of topics, and of the subscriptions that bring their events into queues."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from worker.settings.address import Address
from worker.settings.base import Settings, found, refusal
from worker.settings.payloads import OffloadSettings

__all__ = ["SubscriptionSettings", "Tags", "TopicSettings", "queue_address", "topic_address"]

Tags = Mapping[str, str]
MAX_TAGS = 50
"""What SQS and SNS take per resource."""


def queue_address(text: str) -> Address:
    """Read a queue's name, ARN or URL inside a validator."""
    try:
        return Address.of_queue(text)
    except ValueError as error:
        raise refusal(f"is {found(text)}, but must be {error}") from None


def topic_address(text: str) -> Address:
    """Read a topic's name or ARN inside a validator."""
    try:
        return Address.of_topic(text)
    except ValueError as error:
        raise refusal(f"is {found(text)}, but must be {error}") from None


class TopicSettings(Settings):
    """One SNS topic; its key in `topics` is its name or ARN."""

    name: SkipJsonSchema[str] = Field(exclude=True)
    """The bare name, read from the key."""
    address: SkipJsonSchema[str] = Field(default="", exclude=True)
    """The key as it was written: a name or an ARN."""
    external: bool = False
    """Whether the topic belongs to someone else: `topology` never creates or changes it."""
    kms_key: str | None = Field(default=None, min_length=1, examples=["alias/aws/sns"])
    """Id, alias or ARN of the KMS key that encrypts the topic; unset leaves encryption to SNS."""
    tags: Tags = Field(default={}, max_length=MAX_TAGS)
    """Tags that `topology apply` puts on the topic."""
    large_payloads: OffloadSettings = OffloadSettings()
    """Where events go that are too large for a message, when `longshore publish` or the relay of an outbox publishes them."""

    @property
    def is_fifo(self) -> bool:
        """Whether it is a FIFO topic (its name ends in `.fifo`)."""
        return Address(self.name).is_fifo

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
            return raw
        address = topic_address(raw["name"])
        return {"address": raw["name"], **raw, "name": address.name}


class SubscriptionSettings(Settings):
    """One subscription of a queue to a topic."""

    topic: str = Field(examples=["order-events"])
    """Name or ARN of a topic that is declared in `topics`."""
    raw: bool = False
    """Whether SNS delivers the payload without its envelope; attributes then travel as SQS attributes, at most ten."""
    filter: Mapping[str, JsonValue] | None = Field(
        default=None, min_length=1, examples=[{"event_type": ["order.created", "order.updated"]}]
    )
    """SNS filter policy: only matching events reach the queue; unset lets all of them in."""
    filter_scope: Literal["MessageAttributes", "MessageBody"] = "MessageAttributes"
    """What the filter looks at: the message attributes, or the JSON body."""
    dead_letter: str | None = Field(default=None, examples=["order-events-undelivered"])
    """Name, ARN or URL of the queue that takes what SNS could not deliver; unset, SNS drops it after its own retries."""

    @field_validator("topic")
    @classmethod
    def _topic_by_name(cls, text: str) -> str:
        return topic_address(text).name

    @field_validator("dead_letter")
    @classmethod
    def _dead_letter_is_a_queue(cls, text: str | None) -> str | None:
        if text is not None:
            queue_address(text)
        return text

    @model_validator(mode="after")
    def _filter_can_match(self) -> Self:
        if self.filter is None:
            if self.filter_scope != "MessageAttributes":
                raise refusal(
                    "is MessageBody, but has no effect without filter: add a filter or leave it out", "filter_scope"
                )
            return self
        for key, value in self.filter.items():
            _refuse_bare_values(value, ("filter", key), is_nested=self.filter_scope == "MessageBody")
        return self


def _refuse_bare_values(value: JsonValue, path: tuple[str, ...], *, is_nested: bool) -> None:
    """SNS takes lists of alternatives; only a filter on the body may nest mappings above them."""
    if isinstance(value, dict) and is_nested:
        for key, inner in value.items():
            _refuse_bare_values(inner, (*path, key), is_nested=True)
    elif not isinstance(value, list) or not value:
        raise refusal(
            f"is {found(value)}, but must be a list of at least one alternative, such as [order.created]", path
        )
