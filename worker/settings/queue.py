"""Settings of one queue: how it is received, run, retried, dead-lettered and fed."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from worker.settings.address import Address
from worker.settings.base import Settings, note, refusal
from worker.settings.payloads import LargePayloadSettings
from worker.settings.topic import MAX_TAGS, SubscriptionSettings, Tags, queue_address, topic_address

__all__ = [
    "BreakerSettings",
    "ConcurrencyRange",
    "DeadLetterSettings",
    "QueueDefaults",
    "QueueSettings",
    "RetrySettings",
]

MAX_LEASE_SECONDS = 43_140
"""SQS ends every lease 12 h after its receive; a minute is kept for settling."""
RECEIVES_BEHIND_ATTEMPTS = 7
"""How many receives SQS's own net leaves to drains, lapses and probes, which are no failed attempts."""


QUICKEST_CALL_SECONDS = 0.005
"""No slot receives, runs and settles more than two hundred messages a second."""
BREAKER_WINDOW_SECONDS = 60.0


class ConcurrencyRange(Settings):
    """Bounds between which the number of handler calls follows what their downstream takes: a little more while it is quick, a third less when calls fail or slow down."""

    min: int = Field(ge=1, le=1000)
    """Handler calls at once that are always allowed."""
    max: int = Field(ge=1, le=1000)
    """Handler calls at once that are never exceeded."""

    @model_validator(mode="after")
    def _min_is_below_max(self) -> Self:
        if self.min > self.max:
            raise refusal(f"is {self.min}, but must be at most max ({self.max})", "min", "max")
        return self


class BreakerSettings(Settings):
    """When a queue stops receiving because its handlers' downstream is down, and how it finds out that it is up again."""

    failure_ratio: float = Field(default=0.5, gt=0, le=1)
    """It opens when so many of the last `calls` handler calls failed for a passing reason: 0.5 of 20 are 10."""
    calls: int = Field(default=20, ge=2, le=1000)
    """How many of the last handler calls are looked at; several failures of one message count once."""
    window_seconds: float | None = Field(default=None, ge=1, le=86_400)
    """Calls that ended longer ago are forgotten; unset, a minute, or as long as that many calls take that run into their time limit."""
    pause_seconds: float = Field(default=5, ge=0.1, le=3600)
    """While it is open, one held message is tried again this often."""

    @property
    def failures(self) -> int:
        """Failures among the last `calls` that open it."""
        return max(1, math.ceil(self.failure_ratio * self.calls))


class RetrySettings(Settings):
    """How long a message waits after a failed attempt: doubled each time, with jitter, never under half of that."""

    base_seconds: int = Field(default=5, ge=1, le=MAX_LEASE_SECONDS)
    """Seconds before the second attempt."""
    max_seconds: int = Field(default=900, ge=1, le=MAX_LEASE_SECONDS)
    """Longest wait in seconds; also how often a message is tried again whose dead letter could not be sent."""

    @model_validator(mode="after")
    def _base_is_below_the_cap(self) -> Self:
        if self.base_seconds > self.max_seconds:
            raise refusal(
                f"is {self.base_seconds}, but must be at most max_seconds ({self.max_seconds})",
                "base_seconds",
                "max_seconds",
            )
        return self


class DeadLetterSettings(Settings):
    """Where messages go whose attempts are used up or that can never succeed."""

    queue: str = Field(
        default="", json_schema_extra=note(default="the queue's name and -dlq"), examples=["order-processing-dlq"]
    )
    """Name, ARN or URL of the dead-letter queue; of a FIFO queue it is FIFO too (`NAME-dlq.fifo`)."""
    max_receive_count: int = Field(
        default=10, ge=1, le=1000, json_schema_extra=note(default="attempts + 7"), examples=[10]
    )
    """Receives after which SQS itself moves a message (its RedrivePolicy): the net behind `attempts`, for crashes."""

    @property
    def name(self) -> str:
        """The bare name of the dead-letter queue."""
        return Address.of_queue(self.queue).name

    @field_validator("queue")
    @classmethod
    def _is_a_queue(cls, text: str) -> str:
        queue_address(text)
        return text


