"""Publishing to Amazon SNS: ten at a time, with an answer for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.aws.address import topic_address
from worker.aws.entries import answers, sent_attributes
from worker.aws.session import AwsClients
from worker.errors import EntryError
from worker.message import Attribute
from worker.source import MAX_BATCH

__all__ = ["Publication", "publish_batch", "topic_arn"]


@dataclass(frozen=True, slots=True)
class Publication:
    """One message for a topic."""

    body: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    group_id: str | None = None
    """FIFO topics want one; standard topics pass it on to fair queues."""
    deduplication_id: str | None = None
    """FIFO topics only."""


async def topic_arn(clients: AwsClients, address: str) -> str:
    """Return a topic's ARN from its name or ARN; a name means the caller's account. Raises `SourceError`, `UsageError`.

    Asks STS who the caller is, which needs no permission; whether the topic exists is seen at the first publish.
    """
    topic = topic_address(address, clients.region)
    if topic.account is not None:
        return address
    partition, account = await clients.account()
    return f"arn:{partition}:sns:{clients.region}:{account}:{topic.name}"


async def publish_batch(clients: AwsClients, arn: str, publications: Sequence[Publication]) -> list[EntryError | None]:
    """Publish at most ten messages (262,144 bytes together) to the topic `arn`; answers per entry, `None` is success.

    Raises `SourceError` when the call fails as a whole; nothing is known of its effect then.
    """
    if len(publications) > MAX_BATCH:
        raise ValueError(f"{len(publications)} publications, SNS takes at most {MAX_BATCH} at once")
    if not publications:
        return []
    entries = [_entry(position, publication) for position, publication in enumerate(publications)]
    answer = await clients.sns.call("publish_batch", TopicArn=arn, PublishBatchRequestEntries=entries)
    return answers(answer, len(entries))


def _entry(position: int, publication: Publication) -> dict[str, Any]:
    entry: dict[str, Any] = {"Id": str(position), "Message": publication.body}
    if publication.attributes:
        entry["MessageAttributes"] = sent_attributes(publication.attributes)
    if publication.group_id is not None:
        entry["MessageGroupId"] = publication.group_id
    if publication.deduplication_id is not None:
        entry["MessageDeduplicationId"] = publication.deduplication_id
    return entry
