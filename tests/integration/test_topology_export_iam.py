"""`longshore topology export iam`: what each policy allows is enough for its role, and no more."""

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from support.command import Ended, longshore

from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.aws.sns import topic_arn
from worker.aws.sqs import SqsSource
from worker.errors import Fault, LongshoreError, SourceError
from worker.idempotency import Begun, Done, Mark, StoreError
from worker.idempotency.dynamodb import DynamoStore
from worker.local import EmbeddedAws
from worker.publisher import Publisher
from worker.settings import FleetSettings
from worker.source import Copy, ReceiveRequest
from worker.topology import apply, plan, wanted_by

pytestmark = pytest.mark.integration

NOW = ReceiveRequest(limit=1, wait_seconds=0, visibility_timeout_seconds=30)
FLEET = """\
service: {service}
aws: {{region: us-east-1}}
idempotency: {{store: "dynamodb://{marks}"}}
outbox: {{database: "sqlite:///orders.sqlite", topics: [{events}]}}
topics:
  {events}: {{tags: {{team: shop}}, kms_key: alias/aws/sns}}
  {payments}: {{external: true}}
queues:
  {orders}:
    handlers: worker.handlers.orders:processing
    tags: {{team: shop}}
    alarms: [{events}, {pages}]
    subscribe: [{{topic: {events}, filter: {{event_type: [order.created]}}}}, {{topic: {payments}, dead_letter: {undelivered}}}]
  {audit}:
    handlers: worker.handlers.orders:processing
    dead_letter: none
"""
STEMS = ("service", "events", "payments", "pages", "orders", "audit", "undelivered", "marks")
ROLES = ("consumer", "publisher", "scaler", "redriver", "provisioner")
Policy = dict[str, Any]
Work = Callable[["Scene", AwsClients], Awaitable[None]]

BY_NAME = {
    "sqs:ChangeMessageVisibility": ["sqs:ChangeMessageVisibilityBatch"],
    "sqs:DeleteMessage": ["sqs:DeleteMessageBatch"],
    "sns:Publish": ["sns:PublishBatch"],
}
"""The embedded AWS asks for batch calls by name; AWS asks for what one of the batch needs."""
OF_NOTHING = {
    "sns:GetSubscriptionAttributes",
    "sns:ListTagsForResource",
    "sns:SetSubscriptionAttributes",
    "sns:TagResource",
    "sqs:CancelMessageMoveTask",
    "sqs:ListMessageMoveTasks",
    "sqs:StartMessageMoveTask",
    "cloudwatch:DescribeAlarms",
}
"""The embedded AWS knows no resource of these; AWS asks for them on the topic, the queue or the alarm."""


@dataclass(frozen=True)
class Scene:
    """A fleet whose resources exist, and who may do everything with them."""

    aws: EmbeddedAws
    everything: AwsClients
    fleet: FleetSettings
    folder: Path
    names: dict[str, str]

    async def url(self, stem: str) -> str:
        return str((await self.everything.settle.call("get_queue_url", QueueName=self.names[stem]))["QueueUrl"])

    async def send(self, stem: str, body: str = "{}") -> None:
        await self.everything.settle.call("send_message", QueueUrl=await self.url(stem), MessageBody=body)

    def administrator(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.aws.endpoint_url,
            aws_access_key_id=self.aws.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.aws.environment["AWS_SECRET_ACCESS_KEY"],
        )

    def checked(self, user: AwsAccess) -> Ended:
        """Let `longshore config check` ask AWS as this user."""
        fixed = user.credentials
        assert fixed is not None
        key = {"AWS_ACCESS_KEY_ID": fixed.access_key_id, "AWS_SECRET_ACCESS_KEY": fixed.secret_access_key}
        return longshore("config", "check", "--live", folder=self.folder, environment={**self.aws.environment, **key})

    def exported(self, *options: str) -> Policy:
        ended = longshore("topology", "export", "iam", *options, folder=self.folder, environment=self.aws.environment)
        assert (ended.returncode, ended.stderr) == (0, "")
        document: Policy = json.loads(ended.stdout)
        return document


