"""What the batch calls of SQS and SNS have in common: attributes as they are sent, and an answer for each entry."""

from collections.abc import Mapping
from typing import Any

from worker.aws.faults import entry_error, reading_an_answer
from worker.errors import EntryError, Fault
from worker.message import Attribute

__all__ = ["answers", "sent_attributes"]


def answers(said: Mapping[str, Any], count: int) -> list[EntryError | None]:
    """Sort an answer by position (which is the entry's id); an entry that it does not mention has failed."""
    results: list[EntryError | None] = [
        EntryError(Fault.UNAVAILABLE, "NotAnswered", "the answer does not mention this entry") for _ in range(count)
    ]
    with reading_an_answer():
        for done in said.get("Successful", ()):
            results[int(done["Id"])] = None
        for failed in said.get("Failed", ()):
            results[int(failed["Id"])] = entry_error(failed)
    return results


def sent_attributes(attributes: Mapping[str, Attribute]) -> dict[str, dict[str, Any]]:
    """Write message attributes as SQS and SNS take them."""
    return {
        name: {
            "DataType": attribute.data_type,
            "BinaryValue" if isinstance(attribute.value, bytes) else "StringValue": attribute.value,
        }
        for name, attribute in attributes.items()
    }
