"""Objects in S3 that hold payloads too large for a message, and `Objects`: all that the engine knows of where they are."""

from typing import Final, NamedTuple, Protocol

__all__ = ["TRANSFER_DEADLINE_SECONDS", "Objects", "S3Pointer"]

TRANSFER_DEADLINE_SECONDS: Final = 30.0
"""For a whole object, from the wish to call until its last byte."""


class S3Pointer(NamedTuple):
    """Where the payload of a message lies. A handler annotated `Message[S3Pointer]` is given it instead of the payload."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class Objects(Protocol):
    """Payloads by their pointers.

    A call that fails raises `SourceError` and nothing else, and none takes longer than its own deadline.
    """

    async def fetch(self, pointer: S3Pointer, max_bytes: int) -> str:
        """Return the text; what is larger than `max_bytes`, or no text, is `Fault.INVALID`."""

    async def put(self, pointer: S3Pointer, body: bytes) -> None:
        """Store the text, in UTF-8."""

    async def delete(self, pointer: S3Pointer) -> None:
        """Delete the object; one that is not there is deleted."""

    async def close(self) -> None:
        """Let go of connections."""
