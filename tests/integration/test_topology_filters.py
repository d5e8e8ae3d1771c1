"""Filters as we read them and as an AWS does: the same policies, the same events, what arrives where.

`aws` is every AWS that the tests know, so one that is added there is compared here.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.filters import SCOPES, Event, events, policies
from support.localstack import LocalStack

from worker.aws.session import AwsClients
from worker.aws.sns import Publication, publish_batch, topic_arn
from worker.aws.sqs import SqsSource
from worker.errors import SourceError
from worker.local import EmbeddedAws
from worker.message import Attribute
from worker.source import ReceiveRequest
from worker.topology import Queue, Subscription, Topic, Topology, apply
from worker.topology.filters import MESSAGE_ATTRIBUTES, MESSAGE_BODY, matches

pytestmark = pytest.mark.integration

Policy = tuple[str, dict[str, Any]]
"""With its scope."""
EVENTS = 10


async def arrivals(
    aws: EmbeddedAws | LocalStack, filters: Sequence[Policy], published: Sequence[Event]
) -> list[set[int]]:
    """Subscribe a queue with each filter, publish, and return which events arrived in each."""
    run = uuid.uuid4().hex[:8]
    queues = [f"filtered-{run}-{number}" for number in range(len(filters))]
    topology = Topology(
        topics=[Topic(f"events-{run}")],
        queues=[Queue(queue) for queue in queues],
        subscriptions=[
            Subscription(f"events-{run}", queue, raw=True, filter_policy=policy, filter_scope=scope)
            for queue, (scope, policy) in zip(queues, filters, strict=True)
        ],
    )
    async with AwsClients(aws.access) as clients:
        await apply(topology, clients)
        publications = [Publication(event.body, event.attributes) for event in published]
        assert not any(await publish_batch(clients, await topic_arn(clients, f"events-{run}"), publications))
        found = await asyncio.gather(*(_numbers(aws, SqsSource(clients, queue)) for queue in queues))
        for queue in queues:  # what is left makes an emulator slow
            url = (await clients.settle.call("get_queue_url", QueueName=queue))["QueueUrl"]
            await clients.settle.call("delete_queue", QueueUrl=url)
    return found


async def _numbers(aws: EmbeddedAws | LocalStack, source: SqsSource) -> set[int]:
    wait_seconds = 1 if isinstance(aws, LocalStack) else 0  # it answers a publish before it has delivered
    request = ReceiveRequest(limit=10, wait_seconds=wait_seconds, visibility_timeout_seconds=60)
    numbers: set[int] = set()
    while messages := await source.receive(request):
        numbers |= {json.loads(message.body).get("number", 0) for message in messages}
    return numbers


def can_be_compared(aws: EmbeddedAws | LocalStack, scope: str, policy: Mapping[str, Any]) -> bool:
    """LocalStack refuses wildcards, which SNS has since 2025, and compares numbers in attributes as text: see below."""
    text = json.dumps(policy)
    return not (
        isinstance(aws, LocalStack) and ("wildcard" in text or (scope == MESSAGE_ATTRIBUTES and "size" in text))
    )


def scoped_policies(scope: str) -> st.SearchStrategy[Policy]:
    return st.tuples(st.just(scope), policies(scope))


@settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a smaller example is not worth minutes of calls
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sampled_from(SCOPES).flatmap(scoped_policies), min_size=20, max_size=20),
    st.tuples(*map(events, range(EVENTS))),
)
def test_what_arrives_is_what_we_say(
    aws: EmbeddedAws | LocalStack, filters: list[Policy], published: Sequence[Event]
) -> None:
    """Two hundred policies, ten events for each twenty of them."""
    filters = [each for each in filters if can_be_compared(aws, *each)]
    found = asyncio.run(arrivals(aws, filters, published))
    for (scope, policy), numbers in zip(filters, found, strict=True):
        said = {n for n, event in enumerate(published) if matches(policy, scope, event.attributes, event.body)}
        assert numbers == said, json.dumps(policy)


@dataclass(frozen=True)
class Differs:
    """One event that AWS delivers and an emulator does not, or the other way round; ours is AWS's answer."""

    name: str
    policy: Mapping[str, Any]
    aws_delivers: bool
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    body: Any = None
    """Looked at where there is one."""
    emulators: frozenset[type] = frozenset({EmbeddedAws})
    """Those that differ."""

    @property
    def scope(self) -> str:
        return MESSAGE_ATTRIBUTES if self.body is None else MESSAGE_BODY

    @property
    def event(self) -> Event:
        return Event({"other": Attribute("String", "x"), **self.attributes}, json.dumps(self.body or {}))


BOTH = frozenset({EmbeddedAws, LocalStack})
DIFFERENCES = [
    Differs("a number is read in text", {"a": [100]}, aws_delivers=False, attributes={"a": Attribute("String", "100")}),
    Differs(
        "text is read in a number",
        {"a": ["100"]},
        aws_delivers=False,
        attributes={"a": Attribute("Number", "100")},
        emulators=BOTH,
    ),
    Differs(
        "text is compared as a number",
        {"a": [{"numeric": [">", 0]}]},
        aws_delivers=False,
        attributes={"a": Attribute("String", "100")},
        emulators=BOTH,
    ),
    Differs(
        "a number is not read in a number",
        {"a": [100]},
        aws_delivers=True,
        attributes={"a": Attribute("Number", "100")},
        emulators=frozenset({LocalStack}),
    ),
    Differs("true is read in text", {"a": [True]}, aws_delivers=False, body={"a": "true"}),
    Differs("null is no value", {"a": [None]}, aws_delivers=True, body={"a": None}),
    Differs("null is absent", {"a": [{"exists": False}]}, aws_delivers=False, body={"a": None, "b": 1}),
    Differs("an empty array is there", {"a": [{"exists": False}]}, aws_delivers=True, body={"a": [], "b": 1}),
    Differs("an object exists", {"a": [{"exists": True}]}, aws_delivers=False, body={"a": {"b": 1}}),
    Differs("arrays of objects are not looked into", {"a": {"b": [1]}}, aws_delivers=True, body={"a": [{"b": 1}]}),
    Differs("arrays of arrays are not looked into", {"a": [1]}, aws_delivers=True, body={"a": [[1]]}),
    Differs(
        "nothing is absent where its parent is", {"a": {"b": [{"exists": False}]}}, aws_delivers=True, body={"c": 1}
    ),
    Differs(
        "a number does not lack a prefix",
        {"a": [{"anything-but": {"prefix": "x"}}]},
        aws_delivers=True,
        body={"a": 1},
        emulators=BOTH,
    ),
    Differs(
        "large numbers are compared",
        {"a": [{"numeric": [">", 0]}]},
        aws_delivers=False,
        body={"a": 5_000_000_000},
        emulators=BOTH,
    ),
]


@pytest.mark.parametrize("differs", DIFFERENCES, ids=lambda differs: differs.name)
def test_where_an_emulator_differs_ours_is_what_aws_documents(aws: EmbeddedAws | LocalStack, differs: Differs) -> None:
    """Asserts what the emulator does instead, so that a change there is noticed."""
    event = differs.event
    assert matches(differs.policy, differs.scope, event.attributes, event.body) is differs.aws_delivers
    try:
        (found,) = asyncio.run(arrivals(aws, [(differs.scope, dict(differs.policy))], [event]))
    except SourceError:  # an emulator that breaks over it delivers nothing
        found = set()
    assert bool(found) is (differs.aws_delivers is not (type(aws) in differs.emulators))
