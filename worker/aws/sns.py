"""Publishing to Amazon SNS: ten at a time, with an answer for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiobotocore.session import AioSession
from yarl import URL

from worker.aws.address import topic_address
from worker.aws.entries import answers, sent_attributes
from worker.aws.faults import reading_an_answer
from worker.aws.session import AwsClients
from worker.errors import EntryError
from worker.message import Attribute
from worker.source import MAX_BATCH

__all__ = ["Publication", "SnsClients", "publish_batch", "publish_identified", "topic_arn"]


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
    """Publish as `publish_identified` does; answers per entry, `None` is success."""
    results = await publish_identified(clients, arn, publications)
    return [None if isinstance(result, str) else result for result in results]


async def publish_identified(
    clients: AwsClients, arn: str, publications: Sequence[Publication]
) -> list[str | EntryError]:
    """Publish at most ten messages to the topic `arn`, together no larger than it allows; SNS's message id per entry.

    Raises `SourceError` when the call fails as a whole; nothing is known of its effect then.
    """
    if len(publications) > MAX_BATCH:
        raise ValueError(f"{len(publications)} publications, SNS takes at most {MAX_BATCH} at once")
    if not publications:
        return []
    entries = [_entry(position, publication) for position, publication in enumerate(publications)]
    answer = await clients.sns.call("publish_batch", TopicArn=arn, PublishBatchRequestEntries=entries)
    errors = answers(answer, len(entries))
    with reading_an_answer():
        ids = {int(done["Id"]): str(done["MessageId"]) for done in answer.get("Successful", ())}
        return [ids[position] if error is None else error for position, error in enumerate(errors)]


class SnsClients(AwsClients):
    """The clients of a program that publishes: it needs no settings, and its calls to SNS cost half of botocore's."""

    def _new_session(self, old: AioSession | None) -> AioSession:
        session = super()._new_session(old)
        session.session_var_map["region"] = ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)
        session.register("before-call.sns", _encode_once)
        return session


def _encode_once(*, params: dict[str, Any], **_: Any) -> None:
    """Write the form of a request: botocore does it character by character, and twice, to sign it and to send it."""
    if isinstance(params["body"], dict):
        params["body"] = URL.build(query=params["body"]).raw_query_string.encode()


def _entry(position: int, publication: Publication) -> dict[str, Any]:
    entry: dict[str, Any] = {"Id": str(position), "Message": publication.body}
    if publication.attributes:
        entry["MessageAttributes"] = sent_attributes(publication.attributes)
    if publication.group_id is not None:
        entry["MessageGroupId"] = publication.group_id
    if publication.deduplication_id is not None:
        entry["MessageDeduplicationId"] = publication.deduplication_id
    return entry
