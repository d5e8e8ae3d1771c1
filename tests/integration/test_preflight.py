"""`longshore config check --live` asks what handlers need besides their queues: a store, a Redis, buckets (X1, I1, P3, E7)."""

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as redis_client
from support.command import Ended, longshore
from support.limited_user import LimitedUser
from support.postgres import Postgres
from support.redis import Redis
from support.shop import Shop
from support.stores import STORES, Server, server_of, url_of

from worker.aws.s3 import S3Objects
from worker.aws.session import AwsClients
from worker.idempotency import StoreError, open_store
from worker.idempotency.postgresql import VERSIONED
from worker.idempotency.redis import VERSION_KEY
from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration

HANDLERS = """
from worker import Message, Router

router = Router()

@router.on("*"{options})
async def handle(message: Message[dict]) -> None: ...
"""


class Checked:
    """A shop with one queue, and what the command says of its fleet file."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def describe(self, options: str = "", **sections: Any) -> None:
        """Write the handlers and the fleet file; `queue` is a section of the shop's queue."""
        (self.shop.folder / "shop_handlers.py").write_text(HANDLERS.format(options=options))
        queue = {"handlers": "shop_handlers:router", **sections.pop("queue", {})}
        text = json.dumps({"service": "shop", "queues": {self.shop.queue: queue}, **sections})
        (self.shop.folder / "fleet.yaml").write_text(text)

    async def check(self) -> Ended:
        command = ("config", "check", "--live")
        ended = await asyncio.to_thread(longshore, *command, folder=self.shop.folder, environment=self.shop.environment)
        assert "Traceback" not in ended.stderr
        return ended

    async def problem(self) -> str:
        """Return the one sentence that the command fails with."""
        ended = await self.check()
        (sentence,) = ended.stderr.splitlines()
        assert ended.returncode == 2, ended
        assert sentence.startswith("longshore: ")
        return sentence

    async def answers(self) -> list[str]:
        """Return what it says when nothing is wrong."""
        ended = await self.check()
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.splitlines()


@pytest.fixture
async def checked(
    tmp_path: Path, aws_clients: AwsClients, unique_name: Callable[[str], str], embedded_aws: EmbeddedAws
) -> AsyncIterator[Checked]:
    shop = Shop(tmp_path, unique_name("shop"), aws_clients, embedded_aws)
    await shop.open()
    yield Checked(shop)
    await shop.demolish()


@pytest.fixture(params=STORES[1:])
def server(request: pytest.FixtureRequest) -> Server:
    return server_of(request.param, request)


@pytest.fixture
async def make_bucket(aws_clients: AwsClients, unique_name: Callable[[str], str]) -> AsyncIterator[Any]:
    objects = S3Objects(aws_clients, connections=2)

    async def make() -> str:
        name = unique_name("payloads")
        await objects._channel.call("create_bucket", Bucket=name)
        return name

    make.objects = objects  # type: ignore[attr-defined]
    yield make
    await objects.close()


async def test_a_store_is_looked_at_and_not_made(checked: Checked, server: Server, aws_clients: AwsClients) -> None:
    """Empty: a warning, twice; made: in order; of another version: refused (I1)."""
    url = await url_of(server)
    checked.shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = url
    checked.describe(', idempotency_key="n"')
    for _ in range(2):
        warning, _ = await checked.answers()
        assert "is empty: the first worker makes its table, which it must be allowed to" in warning
        assert "p@ss" not in warning
        assert "p%40ss" not in warning
    store = open_store(url, retention_seconds=60, dynamodb=aws_clients.dynamodb)
    with suppress(StoreError):  # DynamoDB takes a moment to make a table
        await store.open()
    await store.open()
    await store.close()
    answer, _ = await checked.answers()
    assert answer.startswith("the idempotency store ")
    assert answer.endswith(" is in order")
    await of_another_version(server, url, aws_clients)
    assert "but this release reads" in await checked.problem()