@pytest.fixture
async def scene(embedded_aws: EmbeddedAws, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Scene]:
    names = {stem: unique_name(stem) for stem in STEMS}
    names["dead"] = f"{names['orders']}-dlq"
    text = FLEET.format_map(names)
    (tmp_path / "fleet.yaml").write_text(text, encoding="utf-8")
    async with AwsClients(embedded_aws.access) as clients:
        for stem in ("payments", "pages"):
            await clients.sns.call("create_topic", Name=names[stem])
        fleet = FleetSettings.model_validate(yaml.safe_load(text))
        await apply(wanted_by(fleet), clients)
        store = DynamoStore(clients.dynamodb, names["marks"], retention_seconds=60)
        with suppress(StoreError):  # it is being made
            await store.open()
        await store.open()
        yield Scene(embedded_aws, clients, fleet, tmp_path, names)


def for_the_embedded_aws(policy: Policy) -> Policy:
    """Return the policy as the embedded AWS has to be told the same."""
    told = deepcopy(policy)
    for statement in list(told["Statement"]):
        asked = statement["Action"]
        free = [action for action in asked if action in OF_NOTHING]
        statement["Action"] = [
            *(action for action in asked if action not in free),
            *(name for action in asked for name in BY_NAME.get(action, ())),
        ]
        if free:
            told["Statement"].append({"Effect": "Allow", "Action": free, "Resource": "*"})
    told["Statement"] = [statement for statement in told["Statement"] if statement["Action"]]
    return told


def user_with(scene: Scene, name: str, policy: Policy) -> AwsAccess:
    """Make a user who may do what the policy says, and nothing else."""
    iam, user = scene.administrator("iam"), f"{scene.names['service']}-{name}"
    iam.create_user(UserName=user)
    if policy["Statement"]:  # IAM takes no policy that allows nothing
        document = json.dumps(for_the_embedded_aws(policy))
        iam.put_user_policy(UserName=user, PolicyName="exported", PolicyDocument=document)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    return AwsAccess("us-east-1", scene.aws.endpoint_url, credentials=credentials)


async def consume(scene: Scene, clients: AwsClients) -> None:
    """Do all that `longshore run` asks of SQS: look, receive, extend, settle, dead-letter."""
    for stem, dead in (("orders", "dead"), ("audit", None)):
        await scene.send(stem)
        source = SqsSource(clients, scene.names[stem], dead_letter=dead and scene.names[dead])
        await source.check_settlement()
        assert (await source.describe()).dead_letter_found == (dead is not None)
        await source.depth()
        (message,) = await source.receive(NOW)
        assert await source.extend([(message.receipt, 60)]) == [None]
        if dead is not None:
            await source.dead_letter(Copy(message.body))
        assert await source.delete([message.receipt]) == [None]
    await mark(scene.names["marks"], clients)
    await publish(scene, clients)  # as the relay of the outbox does


async def mark(table: str, clients: AwsClients) -> None:
    """Mark work in a table that is there: as in progress, for longer, as done; free a key, and find one taken."""
    store = DynamoStore(clients.dynamodb, table, retention_seconds=60)
    await store.open()
    done, freed = (Mark(uuid.uuid4().hex, "payload", "a", 30) for _ in range(2))
    assert await store.begin([done, freed]) == [Begun(), Begun()]
    await store.renew([done])
    await store.finish([done])
    await store.release([freed])
    assert await store.begin([done, freed]) == [Done(), Begun()]


async def publish(scene: Scene, clients: AwsClients) -> None:
    """Publish one event and many."""
    async with Publisher(scene.names["events"], aws=access_of(clients), patience_seconds=0) as publisher:
        await publisher.publish("order.created", {"id": 1})


