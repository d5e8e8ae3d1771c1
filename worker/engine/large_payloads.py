"""Payloads that lie in S3: fetched before a message is validated, deleted after it, if at all."""

from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

import structlog

from worker.aws.envelope import Decoded, decode, with_payload
from worker.aws.pointers import SIZE_ATTRIBUTES, is_marked, pointer_in
from worker.engine.context import QueueContext
from worker.errors import Fault, InvalidPayloadError, PermanentError, SourceError, TransientError
from worker.message import Received
from worker.objects import S3Pointer

__all__ = ["LargePayloads"]

T = TypeVar("T")

NO_SUCH_KEY = "NoSuchKey"
"""S3's code for an object that is not there; without its bucket, all of them are not."""

log = structlog.get_logger("large-payloads")


class LargePayloads:
    """The large payloads of one queue's messages.

    1. Only the buckets of the settings are asked, and a handler that reads by itself is sent to no other where they name any.
    2. An object that is not there, too large or no text can never be handled: `PermanentError`.
    3. Whatever may pass, S3 down or denied, is a `TransientError`.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._settings = context.settings.large_payloads

    def pointer_of(self, decoded: Decoded) -> S3Pointer | None:
        """Return where the payload lies, `None` when it is in the message; raise `PermanentError` for a broken pointer."""
        pointer = pointer_in(decoded.body, decoded.attributes)
        if pointer is None and is_marked(decoded.attributes):
            name = next(name for name in SIZE_ATTRIBUTES if name in decoded.attributes)
            raise InvalidPayloadError(
                f"it has the attribute {name} of a large payload, but its body is no pointer to S3"
            )
        return pointer

    def allow(self, pointer: S3Pointer) -> None:
        """Raise `PermanentError` for a handler's own reading from a bucket that is not ours, where the settings name any."""
        if self._settings.buckets and pointer.bucket not in self._settings.buckets:
            raise _foreign(pointer)

    async def fetch(self, decoded: Decoded, pointer: S3Pointer) -> Decoded:
        """Return the message with its real payload instead of the pointer."""
        if pointer.bucket not in self._settings.buckets:
            raise _foreign(pointer)
        assert self._context.objects is not None  # noqa: S101  # given to every queue that names buckets
        try:
            text = await self._counted("get_object", self._context.objects.fetch(pointer, self._settings.max_bytes))
        except SourceError as error:
            raise _failure(pointer, error) from None
        attributes = {name: value for name, value in decoded.attributes.items() if name not in SIZE_ATTRIBUTES}
        return with_payload(replace(decoded, attributes=attributes), text)

    async def deleted(self, received: Received) -> None:
        """The message is deleted for good: delete its object, where the settings say so. Never raises `SourceError`."""
        objects = self._context.objects
        if not self._settings.delete or objects is None or "S3Pointer" not in received.body:
            return
        decoded = decode(received, self._context.settings.envelope)
        pointer = pointer_in(decoded.body, decoded.attributes)
        if pointer is None or pointer.bucket not in self._settings.buckets:
            return
        try:
            await self._counted("delete_object", objects.delete(pointer))
        except SourceError as error:
            log.warning("a large payload was not deleted: the bucket's lifecycle rule is left to do it", queue=self._context.queue, message_id=received.id, object=str(pointer), error=str(error))  # fmt: skip

    async def _counted(self, operation: str, call: Awaitable[T]) -> T:
        began = self._context.clock.now()
        fault: Fault | None = None
        try:
            return await call
        except SourceError as error:
            fault = error.fault
            raise
        finally:
            self._context.metrics.api_call(operation, self._context.clock.now() - began, fault)


def _foreign(pointer: S3Pointer) -> PermanentError:
    return PermanentError(
        f"its payload lies in the bucket {pointer.bucket[:200]!r}, which is not in large_payloads.buckets"
    )


def _failure(pointer: S3Pointer, error: SourceError) -> PermanentError | TransientError:
    where = str(pointer)[:300]
    match error.fault:
        case Fault.MISSING if error.code == NO_SUCH_KEY:
            return PermanentError(f"its payload is not in S3 ({where})")
        case Fault.MISSING:
            return TransientError(f"the bucket of its payload does not exist ({where}, {error.code})")
        case Fault.DENIED:
            return TransientError(
                f"S3 denies its payload ({where}, {error.code}): allow s3:GetObject on the bucket's objects and s3:ListBucket on it"
            )
        case Fault.INVALID:
            return PermanentError(f"its payload in S3 cannot be read ({where}, {error})")
        case _:
            return TransientError(f"its payload was not fetched from S3 ({where}, {error})")
