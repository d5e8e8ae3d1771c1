"""Topology on bad roads: throttled, denied, dark; and how long it takes on good ones."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiobotocore.session import get_session
from support.proxy import BadRoad

from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.errors import LongshoreError, UsageError
from worker.local import EmbeddedAws
from worker.topology import Alarm, Queue, Subscription, Topic, Topology, apply, calls, plan

pytestmark = pytest.mark.integration

Name = Callable[[str], str]
READS = (
    "sns:GetTopicAttributes",
    "sns:GetSubscriptionAttributes",
    "sns:ListSubscriptionsByTopic",
    "sns:ListTagsForResource",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ListQueueTags",
    "cloudwatch:DescribeAlarms",
)
WRITES = (
    "sns:CreateTopic",
    "sns:SetSubscriptionAttributes",
    "sns:SetTopicAttributes",
    "sns:Subscribe",
    "sns:TagResource",
    "sqs:CreateQueue",
    "sqs:SetQueueAttributes",
    "sqs:TagQueue",
    "cloudwatch:PutMetricAlarm",
)


def fleet(name: Name, queues: int) -> Topology:
    """One topic, queues with dead letters, filters and three alarms each."""
    topic, names = name("events"), [name(f"queue{number}") for number in range(queues)]
    return Topology(
        topics=[Topic(topic, tags={"a": "b"})],
        queues=[Queue(queue, dead_letter=f"{queue}-dlq", tags={"a": "b"}) for queue in names],
        subscriptions=[Subscription(topic, queue, filter_policy={"event_type": [queue]}) for queue in names],
        alarms=[
            Alarm(f"{queue}-{number}", queue, "ApproximateNumberOfMessagesVisible", number, topics=[topic])
            for queue in names
            for number in range(3)
        ],
    )


async def user_with(aws: EmbeddedAws, name: str, *actions: str) -> AwsAccess:
    """Make a user who may do these, and nothing else."""
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": actions, "Resource": "*"}}
    async with get_session().create_client(
        "iam",
        region_name="us-east-1",
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=aws.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws.environment["AWS_SECRET_ACCESS_KEY"],
    ) as iam:
        await iam.create_user(UserName=name)
        await iam.put_user_policy(UserName=name, PolicyName="some", PolicyDocument=json.dumps(policy))
        key = (await iam.create_access_key(UserName=name))["AccessKey"]
    credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    return AwsAccess(aws.access.region, aws.endpoint_url, credentials=credentials)


async def test_planning_and_applying_need_what_is_documented(embedded_aws: EmbeddedAws, unique_name: Name) -> None:
    topology = fleet(unique_name, 1)
    async with AwsClients(await user_with(embedded_aws, unique_name("reader"), *READS)) as reader:
        assert len((await plan(topology, reader)).changes) == 7
    async with AwsClients(await user_with(embedded_aws, unique_name("writer"), *READS, *WRITES)) as writer:
        assert len(await apply(topology, writer)) == 7
        assert await apply(topology, writer) == []


@pytest.mark.parametrize(
    ("missing", "about"),
    [
        ("sns:GetTopicAttributes", "topic events-"),
        ("sns:ListSubscriptionsByTopic", "topic events-"),
        ("sqs:GetQueueAttributes", "queue queue0-"),
        ("sqs:GetQueueUrl", "queue queue0-"),
        ("cloudwatch:DescribeAlarms", "alarm queue0-"),
    ],
)
async def test_a_denied_look_is_named(embedded_aws: EmbeddedAws, unique_name: Name, missing: str, about: str) -> None:
    """The call and the resource, in one sentence (X1)."""
    topology = fleet(unique_name, 1)
    async with AwsClients(embedded_aws.access) as clients:
        await apply(topology, clients)
    user = await user_with(embedded_aws, unique_name("user"), *(action for action in READS if action != missing))
    async with AwsClients(user) as clients:
        with pytest.raises(
            UsageError, match=f"^{missing} is denied on the {about}.* allow it to whoever runs this command$"
        ):
            await plan(topology, clients)


@pytest.mark.parametrize(
    "missing", ["sns:CreateTopic", "sqs:CreateQueue", "sns:Subscribe", "cloudwatch:PutMetricAlarm"]
)
async def test_a_denied_change_is_named_and_the_rest_is_done_later(
    embedded_aws: EmbeddedAws, unique_name: Name, missing: str
) -> None:
    """What was done stays, and the same command goes on from there (X1)."""
    topology = fleet(unique_name, 1)
    allowed = [action for action in (*READS, *WRITES) if action != missing]
    async with AwsClients(await user_with(embedded_aws, unique_name("user"), *allowed)) as clients:
        with pytest.raises(UsageError, match=f"^{missing} is denied on the .*; what was done before stays, and"):
            await apply(topology, clients)
    async with AwsClients(embedded_aws.access) as clients:
        await apply(topology, clients)
        assert (await plan(topology, clients)).is_empty


async def test_a_bad_road_is_walked_to_the_end(
    embedded_aws: EmbeddedAws, unique_name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Throttles and passing faults are tried again; after any failure the same command goes on."""
    monkeypatch.setattr(calls, "BASE_SECONDS", 0.01)
    topology = fleet(unique_name, 4)
    async with BadRoad(embedded_aws.endpoint_url, share=0.08, seed=7) as road:
        access = AwsAccess("us-east-1", road.url, credentials=embedded_aws.access.credentials)
        async with AwsClients(access) as clients:
            for _ in range(20):
                try:
                    await apply(topology, clients)
                    break
                except LongshoreError:
                    continue
    assert sum(road.troubles.values()) > 10
    async with AwsClients(embedded_aws.access) as clients:
        assert (await plan(topology, clients)).is_empty


async def test_an_aws_that_does_not_answer_is_no_mistake_of_the_user(unique_name: Name) -> None:
    """Exit 1, not 2."""
    nowhere = AwsAccess("us-east-1", "http://127.0.0.1:9", credentials=Credentials("a", "b"))
    async with AwsClients(nowhere) as clients:
        with pytest.raises(
            LongshoreError, match=r"sts:GetCallerIdentity failed on the credentials .*: try again"
        ) as told:
            await plan(fleet(unique_name, 1), clients)
    assert not isinstance(told.value, UsageError)


async def test_fifty_queues_are_planned_within_three_seconds(embedded_aws: EmbeddedAws, unique_name: Name) -> None:
    topology = fleet(unique_name, 50)
    async with AwsClients(embedded_aws.access) as clients:
        await apply(topology, clients)
        seconds = [await timed(plan, topology, clients) for _ in range(2)]
    assert min(seconds) < 3, seconds


async def timed(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    await asyncio.ensure_future(function(*arguments))
    return time.perf_counter() - started
