"""The order service over real HTTP: orders placed by announcing them, or by doing everything in the request."""

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from support.command import clean_environment
from support.mailbox import Mailbox

from worker import Publisher
from worker.errors import Fault
from worker.handlers.database import Database
from worker.handlers.events import ORDERS_TOPIC
from worker.handlers.mail import Mailer
from worker.handlers.order_service import OrderService, Place, place_by_event, place_inline
from worker.local import EmbeddedAws
from worker.testing import MemoryTopic

pytestmark = pytest.mark.integration

BODY = {"user_id": "user-1", "email": "ann@shop.example", "product": "tea", "quantity": 2, "amount": "9.90"}
TABLES = ("orders", "payment_steps", "reservations", "mails", "analytics", "fraud_checks")


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(f"sqlite:///{tmp_path}/orders.sqlite") as database:
        await database.stock_up({"tea": 5})
        yield database


@asynccontextmanager
async def serving(place: Place) -> AsyncIterator[OrderService]:
    """Run the service; its orders are numbered."""
    numbers: Iterator[int] = count(1)
    async with OrderService(place, new_id=lambda: f"order-{next(numbers):06}") as service:
        yield service


async def post(service: OrderService, body: object = BODY) -> tuple[int, Any]:
    """Post a body, as JSON unless it is bytes; return the status and the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with ClientSession() as session, session.post(f"{service.url}/orders", data=data) as answer:
        return answer.status, await answer.json()


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic(ORDERS_TOPIC)


@pytest.fixture
async def orders(topic: MemoryTopic) -> AsyncIterator[Publisher]:
    async with Publisher(topic) as orders:
        yield orders


async def test_an_order_is_placed_by_its_event(topic: MemoryTopic, orders: Publisher) -> None:
    """Its amount is an attribute too, for filters."""
    async with serving(place_by_event(orders)) as service:
        assert await post(service) == (201, {"order_id": "order-000001"})
        assert await post(service) == (201, {"order_id": "order-000002"})
    assert topic.published[0] == ("order.created", {"order_id": "order-000001", **BODY})
    assert len(topic.published) == 2
    amount = topic.publications[0].attributes["amount"]
    assert (amount.data_type, amount.value) == ("Number", "9.90")


async def test_what_cannot_be_published_is_no_order(topic: MemoryTopic, orders: Publisher) -> None:
    async with serving(place_by_event(orders)) as service:
        topic.fail(Fault.DENIED)
        status, answer = await post(service)
        assert status == 503
        assert answer["error"].startswith(
            "the order cannot be placed: order.created was not published to order-events: "
        )
        assert topic.published == []
        assert (await post(service))[0] == 201


async def test_inline_an_order_has_all_effects_when_it_is_answered(database: Database, mailbox: Mailbox) -> None:
    async with serving(place_inline(database, Mailer(mailbox.url))) as service:
        assert await post(service) == (201, {"order_id": "order-000001"})
    assert [await database.count(table) for table in TABLES] == [1] * 6
    assert mailbox.ids == ["<order.created.order-000001@orders.example>"]


async def test_inline_no_mail_server_means_no_order(database: Database, mailbox: Mailbox, orders: Publisher) -> None:
    """One of six duties fails and so does the customer's request, half-way, with money held; by an event, it would not."""
    await mailbox.__aexit__(None, None, None)
    async with serving(place_inline(database, Mailer(mailbox.url))) as service:
        answer = {"error": "the order cannot be placed: the mail server cannot be reached (SMTPConnectError)"}
        assert await post(service) == (503, answer)
    assert [await database.count(table) for table in TABLES] == [1, 1, 1, 0, 0, 0]
    async with serving(place_by_event(orders)) as service:
        assert (await post(service))[0] == 201


