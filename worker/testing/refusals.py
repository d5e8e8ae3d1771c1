"""What SQS refuses, with its error codes; emulators accept much of it, production does not."""

import re
from collections.abc import Mapping, Sequence

from worker.errors import Fault, SourceError
from worker.message import Attribute
from worker.source import MAX_BATCH, Copy, ReceiveRequest

__all__ = ["check_batch", "check_delay", "check_message", "check_receive", "message_bytes"]

MAX_MESSAGE_BYTES = 1_048_576
MAX_ATTRIBUTES = 10
MAX_DELAY_SECONDS = 900
MAX_ID_CHARACTERS = 128
MAX_NAME_CHARACTERS = 256
MAX_VISIBILITY_SECONDS = 43_200
MAX_WAIT_SECONDS = 20

_REFUSED_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME = re.compile(r"(?!(?:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.IGNORECASE)
_DATA_TYPE = re.compile(r"(?:String|Number|Binary)(?:\.[^\s]+)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_ID = re.compile(r"[\x21-\x7e]+")


def check_receive(request: ReceiveRequest) -> None:
    """Raise `SourceError` for a receive that SQS refuses."""
    _within("MaxNumberOfMessages", request.limit, 1, MAX_BATCH)
    _within("WaitTimeSeconds", request.wait_seconds, 0, MAX_WAIT_SECONDS)
    _within("VisibilityTimeout", request.visibility_timeout_seconds, 0, MAX_VISIBILITY_SECONDS)


def check_batch(entries: Sequence[object]) -> None:
    """Raise `SourceError` for a batch call without entries or with more than ten."""
    if not entries:
        raise _refused("AWS.SimpleQueueService.EmptyBatchRequest", "there is no entry in the request")
    if len(entries) > MAX_BATCH:
        raise _refused(
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", f"{len(entries)} entries, the maximum is {MAX_BATCH}"
        )


def check_delay(delay_seconds: int, *, is_fifo: bool) -> None:
    """Raise `SourceError` for a delay over 900 s, or any delay of a single message of a FIFO queue."""
    _within("DelaySeconds", delay_seconds, 0, 0 if is_fifo else MAX_DELAY_SECONDS)


def check_message(message: Copy, *, is_fifo: bool) -> None:
    """Raise `SourceError` for a message that SQS refuses to take; the text never quotes the payload."""
    if not message.body:
        raise _refused("MissingParameter", "the request must contain the parameter MessageBody")
    if _REFUSED_CHARACTERS.search(message.body):
        raise _refused("InvalidMessageContents", "the body holds characters that SQS does not take")
    _check_attributes(message.attributes)
    _check_ordering(message, is_fifo=is_fifo)
    if (size := message_bytes(message)) > MAX_MESSAGE_BYTES:
        raise _invalid(f"body and attributes are {size} bytes, the maximum is {MAX_MESSAGE_BYTES}")


def message_bytes(message: Copy) -> int:
    """Return what counts towards SQS's limit: the body and each attribute's name, type and value."""
    return len(message.body.encode()) + sum(
        len(name.encode()) + len(attribute.data_type.encode()) + len(_bytes(attribute.value))
        for name, attribute in message.attributes.items()
    )


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _check_attributes(attributes: Mapping[str, Attribute]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise _invalid(f"number of message attributes is {len(attributes)}, the maximum is {MAX_ATTRIBUTES}")
    for name, (data_type, value) in attributes.items():
        if len(name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
            raise _invalid(f"message attribute name {name!r} is not allowed")
        if len(data_type) > MAX_NAME_CHARACTERS or not _DATA_TYPE.fullmatch(data_type):
            raise _invalid(f"message attribute {name!r} has the type {data_type!r}, not String, Number or Binary")
        if not value:
            raise _invalid(f"message attribute {name!r} must contain a non-empty value")
        if data_type.startswith("Binary") != isinstance(value, bytes):
            raise _invalid(f"message attribute {name!r} has a value that is no {data_type}")
        if isinstance(value, str) and _REFUSED_CHARACTERS.search(value):
            raise _refused("InvalidMessageContents", f"message attribute {name!r} holds characters SQS does not take")
        if data_type.startswith("Number") and not _NUMBER.fullmatch(str(value)):
            raise _invalid(f"message attribute {name!r} is no number")


def _check_ordering(message: Copy, *, is_fifo: bool) -> None:
    if is_fifo and message.group_id is None:
        raise _refused("MissingParameter", "the request must contain the parameter MessageGroupId")
    if is_fifo and message.deduplication_id is None:
        raise _invalid("a FIFO queue without ContentBasedDeduplication needs a MessageDeduplicationId")
    if not is_fifo and message.deduplication_id is not None:
        raise _invalid("MessageDeduplicationId is not valid for this queue type")
    for name, value in (("MessageGroupId", message.group_id), ("MessageDeduplicationId", message.deduplication_id)):
        if value is not None and (len(value) > MAX_ID_CHARACTERS or not _ID.fullmatch(value)):
            raise _invalid(f"{name} must be 1 to {MAX_ID_CHARACTERS} letters, digits and punctuation")


def _within(parameter: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise _invalid(f"value {value} for parameter {parameter} is invalid, it must be between {low} and {high}")


def _invalid(detail: str) -> SourceError:
    return _refused("InvalidParameterValue", detail)


def _refused(code: str, detail: str) -> SourceError:
    return SourceError(Fault.INVALID, code, detail)
