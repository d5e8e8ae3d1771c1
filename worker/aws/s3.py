"""`S3Objects`: large payloads in Amazon S3."""

from contextlib import suppress
from typing import Any, Final

from worker.aws.channel import Channel
from worker.aws.session import AwsClients
from worker.errors import Fault, SourceError
from worker.objects import TRANSFER_DEADLINE_SECONDS, S3Pointer

__all__ = ["S3Objects"]

_CHUNK_BYTES: Final = 262_144


class S3Objects:
    """`worker.objects.Objects` in S3, with connections of their own; whoever asks for it closes it.

    Fetching needs s3:GetObject, and s3:ListBucket, without which S3 says of an object that is not there that it is denied
    (docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
    """

    def __init__(self, clients: AwsClients, *, connections: int) -> None:
        self._channel: Channel = clients._channel("s3", connections)  # noqa: SLF001 - the same room, and it is optional

    async def fetch(self, pointer: S3Pointer, max_bytes: int) -> str:
        """Return the text of an object, of which no more than `max_bytes` are read."""

        async def read(answer: Any) -> bytes:
            chunks: list[bytes] = []
            left = max_bytes
            async with answer["Body"] as stream:
                if answer["ContentLength"] > max_bytes:
                    raise _too_large(max_bytes)
                while chunk := await stream.read(_CHUNK_BYTES):
                    if (left := left - len(chunk)) < 0:
                        raise _too_large(max_bytes)
                    chunks.append(chunk)
            return b"".join(chunks)

        body: bytes = await self._channel.call(
            "get_object", deadline=TRANSFER_DEADLINE_SECONDS, read=read, Bucket=pointer.bucket, Key=pointer.key
        )
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass  # the error holds the payload
        raise SourceError(Fault.INVALID, "NotText", "it is no text in UTF-8")

    async def put(self, pointer: S3Pointer, body: bytes) -> None:
        """Store a text."""
        await self._channel.call(
            "put_object", deadline=TRANSFER_DEADLINE_SECONDS, Bucket=pointer.bucket, Key=pointer.key, Body=body
        )

    async def try_put(self, pointer: S3Pointer) -> None:
        """Begin to store an object and give it up: S3 says whether it may be stored, and nothing is."""
        begun = await self._channel.call("create_multipart_upload", Bucket=pointer.bucket, Key=pointer.key)
        with suppress(SourceError):  # an upload without parts costs nothing
            await self._channel.call(
                "abort_multipart_upload", Bucket=pointer.bucket, Key=pointer.key, UploadId=begun["UploadId"]
            )

    async def delete(self, pointer: S3Pointer) -> None:
        """Delete an object."""
        await self._channel.call("delete_object", Bucket=pointer.bucket, Key=pointer.key)

    async def close(self) -> None:
        """Close the connections."""
        await self._channel.close()


def _too_large(max_bytes: int) -> SourceError:
    return SourceError(Fault.INVALID, "TooLarge", f"it is larger than the {max_bytes:,} bytes that the queue takes")