@pytest.mark.parametrize(
    ("user", "status", "why"), [("poor", 402, "the card was declined"), ("user-b", 503, "the bank is busy")]
)
async def test_inline_an_order_that_is_not_paid_is_none(
    database: Database, mailbox: Mailbox, user: str, status: int, why: str
) -> None:
    """By an event the customer of a busy bank would have had an order at once."""
    await database.ledger.know_cards(declined=["poor"], busy=["user-b"], busy_until=time.time() + 1_000)
    async with serving(place_inline(database, Mailer(mailbox.url))) as service:
        answer = {"error": f"the order cannot be placed: {why}"}
        assert await post(service, {**BODY, "user_id": user}) == (status, answer)
    assert await database.count("reservations") == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [({"product": "gold"}, "the product is unknown"), ({"quantity": 6}, "the product is sold out")],
)
async def test_inline_an_order_is_refused_with_its_reason(
    database: Database, mailbox: Mailbox, change: dict[str, object], why: str
) -> None:
    async with serving(place_inline(database, Mailer(mailbox.url))) as service:
        assert await post(service, {**BODY, **change}) == (409, {"error": f"the order cannot be placed: {why}"})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"secret", "the body is no JSON; send an object with user_id, email, product, quantity and amount"),
        (b"[" * 10_000, "the body is no JSON; send an object with user_id, email, product, quantity and amount"),
        (b"\xff", "the body is no JSON; send an object with user_id, email, product, quantity and amount"),
        (b'{"quantity": NaN}', "the body is no JSON; send an object with user_id, email, product, quantity and amount"),
        (["secret"], "the body is no object; send one with user_id, email, product, quantity and amount"),
        ({**BODY, "quantity": "secret"}, "the body is no order (quantity: int_parsing)"),
        ({**BODY, "email": "secret\r\n", "amount": -1}, "the body is no order (email: string_pattern_mismatch; amount: greater_than_equal)"),
        ({"secret": 1}, "the body is no order (user_id: missing; email: missing; product: missing; quantity: missing; amount: missing)"),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_order_is_told_in_a_sentence_and_not_quoted(
    topic: MemoryTopic, orders: Publisher, body: object, sentence: str
) -> None:
    async with serving(place_by_event(orders)) as service:
        assert await post(service, body) == (400, {"error": sentence})
    assert topic.published == []


async def test_the_service_names_orders_not_the_customer(orders: Publisher) -> None:
    async with serving(place_by_event(orders)) as service:
        assert await post(service, {**BODY, "order_id": "mine"}) == (201, {"order_id": "order-000001"})


async def test_probes_are_answered(orders: Publisher) -> None:
    async with (
        serving(place_by_event(orders)) as service,
        ClientSession() as session,
        session.get(f"{service.url}/healthz") as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


class TestCommand:
    """`python -m worker.handlers.order_service`."""

    async def start(self, folder: Path, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker.handlers.order_service"),
            cwd=folder,
            env={**clean_environment(folder, {"ORDERS_PORT": "0", **environment}), "PYTHONPATH": str(Path.cwd())},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def url(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        (url,) = re.findall(r"^taking orders at (http://127\.0\.0\.1:\d+)$", line.strip())
        return str(url)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_it_takes_orders_until_it_is_told_to_stop(
        self, tmp_path: Path, mailbox: Mailbox, number: signal.Signals
    ) -> None:
        process = await self.start(tmp_path, ORDERS_MODE="inline", ORDERS_SMTP=mailbox.url)
        url = await self.url(process)
        async with Database(f"sqlite:///{tmp_path}/orders.sqlite") as database:
            await database.stock_up({"tea": 5})
            async with ClientSession() as session, session.post(f"{url}/orders", json=BODY) as answer:
                assert answer.status == 201
            assert await database.count("orders") == 1
        process.send_signal(number)
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 0

    async def test_by_default_it_publishes(self, tmp_path: Path, embedded_aws: EmbeddedAws) -> None:
        """The topic does not exist, and it says so to who orders."""
        process = await self.start(tmp_path, **embedded_aws.environment, ORDERS_TOPIC="no-such-topic")
        url = await self.url(process)
        async with ClientSession() as session, session.post(f"{url}/orders", json=BODY) as answer:
            assert answer.status == 503
            assert "order.created was not published to no-such-topic: the topic does not exist" in await answer.text()
        process.terminate()
        assert await process.wait() == 0

    @pytest.mark.parametrize(
        ("environment", "sentence"),
        [
            ({"ORDERS_MODE": "both"}, "ORDERS_MODE is 'both', but must be event or inline"),
            ({"ORDERS_PORT": "x"}, "ORDERS_PORT is 'x', but must be a whole number from 0 to 65,535"),
            ({"ORDERS_PORT": "65536"}, "ORDERS_PORT is '65536', but must be a whole number from 0 to 65,535"),
            ({"ORDERS_MODE": "inline", "ORDERS_SMTP": "x"}, "the address of the mail server is not one; "),
            ({"ORDERS_MODE": "inline", "ORDERS_DATABASE": "x"}, "the address of the orders' database is not one; "),
            ({"ORDERS_MODE": "inline", "ORDERS_HOST": "192.0.2.1"}, "the order service cannot listen on 192.0.2.1 port 0 ("),
        ],
    )  # fmt: skip
    async def test_a_mistake_is_one_sentence_and_status_2(
        self, tmp_path: Path, environment: dict[str, str], sentence: str
    ) -> None:
        process = await self.start(tmp_path, **environment)
        _, said = await process.communicate()
        assert process.returncode == 2
        (line,) = said.decode().splitlines()
        assert line.startswith(f"order service: {sentence}")