@pytest.mark.redis
async def test_a_redis_that_evicts_is_warned_of(checked: Checked) -> None:
    """What it forgets is run again, or counted anew (I1, P3)."""
    with Redis() as server:
        url = server.make_database()
        client = redis_client.Redis.from_url(url)
        await client.config_set("maxmemory-policy", "allkeys-lru")
        checked.shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = url
        limits = {"crm": {"concurrency": 3, "scope": "fleet", "store": url}}
        checked.describe(', idempotency_key="n"', queue={"limit": "crm"}, limits=limits)
        store = open_store(url, retention_seconds=60)
        await store.open()
        await store.close()
        said = "it has the maxmemory-policy allkeys-lru, and forgets keys when its memory is full: set noeviction"
        answers = [answer for answer in await checked.answers() if said in answer]
        await client.aclose()
    assert [answer.partition(" (")[0].partition(" redis:")[0] for answer in answers] == [
        "warning: the Redis of limit crm",
        "warning: the idempotency store",
    ]


async def test_a_table_that_never_forgets_is_warned_of(checked: Checked, aws_clients: AwsClients) -> None:
    """Made by hand, without its time to live: every answer is right, and it grows for ever (I1)."""
    table = f"marks-{checked.shop.queue}"
    await aws_clients.dynamodb.call(
        "create_table",
        TableName=table,
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    checked.shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = f"dynamodb://{table}"
    checked.describe(', idempotency_key="n"')
    warning, _ = await checked.answers()
    assert warning == (
        f"warning: the idempotency store dynamodb://{table}: it has no time to live on the attribute expires_at, "
        f"so that marks are never deleted: enable it"
    )
    ttl = {"Enabled": True, "AttributeName": "expires_at"}
    await aws_clients.dynamodb.call("update_time_to_live", TableName=table, TimeToLiveSpecification=ttl)
    answer, _ = await checked.answers()
    assert answer.endswith(" is in order")


async def of_another_version(server: Server, url: str, clients: AwsClients) -> None:
    """Let the store say that another release made it."""
    if isinstance(server, Postgres):
        connection = await server.connect(url.rpartition("/")[2])
        await connection.execute(VERSIONED.replace("1", "7"))
        await connection.close()
    elif isinstance(server, Redis):
        client = redis_client.Redis.from_url(url)
        await client.set(VERSION_KEY, 7)
        await client.aclose()
    elif isinstance(server, EmbeddedAws):
        item = {"key": {"S": "longshore:version"}, "version": {"N": "7"}}
        await clients.dynamodb.call("put_item", TableName=url.removeprefix("dynamodb://"), Item=item)
    else:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA user_version = 7")


def closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
async def test_a_store_that_does_not_answer_is_one_sentence(checked: Checked, kind: str) -> None:
    port = closed_port()
    checked.shop.environment["LONGSHORE_IDEMPOTENCY__STORE"] = f"{kind}://shop:secret@127.0.0.1:{port}/0"
    checked.describe(', idempotency_key="n"')
    sentence = await checked.problem()
    assert f"the idempotency store does not answer: {kind}://***@127.0.0.1:{port}/0" in sentence
    assert "look at idempotency.store" in sentence
    assert "secret" not in sentence


async def test_a_table_that_may_not_be_looked_at_is_one_sentence(checked: Checked, embedded_aws: EmbeddedAws) -> None:
    user = LimitedUser(checked.shop.queue, embedded_aws)
    user.may("sqs:*")
    checked.shop.environment |= {**user.environment, "LONGSHORE_IDEMPOTENCY__STORE": "dynamodb://marks"}
    checked.describe(', idempotency_key="n"')
    sentence = await checked.problem()
    assert "the idempotency store does not answer: the DynamoDB table marks: AccessDeniedException" in sentence


async def test_a_store_that_no_handler_needs_is_not_asked(checked: Checked) -> None:
    checked.describe(idempotency={"store": f"redis://127.0.0.1:{closed_port()}/0"})
    assert await checked.answers() == ["shop: 1 queue is in order"]


@pytest.mark.redis
async def test_the_redis_of_a_limit_is_asked_and_left_as_it_was(checked: Checked, redis: Redis) -> None:
    """Of a queue's limit and of a handler's, not of one that nobody keeps to; a process's own needs none (P3)."""
    url = redis.make_database()
    limits: dict[str, dict[str, object]] = {
        "crm": {"concurrency": 3, "scope": "fleet", "store": url},
        "mail": {"per_second": 5, "scope": "fleet", "store": url},
        "cpu": {"concurrency": 2},
        "unused": {"concurrency": 1, "scope": "fleet", "store": f"redis://127.0.0.1:{closed_port()}/0"},
    }
    checked.describe(', limit="mail"', queue={"limit": "crm"}, limits=limits)
    answers = await checked.answers()
    place = f"redis://***@127.0.0.1:{redis.port}/"
    assert [answer.partition(place)[0] for answer in answers if place in answer] == [
        "the Redis of limit crm (",
        "the Redis of limit mail (",
    ]
    client = redis_client.Redis.from_url(url)
    assert await client.keys() == []
    await client.aclose()
    limits["crm"]["store"] = f"redis://:secret@127.0.0.1:{closed_port()}/0"
    checked.describe(queue={"limit": "crm"}, limits=limits)
    sentence = await checked.problem()
    assert "the Redis of limit crm (redis://***@127.0.0.1" in sentence
    assert "look at limits.crm.store" in sentence
    assert "secret" not in sentence


def with_buckets(read: str, written: str | None = None) -> dict[str, Any]:
    topics = {} if written is None else {"reports": {"large_payloads": {"bucket": written}}}
    return {"queue": {"large_payloads": {"buckets": [read]}}, "topics": topics}


async def test_buckets_are_tried_and_left_empty(checked: Checked, make_bucket: Callable[[], Awaitable[str]]) -> None:
    read, written = await make_bucket(), await make_bucket()
    checked.describe(**with_buckets(read, written))
    assert await checked.answers() == [
        f"bucket {read} can be read",
        f"bucket {written} can be written to",
        "shop: 1 queue is in order",
    ]
    objects = make_bucket.objects  # type: ignore[attr-defined]
    assert "Contents" not in await objects._channel.call("list_objects_v2", Bucket=written)
    assert not (await objects._channel.call("list_multipart_uploads", Bucket=written)).get("Uploads")


async def test_a_bucket_that_is_not_there_is_named(checked: Checked) -> None:
    checked.describe(**with_buckets("nowhere-payloads"))
    assert "bucket nowhere-payloads does not exist (NoSuchBucket): make it" in await checked.problem()
    checked.describe(topics={"reports": {"large_payloads": {"bucket": "nowhere-payloads"}}})
    assert "bucket nowhere-payloads does not exist (NoSuchBucket): make it" in await checked.problem()


async def test_rights_on_buckets_are_told_apart(
    checked: Checked, make_bucket: Callable[[], Awaitable[str]], embedded_aws: EmbeddedAws
) -> None:
    """Who may not read cannot handle: a problem; a worker need not write: a warning (X1)."""
    bucket = await make_bucket()
    checked.describe(**with_buckets(bucket, bucket))
    user = LimitedUser(checked.shop.queue, embedded_aws)
    checked.shop.environment |= user.environment
    user.may("sqs:*", "s3:PutObject")
    assert f"bucket {bucket}: fetching large payloads is denied" in await checked.problem()
    user.may("sqs:*", "s3:GetObject", "s3:ListBucket")
    warning, answer, _ = await checked.answers()
    assert f"bucket {bucket}: storing large payloads is denied to these credentials" in warning
    assert answer == f"bucket {bucket} can be read"
