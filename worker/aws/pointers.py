"""The pointer that stands in a body instead of a large payload, as AWS's extended clients for SQS and SNS write it.

github.com/awslabs/amazon-sqs-python-extended-client-lib and github.com/awslabs/payload-offloading-java-lib-for-aws
"""

import json
from collections.abc import Mapping
from typing import Final

import orjson

from worker.message import Attribute
from worker.objects import S3Pointer

__all__ = ["SIZE_ATTRIBUTES", "is_marked", "pointer_body", "pointer_in", "size_attribute"]

SIZE_ATTRIBUTES: Final = ("ExtendedPayloadSize", "SQSLargePayloadSize")
"""The attribute that marks a pointer and tells the payload's size; the second is that of older clients."""
_CLASS: Final = "software.amazon.payloadoffloading.PayloadS3Pointer"
_CLASSES: Final = frozenset({_CLASS, "com.amazon.sqs.javamessaging.MessageS3Pointer"})


def is_marked(attributes: Mapping[str, object]) -> bool:
    """Whether a message says that its body is a pointer."""
    return any(name in attributes for name in SIZE_ATTRIBUTES)


def pointer_in(body: str, attributes: Mapping[str, object]) -> S3Pointer | None:
    """Return the pointer that a body is; `None` for any other, which costs no more than a look at its start.

    Both the attribute and the shape must be there: `["...PayloadS3Pointer", {"s3BucketName": ..., "s3Key": ...}]`.
    """
    if not body.startswith('["') or not is_marked(attributes):
        return None
    try:
        parsed = orjson.loads(body)
    except ValueError:
        return None
    match parsed:
        case [str(kind), {"s3BucketName": str(bucket), "s3Key": str(key)}] if kind in _CLASSES and bucket and key:
            return S3Pointer(bucket, key)
        case _:
            return None


def pointer_body(pointer: S3Pointer) -> str:
    """Return the body that stands for the object."""
    return json.dumps([_CLASS, {"s3BucketName": pointer.bucket, "s3Key": pointer.key}])


def size_attribute(size_bytes: int) -> dict[str, Attribute]:
    """Return the attribute that goes with a pointer."""
    return {SIZE_ATTRIBUTES[0]: Attribute("Number", str(size_bytes))}