async def measure(scene: Scene, clients: AwsClients) -> None:
    """Ask how deep each queue is, as KEDA does: by its URL."""
    for stem in ("orders", "audit"):
        answer = await clients.settle.call(
            "get_queue_attributes",
            QueueUrl=await scene.url(stem),
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        assert answer["Attributes"]


async def redrive(scene: Scene, clients: AwsClients) -> None:
    """Bring a dead letter of each kind back by hand, and let SQS try."""
    for stem in ("dead", "undelivered"):
        await scene.send(stem, "lost")
        dead = SqsSource(clients, scene.names[stem], dead_letter=scene.names["orders"])
        assert (await dead.depth()).visible == 1
        (message,) = await dead.receive(NOW)
        url = (await clients.settle.call("get_queue_url", QueueName=scene.names["orders"]))["QueueUrl"]
        await clients.settle.call("send_message", QueueUrl=url, MessageBody=message.body)
        assert await dead.delete([message.receipt]) == [None]
        await move(clients, (await scene.url(stem)).rpartition("/")[2])


async def move(clients: AwsClients, queue: str) -> None:
    """Start, see and stop a move; the embedded AWS cannot, but says so only to those who may."""
    _, account = await clients.account()
    arn = f"arn:aws:sqs:us-east-1:{account}:{queue}"
    moves: dict[str, dict[str, Any]] = {
        "start_message_move_task": {"SourceArn": arn},
        "list_message_move_tasks": {"SourceArn": arn},
        "cancel_message_move_task": {"TaskHandle": "none"},
    }
    for operation, parameters in moves.items():
        try:
            await clients.settle.call(operation, **parameters)
        except SourceError as error:
            if error.fault is Fault.DENIED:
                raise


async def provision(scene: Scene, clients: AwsClients) -> None:
    """Find nothing to do, mend what is changed, make what is missing."""
    topology = wanted_by(scene.fleet)
    assert (await plan(topology, clients)).is_empty
    await change_everything(scene)
    assert [change.kind for change in await apply(topology, clients)] == ["topic", "queue", "subscription"]
    await delete_everything(scene)
    assert len(await apply(topology, clients)) == len(
        ["topic", "queue", "two subscriptions", "", "three alarms", "", ""]
    )
    assert (await plan(topology, clients)).is_empty


async def change_everything(scene: Scene) -> None:
    """Change the topic and a queue, their tags too, and a subscription."""
    sqs, sns = scene.everything.settle, scene.everything.sns
    url, topic = await scene.url("orders"), await topic_arn(scene.everything, scene.names["events"])
    await sqs.call("set_queue_attributes", QueueUrl=url, Attributes={"VisibilityTimeout": "31"})
    await sqs.call("tag_queue", QueueUrl=url, Tags={"team": "other"})
    await sns.call("tag_resource", ResourceArn=topic, Tags=[{"Key": "team", "Value": "other"}])
    await sns.call("set_topic_attributes", TopicArn=topic, AttributeName="KmsMasterKeyId", AttributeValue="alias/x")
    for arn in await subscriptions(scene, "events"):
        raw: dict[str, Any] = {"AttributeName": "RawMessageDelivery", "AttributeValue": "true"}
        await sns.call("set_subscription_attributes", SubscriptionArn=arn, **raw)


async def delete_everything(scene: Scene) -> None:
    """Delete the topic, subscriptions, a queue and the alarms."""
    sqs, sns = scene.everything.settle, scene.everything.sns
    for arn in [*await subscriptions(scene, "events"), *await subscriptions(scene, "payments")]:
        await sns.call("unsubscribe", SubscriptionArn=arn)
    await sns.call("delete_topic", TopicArn=await topic_arn(scene.everything, scene.names["events"]))
    await sqs.call("delete_queue", QueueUrl=await scene.url("undelivered"))
    alarms = [alarm.name for alarm in wanted_by(scene.fleet).alarms]
    scene.administrator("cloudwatch").delete_alarms(AlarmNames=alarms)


async def subscriptions(scene: Scene, stem: str) -> list[str]:
    topic = await topic_arn(scene.everything, scene.names[stem])
    listed = await scene.everything.sns.call("list_subscriptions_by_topic", TopicArn=topic)
    return [each["SubscriptionArn"] for each in listed["Subscriptions"]]


WORK: dict[str, Work] = {
    "consumer": consume,
    "publisher": publish,
    "scaler": measure,
    "redriver": redrive,
    "provisioner": provision,
}


def access_of(clients: AwsClients) -> AwsAccess:
    return clients._access


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_can_do_its_work(scene: Scene, role: str) -> None:
    user = user_with(scene, role, scene.exported("--role", role))
    async with AwsClients(user) as clients:
        await WORK[role](scene, clients)


async def test_a_consumer_passes_the_check_of_its_permissions(scene: Scene) -> None:
    """And so does one that may use one queue only, in the deployment of that queue."""
    user = user_with(scene, "consumer", scene.exported("--role", "consumer"))
    ended = scene.checked(user)
    assert (ended.returncode, ended.stderr) == (0, "")
    less = user_with(scene, "auditor", scene.exported("--role", "consumer", "--queue", scene.names["audit"]))
    ended = scene.checked(less)
    assert ended.returncode == 2
    assert scene.names["orders"] in ended.stderr
    assert scene.names["audit"] not in ended.stderr


@pytest.mark.parametrize("role", ROLES)
async def test_nothing_that_a_role_may_do_can_be_left_out(scene: Scene, role: str) -> None:
    """Without any one action of its policy its work is denied; without any one queue or topic likewise."""
    not_needed = []
    fields = ["Action"] if role == "provisioner" else ["Action", "Resource"]  # it would take too long
    for number, (less, what) in enumerate(lessened(scene.exported("--role", role), fields)):
        async with AwsClients(user_with(scene, f"{role}-{number}", less)) as clients:
            if not await is_denied(WORK[role](scene, clients)):
                not_needed.append(what)
        await restore(scene)
    assert not_needed == []


async def is_denied(work: Awaitable[Any]) -> bool:
    try:
        await work
    except LongshoreError as error:
        cause = error.__cause__ if isinstance(error, StoreError) else error
        if getattr(cause, "fault", None) is not Fault.DENIED and "is denied" not in str(error):
            raise
        return True
    return False


async def restore(scene: Scene) -> None:
    await apply(wanted_by(scene.fleet), scene.everything)
    for stem in ("orders", "audit", "dead", "undelivered"):
        await scene.everything.settle.call("purge_queue", QueueUrl=await scene.url(stem))


def lessened(policy: Policy, fields: Sequence[str]) -> Iterator[tuple[Policy, str]]:
    """Yield the policy without each value of these fields, and what it is without."""
    for position, statement in enumerate(policy["Statement"]):
        for field in fields:
            for value in statement[field]:
                less = deepcopy(policy)
                less["Statement"][position][field].remove(value)
                if not less["Statement"][position][field]:
                    del less["Statement"][position]
                yield less, f"{value} of {statement['Sid']}"


MAY = {
    ("receive_message", "orders"): {"consumer"},
    ("receive_message", "dead"): {"redriver"},
    ("send_message", "orders"): {"redriver"},
    ("send_message", "dead"): {"consumer"},
    ("get_queue_attributes", "dead"): {"redriver", "provisioner"},
    ("set_queue_attributes", "orders"): {"provisioner"},
    ("purge_queue", "orders"): set(),
    ("delete_queue", "orders"): set(),
    ("publish", "events"): {"publisher", "consumer"},
    ("publish", "payments"): set(),
    ("delete_topic", "events"): set(),
}
"""Who may do what to what."""
MORE: dict[str, dict[str, Any]] = {
    "receive_message": {"WaitTimeSeconds": 0},
    "send_message": {"MessageBody": "{}"},
    "publish": {"Message": "{}"},
    "set_queue_attributes": {"Attributes": {"DelaySeconds": "0"}},
}


@pytest.mark.parametrize("role", ROLES)
async def test_what_is_not_a_roles_work_is_denied(scene: Scene, role: str) -> None:
    async with AwsClients(user_with(scene, role, scene.exported("--role", role))) as clients:
        denied = {
            (operation, stem) for operation, stem in MAY if await is_denied(attempt(scene, clients, operation, stem))
        }
    assert denied == {what for what, roles in MAY.items() if role not in roles}


async def attempt(scene: Scene, clients: AwsClients, operation: str, stem: str) -> None:
    more = MORE.get(operation, {})
    if stem in {"events", "payments"}:
        topic = await topic_arn(scene.everything, scene.names[stem])
        await clients.sns.call(operation, TopicArn=topic, **more)
    else:
        await clients.settle.call(operation, QueueUrl=await scene.url(stem), **more)
