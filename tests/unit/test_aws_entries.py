"""Rules of `worker.aws.entries`."""

import pytest

from worker.aws.entries import answers, sent_attributes
from worker.errors import EntryError, Fault, SourceError
from worker.message import Attribute


def test_answers_come_back_by_position() -> None:
    """Entry ids are positions, so each entry finds its own result (S1)."""
    said = {"Successful": [{"Id": "2"}], "Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
    first, second, third = answers(said, 3)
    assert first == EntryError(Fault.UNAVAILABLE, "InternalError", "")
    assert second is not None
    assert (second.fault, second.code) == (Fault.UNAVAILABLE, "NotAnswered")
    assert third is None


@pytest.mark.parametrize("entry", [{"Id": "9"}, {"Id": "first"}, {}])
def test_an_answer_for_an_entry_that_was_not_sent_fails_the_call(entry: dict[str, str]) -> None:
    with pytest.raises(SourceError):
        answers({"Successful": [entry]}, 2)


def test_binary_attributes_are_sent_as_bytes_and_all_others_as_text() -> None:
    assert sent_attributes({"a": Attribute("Binary.png", b"\0"), "b": Attribute("Number", "1")}) == {
        "a": {"DataType": "Binary.png", "BinaryValue": b"\0"},
        "b": {"DataType": "Number", "StringValue": "1"},
    }