class QueueDefaults(Settings):
    """What may be set for one queue, and for all of them in `defaults`."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] | ConcurrencyRange = Field(default=10)
    """Handler calls that may run at once in this process; no more messages are received than there is room for. With `min` and `max` it adapts."""
    visibility_timeout_seconds: int = Field(
        default=30,
        ge=2,
        le=43_200,
        json_schema_extra=note(
            because="leases are extended at a third of it, and one missed beat must leave time for the next"
        ),
    )
    """Seconds for which SQS hides a message from others after each receive or beat: how soon the work of a crashed process is taken up."""
    wait_time_seconds: int = Field(
        default=20, ge=0, le=20, json_schema_extra=note(because="SQS waits no longer than 20")
    )
    """Seconds for which an empty queue keeps a receive waiting; 20 costs the fewest calls."""
    handler_timeout_seconds: float | None = Field(default=None, gt=0, le=MAX_LEASE_SECONDS)
    """Seconds after which a handler is cancelled, a failed attempt; unset, `max_lease_seconds` bounds it."""
    max_lease_seconds: int = Field(
        default=3600,
        ge=2,
        le=MAX_LEASE_SECONDS,
        json_schema_extra=note(because="SQS ends a lease 12 h after its receive"),
    )
    """Seconds for which one receive of a message may be held in all, however long its handler runs."""
    attempts: int = Field(default=3, ge=1, le=100)
    """Failed handler runs after which a message goes to the dead-letter queue."""
    retry: RetrySettings = RetrySettings()
    """The wait after a failed attempt."""
    breaker: BreakerSettings | Literal["none"] = BreakerSettings()
    """When receiving stops because the handlers' downstream is down; `none` goes on receiving, and failing."""
    unknown_event: Literal["retry", "dead_letter", "ack"] = "retry"
    """What becomes of an event type that no handler takes: `retry` leaves it to a newer release, then dead-letters it."""
    expired: Literal["ack", "dead_letter"] = "ack"
    """What becomes of an event whose `expires_at` has passed before its handler starts: it is deleted unrun and counted, or dead-lettered."""
    expires_at_key: str | None = Field(default=None, min_length=1, max_length=256, examples=["expires_at"])
    """Top-level key of JSON payloads that tells when an event without the attribute `expires_at` expires; unset, no payload is looked into."""
    envelope: Literal["auto", "sns", "raw"] = "auto"
    """How bodies are read: `sns` expects SNS's envelope, `raw` the bare payload, `auto` tells them apart by shape."""
    large_payloads: LargePayloadSettings = LargePayloadSettings()
    """Payloads that lie in S3."""
    retention_seconds: int = Field(
        default=1_209_600,
        ge=60,
        le=1_209_600,
        json_schema_extra=note(because="SQS keeps messages for 1 minute to 14 days"),
    )
    """Seconds for which SQS keeps a message before it deletes it silently; `topology apply` sets it on the queue."""
    kms_key: str | None = Field(default=None, min_length=1, examples=["alias/orders"])
    """Id, alias or ARN of the KMS key that encrypts the queue; unset, SQS encrypts with keys of its own."""
    tags: Tags = Field(default={}, max_length=MAX_TAGS)
    """Tags that `topology apply` puts on the queue and on its dead-letter queue."""
    alarms: tuple[str, ...] = Field(
        default=(), max_length=5, strict=False, examples=[["arn:aws:sns:us-east-1:123456789012:pages"]]
    )
    """Names or ARNs of SNS topics that the queue's alarms (depth, age, dead letters) notify; empty makes no alarms."""

    @property
    def max_concurrency(self) -> int:
        """Handler calls that may ever run at once in this process."""
        return self.concurrency if isinstance(self.concurrency, int) else self.concurrency.max

    @property
    def breaker_window_seconds(self) -> float:
        """How long the breaker remembers a call."""
        if self.breaker == "none":
            return 0.0
        timed_out = self.breaker.calls * (self.handler_timeout_seconds or 0) / self.max_concurrency
        return self.breaker.window_seconds or max(BREAKER_WINDOW_SECONDS, timed_out)

    @field_validator("alarms")
    @classmethod
    def _notify_topics(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            topic_address(topic)
        return topics


class QueueSettings(QueueDefaults):
    """One SQS queue; its key in `queues` is its name, ARN or URL."""

    name: SkipJsonSchema[str] = Field(exclude=True)
    """The bare name, read from the key."""
    address: SkipJsonSchema[str] = Field(default="", exclude=True)
    """The key as it was written: a name, an ARN or a URL."""
    handlers: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        json_schema_extra=note(allowed="module:attribute, such as worker.handlers.orders:processing"),
        examples=["worker.handlers.orders:processing"],
    )
    """The router that handles this queue, as `module:attribute`; the working directory is importable."""
    dead_letter: DeadLetterSettings | Literal["none"] = Field(
        default="none", json_schema_extra=note(default="a queue of its own"), examples=[{}]
    )
    """The dead-letter queue; `none`, said on purpose, means that a message is retried until its retention ends."""
    subscribe: tuple[SubscriptionSettings, ...] = Field(default=(), strict=False)
    """The topics whose events come into this queue."""
    limit: str | None = Field(
        default=None,
        pattern=r"^\S+$",
        json_schema_extra=note(allowed="the name of a limit in limits"),
        examples=["crm-api"],
    )
    """The limit, by its name in `limits`, that all messages of the queue keep to: a permit is taken before each is received."""
    consumer: str | None = Field(default=None, min_length=1, max_length=200, examples=["order-processing"])
    """Whose work idempotency keys mark; unset, the queue's name. Queues that share it do each key's work once among them."""
    external: bool = False
    """Whether the queue belongs to someone else: `topology` never creates or changes it."""

    @property
    def is_fifo(self) -> bool:
        """Whether it is a FIFO queue (its name ends in `.fifo`)."""
        return Address(self.name).is_fifo

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        """Read the bare name, and fill in the dead-letter queue that goes with it."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
            return raw
        name = queue_address(raw["name"]).name
        return {
            "address": raw["name"],
            **raw,
            "name": name,
            "dead_letter": _filled(
                raw.get("dead_letter", {}), Address(name), raw.get("attempts", cls.model_fields["attempts"].default)
            ),
        }

    @model_validator(mode="after")
    def _lease_covers_the_work(self) -> Self:
        cap = self.max_lease_seconds
        if cap < self.visibility_timeout_seconds:
            raise refusal(
                f"is {cap}, but must be at least visibility_timeout_seconds ({self.visibility_timeout_seconds}), "
                f"which is the first lease",
                "max_lease_seconds",
                "visibility_timeout_seconds",
            )
        if self.handler_timeout_seconds is not None and self.handler_timeout_seconds >= cap:
            raise refusal(
                f"is {self.handler_timeout_seconds:g}, but must be below max_lease_seconds ({cap}), "
                f"which would end the handler first",
                "handler_timeout_seconds",
                "max_lease_seconds",
            )
        return self

    @model_validator(mode="after")
    def _dead_letters_have_a_place(self) -> Self:
        if self.dead_letter == "none":
            return self
        name, count = self.dead_letter.name, self.dead_letter.max_receive_count
        queue = ("dead_letter", "queue")
        if name == self.name:
            raise refusal(f"is {name}, the queue itself, but must be another queue", queue)
        if Address(name).is_fifo != self.is_fifo:
            kind, other = ("FIFO", "standard") if self.is_fifo else ("standard", "FIFO")
            raise refusal(
                f"is {name}, a {other} queue, but SQS wants a {kind} one behind a {kind} queue: "
                f"write {Address(self.name).dead_letter_name}",
                queue,
            )
        if count < self.attempts:
            raise refusal(
                f"is {count}, but must be at least attempts ({self.attempts}), or SQS moves a message before its last "
                f"attempt: write {self.attempts + RECEIVES_BEHIND_ATTEMPTS} or leave it out",
                ("dead_letter", "max_receive_count"),
                "attempts",
            )
        return self

    @model_validator(mode="after")
    def _breaker_can_trip(self) -> Self:
        if self.breaker == "none":
            return self
        window, failures = self.breaker_window_seconds, self.breaker.failures
        possible = int(self.max_concurrency * window / QUICKEST_CALL_SECONDS)
        if possible < failures:
            raise refusal(
                f"is {window:g}, but in that time no more than {possible} handler calls can end at concurrency "
                f"{self.max_concurrency}, and {failures} failures open the breaker: lengthen it or lower calls",
                ("breaker", "window_seconds"),
                ("breaker", "calls"),
            )
        return self

    @model_validator(mode="after")
    def _envelope_fits_the_subscriptions(self) -> Self:
        for position, subscription in enumerate(self.subscribe):
            if self.envelope != "auto" and subscription.raw != (self.envelope == "raw"):
                raise refusal(
                    f"is {self.envelope}, but the subscription to {subscription.topic} says raw: "
                    f"{str(subscription.raw).lower()}: write envelope: auto",
                    "envelope",
                    ("subscribe", position, "raw"),
                )
        return self


def _filled(raw: Any, queue: Address, attempts: Any) -> Any:
    """Return the dead-letter settings with the name and count that follow from the queue."""
    if isinstance(raw, DeadLetterSettings):
        raw = raw.model_dump(exclude_unset=True)
    if not isinstance(raw, Mapping):
        return raw
    count = {"max_receive_count": attempts + RECEIVES_BEHIND_ATTEMPTS} if isinstance(attempts, int) else {}
    return {"queue": queue.dead_letter_name, **count, **raw}
