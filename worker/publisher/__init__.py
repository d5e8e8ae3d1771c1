"""What sends events to a topic: `Publisher`, ten events a call, each with an answer of its own."""

from worker.publisher.composer import AttributeValue, Outgoing
from worker.publisher.errors import PublishError, PublishManyError
from worker.publisher.large_payloads import LargePayloads
from worker.publisher.publisher import Publisher, Receipt
from worker.publisher.topic import Topic

__all__ = [
    "AttributeValue",
    "LargePayloads",
    "Outgoing",
    "PublishError",
    "PublishManyError",
    "Publisher",
    "Receipt",
    "Topic",
]
