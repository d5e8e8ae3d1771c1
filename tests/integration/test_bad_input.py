"""Users who make mistakes with AWS, addresses and handlers; messages that are none. Nothing is lost by it (X1, E2)."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from support.command import Ended, longshore, mistake
from support.limited_user import LimitedUser
from support.proxy import BadRoad
from support.shop import Shop, Worker

from worker.aws.session import AwsClients
from worker.fleet.preflight import Preflight, preflight
from worker.local import EmbeddedAws
from worker.settings import load
from worker.source import ReceiveRequest

pytestmark = pytest.mark.integration

Look = Callable[..., Awaitable[Preflight]]

EVERY_ACTION = "sqs:*"
READING = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage*", "sqs:ChangeMessageVisibility*")

STRICT_HANDLERS = """
from pydantic import BaseModel
from worker import Message, Router

router = Router()

class Order(BaseModel):
    order_id: str

@router.on("*")
async def handle(message: Message[Order]) -> None:
    with open("orders.txt", "a") as orders:
        orders.write(message.event.order_id + "\\n")
"""
LIFESPAN_HANDLERS = """
import asyncio
from contextlib import asynccontextmanager
from worker import Message, Router

@asynccontextmanager
async def database():
    {at_start}
    yield
    {at_end}

router = Router(lifespan=database)

@router.on("*")
async def handle(message: Message[str]) -> None: ...
"""


@pytest.fixture
async def shop(
    tmp_path: Path, aws_clients: AwsClients, unique_name: Callable[[str], str], embedded_aws: EmbeddedAws
) -> AsyncIterator[Shop]:
    """A shop whose queues nobody has made yet."""
    shop = Shop(tmp_path, unique_name("shop"), aws_clients, embedded_aws)
    shop.configure(process="drain_seconds: 8", wait_time_seconds=1)
    try:
        yield shop
    finally:
        await shop.close()
        await shop.demolish()


async def until_ready(shop: Shop, worker: Worker) -> None:
    async def is_ready() -> bool:
        return (await worker.readiness())[0] == 200

    await shop.until(is_ready, seconds=40)


async def trouble(shop: Shop, worker: Worker, part: str) -> str:
    """Wait until `/readyz` says what is wrong, and return it; the worker is alive all the while."""

    async def is_told() -> bool:
        status, answer = await worker.readiness()
        return status == 503 and part in " ".join(answer["problems"])

    await shop.until(is_told, seconds=20)
    assert (await worker.ask("/livez"))[0] == 200
    assert worker.process.returncode is None
    _, answer = await worker.readiness()
    assert len(set(answer["problems"])) == len(answer["problems"])
    assert all(f"queue {shop.queue}" in problem for problem in answer["problems"])
    return " ".join(answer["problems"])


async def check(shop: Shop) -> Ended:
    """Run `longshore config check --live` beside the event loop."""
    command = ("config", "check", "--live")
    return await asyncio.to_thread(longshore, *command, folder=shop.folder, environment=shop.environment)


@pytest.fixture
def look(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return a function that does in this process what `longshore config check --live` does in its own."""

    async def look(**environment: str) -> Preflight:
        for name, value in {**shop.environment, **environment}.items():
            monkeypatch.setenv(name, value)
        return await preflight(load(shop.folder / "fleet.yaml"), {})

    return look


async def test_a_missing_queue_is_named_and_consumed_once_it_is_there(shop: Shop) -> None:
    """Running, not ready, the queue and what to do are named; `config check --live` exits 2 for it (R6, X1)."""
    sentence = mistake(await check(shop))
    assert f"queue {shop.queue} does not exist" in sentence
    assert "longshore topology apply" in sentence
    worker = await shop.start()
    assert "does not exist" in await trouble(shop, worker, "create it")
    await shop.open()
    await shop.send(3)
    await until_ready(shop, worker)
    await shop.until(shop.is_drained)
    assert shop.handled == dict.fromkeys(range(3), 1)
    ended = await check(shop)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert await worker.terminate() == 0
    assert "Traceback" not in worker.output


async def test_denied_access_is_named_and_heals_without_a_restart(shop: Shop, embedded_aws: EmbeddedAws) -> None:
    """Who may nothing is told which actions are missing; who may not delete receives no more, and nothing is lost (S6, X1)."""
    await shop.open()
    user = LimitedUser(shop.queue, embedded_aws)
    user.may("sns:Publish")
    shop.environment |= user.environment
    sentence = mistake(await check(shop))
    assert f"queue {shop.queue}: denied" in sentence
    assert "allow sqs:GetQueueUrl" in sentence
    worker = await shop.start()
    assert "denied" in await trouble(shop, worker, "allow sqs:")
    await shop.send(3)
    user.may(*READING)
    assert "sqs:DeleteMessage" in await trouble(shop, worker, "deletes or visibility changes fail")
    user.may(EVERY_ACTION)
    await until_ready(shop, worker)
    await shop.until(shop.is_drained)
    assert shop.handled == dict.fromkeys(range(3), 1)
    assert (await shop.depth()).dead_letters == 0


