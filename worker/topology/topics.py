"""Topics: what one is to have, and how far AWS is from it."""

import json
from collections.abc import Iterator, Mapping, Sequence

from worker.topology.attributes import differences, foreign, tag_differences
from worker.topology.change import Action, Call, Change, Difference
from worker.topology.desired import Topic
from worker.topology.existing import Found
from worker.topology.policies import read, statements_of

__all__ = ["topic_changes"]

_LEFT_ALONE = {
    "ArchivePolicy": "",
    "ContentBasedDeduplication": "false",
    "DeliveryPolicy": "",
    "DisplayName": "",
    "FifoThroughputScope": "Topic",
    "KmsMasterKeyId": "",
    "SignatureVersion": "1",
    "TracingConfig": "PassThrough",
}
"""What can be set on a topic and may not be the fleet file's business, with SNS's defaults."""
_SNS_OWN_STATEMENT = "__default_statement_ID"


def topic_changes(topic: Topic, found: Found | None) -> Iterator[Change]:
    """Yield what is to be done so that the topic is as wanted."""
    wanted = {} if topic.kms_key is None else {"KmsMasterKeyId": topic.kms_key}
    if found is None:
        yield _creation(topic, wanted)
    elif (found.attributes.get("FifoTopic") == "true") != _is_fifo(topic):
        yield _replacement(topic, found)
    else:
        yield from _correction(topic, wanted, found)
        yield from foreign("topic", topic.name, _left_alone(wanted, found))


def _is_fifo(topic: Topic) -> bool:
    return topic.name.endswith(".fifo")


def _creation(topic: Topic, wanted: Mapping[str, str]) -> Change:
    attributes = {**wanted, "FifoTopic": "true"} if _is_fifo(topic) else dict(wanted)
    parameters = {"Name": topic.name, "Attributes": attributes, "Tags": _tags(topic)}
    shown = [*differences(attributes, {}), *tag_differences(topic.tags, {})]
    call = Call("sns", "create_topic", parameters, f"topic {topic.name}")
    return Change(Action.CREATE, "topic", topic.name, shown, calls=[call])


def _replacement(topic: Topic, found: Found) -> Change:
    kind, other = ("FIFO", "standard") if _is_fifo(topic) else ("standard", "FIFO")
    difference = Difference("FifoTopic", found.attributes.get("FifoTopic", "false"), str(_is_fifo(topic)).lower())
    note = (
        f"the topic {topic.name} exists as a {other} topic, but must be a {kind} one, which SNS cannot change: "
        f"delete it, with its subscriptions, and apply again, or give the topic another name"
    )
    return Change(Action.REPLACE, "topic", topic.name, [difference], note)


def _correction(topic: Topic, wanted: Mapping[str, str], found: Found) -> Iterator[Change]:
    about, arn = f"topic {topic.name}", found.address
    differing, tags = differences(wanted, found.attributes), tag_differences(topic.tags, found.tags)
    calls = [
        Call(
            "sns",
            "set_topic_attributes",
            {"TopicArn": arn, "AttributeName": difference.name, "AttributeValue": difference.new},
            about,
        )
        for difference in differing
    ]
    if tags:
        calls.append(Call("sns", "tag_resource", {"ResourceArn": arn, "Tags": _tags(topic)}, about))
    if calls:
        yield Change(Action.CHANGE, "topic", topic.name, [*differing, *tags], calls=calls)


def _tags(topic: Topic) -> Sequence[Mapping[str, str]]:
    return [{"Key": key, "Value": value} for key, value in topic.tags.items()]


def _left_alone(wanted: Mapping[str, str], found: Found) -> Iterator[tuple[str, str]]:
    for name, default in _LEFT_ALONE.items():
        value = found.attributes.get(name)
        if name not in wanted and value and value != default:
            yield name, value
    for statement in statements_of(read(found.attributes.get("Policy"))):
        if statement.get("Sid") != _SNS_OWN_STATEMENT:
            yield f"Policy.{statement.get('Sid', 'without a Sid')}", json.dumps(statement)
