"""Rules of `worker.aws.address`."""

import pytest

from worker.aws.address import queue_address, topic_address
from worker.errors import UsageError


@pytest.mark.parametrize(
    "text",
    ["orders", "arn:aws:sqs:us-east-1:123456789012:orders", "https://sqs.us-east-1.amazonaws.com/123456789012/orders"],
)
def test_a_queue_is_known_by_name_arn_or_url(text: str) -> None:
    assert queue_address(text, "us-east-1").name == "orders"


def test_an_address_in_another_region_is_refused() -> None:
    """The clients would ask the wrong region and never find it (X1)."""
    with pytest.raises(UsageError, match="eu-west-1, but this fleet runs in us-east-1"):
        queue_address("arn:aws:sqs:eu-west-1:123456789012:orders", "us-east-1")
    with pytest.raises(UsageError, match="eu-west-1, but this fleet runs in us-east-1"):
        topic_address("arn:aws:sns:eu-west-1:123456789012:events", "us-east-1")


def test_what_is_no_address_is_refused_with_the_text() -> None:
    with pytest.raises(UsageError, match="'no such name!' must be a queue's name"):
        queue_address("no such name!", "us-east-1")
    with pytest.raises(UsageError, match="'arn:aws:sqs:us-east-1:123456789012:q' must be "):
        topic_address("arn:aws:sqs:us-east-1:123456789012:q", "us-east-1")
