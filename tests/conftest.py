"""What tests of all kinds share: an AWS, and queues of their own for each test.

A test that asks for `aws`, or for what is made on it, runs on the embedded AWS, and on LocalStack as a strict test;
one that asks for `embedded_aws` too, because permissions are checked there, runs there only.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from support.differs import LOCALSTACK, MINISTACK, Differs
from support.localstack import LocalStack

from worker.aws.session import AwsClients
from worker.local import EmbeddedAws


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "strict: needs LocalStack (started by the tests); runs only if -m names it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out strict tests unless they are asked for by name: LocalStack is large, and not installed by `make setup`."""
    items[:] = [item for item in items if not _is_at_home_elsewhere(item)]
    if "strict" in config.option.markexpr:
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("strict")])
    items[:] = [item for item in items if not item.get_closest_marker("strict")]


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
