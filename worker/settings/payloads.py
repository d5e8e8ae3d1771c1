"""Settings of payloads that are too large for a message: where consumers may fetch them, where publishers put them."""

from typing import Annotated

from pydantic import Field

from worker.settings.base import Settings, note

__all__ = ["LargePayloadSettings", "OffloadSettings"]

BUCKET = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
"""docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""
_ALLOWED = "the name alone of a bucket: 3 to 63 lower-case letters, digits, - and ."


class LargePayloadSettings(Settings):
    """Where the payloads of messages lie that only point to S3, as AWS's extended clients send them."""

    buckets: tuple[Annotated[str, Field(pattern=BUCKET, json_schema_extra=note(allowed=_ALLOWED))], ...] = Field(
        default=(), max_length=100, strict=False, examples=[["orders-payloads"]]
    )
    """Buckets that payloads are fetched from; a message that points elsewhere is dead-lettered, and nothing is fetched."""
    max_bytes: int = Field(default=10_485_760, ge=1024, le=2_147_483_647)
    """Bytes of the largest payload that is fetched; every message in hand may hold as many in memory."""
    delete: bool = False
    """Whether the object is deleted once its message is: only where no other queue gets the same event."""


class OffloadSettings(Settings):
    """Where the payloads of a topic's large events go; the message then only points to them."""

    bucket: str | None = Field(
        default=None, pattern=BUCKET, json_schema_extra=note(allowed=_ALLOWED), examples=["orders-payloads"]
    )
    """The S3 bucket that large payloads are put into; unset, events that are too large for a message are refused."""
    above_bytes: int = Field(default=262_144, ge=0, le=1_048_576)
    """Events that are larger than this, with their attributes, go through S3; 0 sends all of them there."""
    expire_days: int | None = Field(default=30, ge=1, le=3650)
    """Days after which the exported bucket deletes payloads: longer than a queue and its dead-letter queue keep a message; `null`, the bucket is not exported."""