async def test_an_unreachable_endpoint_is_named_and_heals(shop: Shop, look: Look, embedded_aws: EmbeddedAws) -> None:
    """A worker that starts during an outage works once it is over (R6, X1)."""
    await shop.open()
    await shop.send(2)
    async with BadRoad(embedded_aws.endpoint_url) as road:
        road.go_dark()
        shop.environment["AWS_ENDPOINT_URL"] = road.url
        (sentence,) = (await look()).problems
        assert f"queue {shop.queue} cannot be reached" in sentence
        assert "aws.endpoint_url" in sentence
        worker = await shop.start()
        assert "receiving fails" in await trouble(shop, worker, "times in a row")
        road.is_dark = False
        await until_ready(shop, worker)
        await shop.until(shop.is_drained)
        assert shop.handled == {0: 1, 1: 1}
        assert await worker.terminate() == 0


@pytest.mark.parametrize("status", [200, 404])
async def test_an_endpoint_that_is_no_aws_is_not_taken_for_an_empty_queue(shop: Shop, look: Look, status: int) -> None:
    """A web page is no answer, whatever its status: not ready, and the check exits 2 (X1)."""

    async def page(_: web.BaseRequest) -> web.Response:
        return web.Response(text="<html>Welcome</html>", status=status, content_type="text/html")

    runner = web.ServerRunner(web.Server(page, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        shop.environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        (sentence,) = (await look()).problems
        assert f"queue {shop.queue} cannot be reached" in sentence
        worker = await shop.start()
        await trouble(shop, worker, "receiving fails")
        assert await worker.terminate() == 0
        assert "Traceback" not in worker.output
    finally:
        await runner.cleanup()


async def test_keys_that_aws_does_not_know_are_told_as_such(shop: Shop, look: Look) -> None:
    """Rotated or mistyped keys are no trouble of the network, and the key is not quoted (X1)."""
    await shop.open()
    key = "AKIAMISTYPEDMISTYPED"
    (sentence,) = (await look(AWS_ACCESS_KEY_ID=key)).problems
    assert "AWS does not take the credentials" in sentence
    assert key not in sentence


async def test_a_missing_dead_letter_queue_is_named(shop: Shop, look: Look) -> None:
    """Without it a poison message could not leave: not ready, and the check exits 2 (X1)."""
    await shop.open(max_receive_count=None)
    (sentence,) = (await look()).problems
    assert f"queue {shop.queue}: its dead-letter queue {shop.queue}-dlq is not found; create it" in sentence
    worker = await shop.start()
    assert f"{shop.queue}-dlq is not found" in await trouble(shop, worker, "create it")


async def test_another_redrive_policy_is_a_warning(shop: Shop, look: Look) -> None:
    """SQS would move messages elsewhere or too early: told in `/readyz`, the log and the check, and it runs (S4)."""
    await shop.open(max_receive_count=2)
    found = await look()
    assert found.problems == []
    (warning,) = found.warnings
    assert f"queue {shop.queue}: the queue's maxReceiveCount is 2; 10 is configured" in warning
    worker = await shop.start()
    await until_ready(shop, worker)
    (warning,) = (await worker.readiness())[1]["warnings"]
    assert "moves messages before their 3 attempts are used" in warning
    assert "maxReceiveCount is 2" in worker.output


def test_a_worker_without_credentials_does_not_start(shop: Shop) -> None:
    """One sentence says where they were looked for, and what to set (X1)."""
    without = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ended = longshore("run", folder=shop.folder, environment=shop.environment, without=without)
    assert "no AWS credentials were found" in mistake(ended)
    assert ended.stdout == ""


def test_an_address_that_cannot_be_listened_on_is_one_sentence(shop: Shop) -> None:
    """A port that is taken and a host of another machine (X1)."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {**shop.environment, "LONGSHORE_SERVER__PORT": str(port)}
        sentence = mistake(longshore("run", folder=shop.folder, environment=environment))
        assert f"server.port {port} on 127.0.0.1 is taken" in sentence
    environment = {**shop.environment, "LONGSHORE_SERVER__HOST": "192.0.2.1"}
    sentence = mistake(longshore("run", folder=shop.folder, environment=environment))
    assert "server.host 192.0.2.1 is not an address of this machine" in sentence


def test_a_queue_that_is_not_in_the_fleet_file_is_one_sentence(shop: Shop) -> None:
    """The nearest name is offered, before anything is consumed (X1)."""
    sentence = mistake(longshore("run", "--queue", shop.queue[:-2], folder=shop.folder, environment=shop.environment))
    assert f"--queue '{shop.queue[:-2]}' is not a queue of the fleet file; did you mean {shop.queue}?" in sentence


@pytest.mark.parametrize("when", ["start", "end"])
async def test_a_lifespan_that_raises_is_named(shop: Shop, when: str) -> None:
    """It is the user's code: one sentence on standard error, the place in the log, exit 1."""
    await shop.open()
    failing = 'raise ValueError("no database")'
    parts = {"at_start": "...", "at_end": "..."} | {f"at_{when}": failing}
    (shop.folder / "shop_handlers.py").write_text(LIFESPAN_HANDLERS.format(**parts))
    worker = await shop.start()
    if when == "end":
        await until_ready(shop, worker)
        worker.process.terminate()
    assert await worker.process.wait() == 1
    last = worker.output.splitlines()[-1]
    assert (
        last
        == f"longshore: the lifespan of handlers `shop_handlers:router` raised at the {when}: ValueError: no database"
    )
    assert "shop_handlers.py" in worker.output
    assert "Traceback" not in worker.output


async def test_sigterm_does_not_wait_for_a_lifespan_that_does_not_start(shop: Shop) -> None:
    """Nothing is in hand while resources are being opened, so it ends at once with 0 (D1)."""
    (shop.folder / "shop_handlers.py").write_text(
        LIFESPAN_HANDLERS.format(at_start="await asyncio.sleep(1000)", at_end="...")
    )
    worker = await shop.start()
    assert (await worker.readiness())[1]["problems"] == ["starting"]
    async with asyncio.timeout(5):
        assert await worker.terminate() == 0


LARGEST = 1_048_576
ENVELOPE = {"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:000000000000:orders", "MessageId": "1"}
HOSTILE = {
    "as large as SQS takes": "x" * LARGEST,
    "as large, and JSON": json.dumps({"order_id": ["y" * 1_048_000]}),
    "deep lists": "[" * 100_000,
    "deep objects": '{"order_id":' * 50_000,
    "a huge number": '{"order_id": ' + "9" * 100_000 + "}",
    "an endless float": '{"order_id": 1e999999}',
    "not a number": "NaN",
    "a lone surrogate": '{"order_id": "\\ud800"}',
    "escaped control characters": '{"order_id": 1, "text": "\\u0000\\u001b[2J"}',
    "a byte order mark": "\ufeff[]",
    "broken off": '{"order_id": "1',
    "a blank": " ",
    "an envelope without Message": json.dumps(ENVELOPE),
    "an envelope with a number as Message": json.dumps({**ENVELOPE, "Message": 7}),
    "an envelope with broken attributes": json.dumps({**ENVELOPE, "Message": "{}", "MessageAttributes": [1]}),
    "an envelope in an envelope": json.dumps({**ENVELOPE, "Message": json.dumps({**ENVELOPE, "Message": "[1]"})}),
}


@pytest.mark.filterwarnings("ignore:Sending a large body")  # of the test's own client
async def test_hostile_bodies_end_in_the_dead_letter_queue_unchanged(shop: Shop, aws_clients: AwsClients) -> None:
    """Each at its first receive, byte for byte, and the good ones between them are handled (E1, E2)."""
    await shop.open()
    (shop.folder / "shop_handlers.py").write_text(STRICT_HANDLERS)
    url = (await aws_clients.settle.call("get_queue_url", QueueName=shop.queue))["QueueUrl"]
    for number, body in enumerate(HOSTILE.values()):
        await aws_clients.settle.call("send_message", QueueUrl=url, MessageBody=body)
        good = json.dumps({"order_id": f"good-{number}"})
        await aws_clients.settle.call("send_message", QueueUrl=url, MessageBody=good)
    worker = await shop.start()
    await shop.until(shop.is_drained, seconds=30)
    orders = (shop.folder / "orders.txt").read_text().splitlines()
    assert sorted(orders) == sorted(f"good-{number}" for number in range(len(HOSTILE)))
    bodies = []
    while letters := await shop.dead_letters.receive(ReceiveRequest(10, 0, 30)):
        for letter in letters:
            bodies.append(letter.body)
            if len(letter.body) < LARGEST:  # beside the largest there is no room for a reason
                reason = json.loads(str(letter.attributes["longshore.dead_letter"].value))
                assert reason["attempts"] == 1
                assert len(reason["reason"]) < 300
    assert sorted(bodies) == sorted(HOSTILE.values())
    assert (await worker.ask("/livez"))[0] == 200
    assert await worker.terminate() == 0
    assert "Traceback" not in worker.output
    assert "yyyy" not in worker.output
