"""What tests of all kinds share: an AWS, and queues of their own for each test; the orders' databases.

A test that asks for `aws`, or for what is made on it, runs on the embedded AWS, and on LocalStack as a strict test;
one that asks for `embedded_aws` too, because permissions are checked there, runs there only.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from support.differs import LOCALSTACK, MINISTACK, Differs
from support.localstack import LocalStack
from support.postgres import Postgres
from support.redis import Redis

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.local import EmbeddedAws
from worker.source import ReceiveRequest
from worker.topology import Queue, Subscription, Topic, Topology, apply

_ASKED_FOR = {
    "strict": "needs LocalStack, which is large and not installed by `make setup`",
    "postgres": "needs PostgreSQL, which comes from the system's packages (apt-get install postgresql)",
    "redis": "needs Redis, which comes from the system's packages (apt-get install redis-server)",
    "export": "needs cfn-lint and python-hcl2, which are large and not installed by `make setup`",
    "extended_client": "needs amazon-sqs-extended-client, which only a comparison needs",
    "terraform": "needs Terraform and its provider hashicorp/aws, which only some machines have or can get",
    "helm": "needs Helm and the schemas of Kubernetes, which `make helm-test` fetches",
    "compose": "needs a Docker engine, or root and Debian's packages to start one, and gigabytes for images",
    "wheel": "needs a package index, from which it installs the wheel into two environments of its own",
}
"""Marks of tests that run only if -m names them, and why; what they need is started by the tests."""


def pytest_configure(config: pytest.Config) -> None:
    for mark, reason in _ASKED_FOR.items():
        config.addinivalue_line("markers", f"{mark}: {reason}; runs only if -m names it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that are at home elsewhere, and those with a mark that is to be asked for and was not."""
    items[:] = [item for item in items if not _is_at_home_elsewhere(item)]
    unasked = [mark for mark in _ASKED_FOR if mark not in config.option.markexpr]
    left_out = {item for item in items if any(item.get_closest_marker(mark) for mark in unasked)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_at_home_elsewhere(item: pytest.Item) -> bool:
    """Say whether a test asks for the embedded AWS by name, and this is its run on LocalStack."""
    callspec = getattr(item, "callspec", None)
    is_on_localstack = callspec is not None and callspec.params.get("aws") == "strict_aws"
    return is_on_localstack and "embedded_aws" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def embedded_aws() -> Iterator[EmbeddedAws]:
    """An AWS in a process of its own that checks signatures and policies; started once, on first use."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        aws = runner.run(EmbeddedAws().__aenter__())
        try:
            yield aws
        finally:
            runner.run(aws.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def strict_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """LocalStack: stricter about SQS, heedless of policies; started once, on first use."""
    with LocalStack(tmp_path_factory.mktemp("localstack")) as aws:
        yield aws


@pytest.fixture(scope="session", params=["embedded_aws", pytest.param("strict_aws", marks=pytest.mark.strict)])
def aws(request: pytest.FixtureRequest) -> EmbeddedAws | LocalStack:
    """Each AWS that there is, one after the other."""
    aws: EmbeddedAws | LocalStack = request.getfixturevalue(request.param)
    return aws


@pytest.fixture
def differs(aws: EmbeddedAws | LocalStack) -> Differs:
    """Where `aws` is known not to be AWS."""
    return LOCALSTACK if isinstance(aws, LocalStack) else MINISTACK


@pytest.fixture
async def aws_clients(aws: EmbeddedAws | LocalStack) -> AsyncIterator[AwsClients]:
    """Clients that may do everything there."""
    async with AwsClients(aws.access) as clients:
        yield clients


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL to make databases on; started once, on first use."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis to make databases on; started once, on first use."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(redis: Redis) -> Redis:
    """The Redis to count in."""
    return redis


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def orders_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty orders' database of each kind, as `ORDERS_DATABASE` has it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/orders.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return await server.make_database()


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that makes names no other test uses: `unique_name("orders") == "orders-3f2a9c1d"`."""
    digits = uuid.uuid5(uuid.NAMESPACE_OID, request.node.nodeid + uuid.uuid4().hex).hex[:8]

    def name(stem: str) -> str:
        bare, dot, suffix = stem.partition(".")
        return f"{bare}-{digits}{dot}{suffix}"

    return name


@pytest.fixture
async def make_queue(
    aws_clients: AwsClients, unique_name: Callable[[str], str]
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Return a function that makes a queue and returns its name; the queues are deleted at the end of the test.

    `await make_queue("orders.fifo", VisibilityTimeout="5")`: a stem and SQS's queue attributes.
    """
    urls: list[str] = []

    async def make(stem: str = "orders", **attributes: str) -> str:
        name = unique_name(stem)
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        answer = await aws_clients.settle.call("create_queue", QueueName=name, Attributes=attributes)
        urls.append(answer["QueueUrl"])
        return name

    yield make
    for url in urls:
        await aws_clients.settle.call("delete_queue", QueueUrl=url)


@pytest.fixture
def aws_environment(embedded_aws: EmbeddedAws) -> dict[str, str]:
    """The variables that lead a process to the embedded AWS."""
    return {**embedded_aws.environment}


@pytest.fixture
def make_outlet(
    embedded_aws: EmbeddedAws, unique_name: Callable[[str], str]
) -> Callable[[str], Awaitable[tuple[str, Callable[[], Awaitable[list[str]]]]]]:
    """Return a function that makes a topic with a queue behind it: its name, and what returns the bodies that arrived."""

    async def make(stem: str) -> tuple[str, Callable[[], Awaitable[list[str]]]]:
        topic, queue = unique_name(stem), unique_name("outlet")

        async def arrived() -> list[str]:
            async with AwsClients(embedded_aws.access) as clients:
                source, bodies = SqsSource(clients, queue), list[str]()
                request = ReceiveRequest(limit=10, wait_seconds=0, visibility_timeout_seconds=60)
                while messages := await source.receive(request):
                    bodies += [message.body for message in messages]
                    await source.delete([message.receipt for message in messages])
                return bodies

        async with AwsClients(embedded_aws.access) as clients:
            wanted = Topology([Topic(topic)], [Queue(queue)], [Subscription(topic, queue, raw=True)])
            await apply(wanted, clients)
        return topic, arrived

    return make
