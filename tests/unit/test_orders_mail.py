"""The mailer against a real mail server: what can be tried again, and what cannot."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from support.mailbox import Mailbox

from worker import PermanentError, TransientError, UsageError
from worker.handlers import mail
from worker.handlers.events import Order
from worker.handlers.mail import Mailer

pytestmark = pytest.mark.real_time

ORDER = Order(
    order_id="order-000001",
    user_id="user-1",
    email="ann@shop.example",
    product="tea",
    quantity=2,
    amount=Decimal("9.90"),
)


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox() as mailbox:
        yield mailbox


@asynccontextmanager
async def serving(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that treats each client as `serve` does; yields its address, and waits until they are gone."""
    clients: list[asyncio.Task[Any] | None] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(asyncio.current_task())
        await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(10):
            await asyncio.gather(*filter(None, clients))


async def test_a_mail_says_what_became_of_which_order(mailbox: Mailbox) -> None:
    await Mailer(mailbox.url).send("order.created", ORDER)
    (sent,) = mailbox.mails
    assert mailbox.recipients == [sent["To"]] == ["ann@shop.example"]
    assert sent["Subject"] == "We have your order: order-000001"
    assert sent.get_content().strip() == "2 x tea, 9.90 in all."


async def test_the_same_news_has_the_same_message_id(mailbox: Mailbox) -> None:
    """Whoever receives a mail twice can tell; other news of the order, and other orders, differ."""
    mailer = Mailer(mailbox.url)
    for event_type in ("order.created", "order.created", "order.shipped"):
        await mailer.send(event_type, ORDER)
    assert mailbox.ids[0] == mailbox.ids[1] == "<order.created.order-000001@orders.example>"
    assert mailbox.ids[2] == "<order.shipped.order-000001@orders.example>"


async def test_an_odd_order_id_stays_within_its_message_id(mailbox: Mailbox) -> None:
    await Mailer(mailbox.url).send("order.created", ORDER.model_copy(update={"order_id": "a>b @ü" + "x" * 100}))
    assert mailbox.ids == ["<order.created.a%3Eb%20%40%C3%BC" + "x" * 100 + "@orders.example>"]


async def test_an_address_beyond_ascii_is_delivered(mailbox: Mailbox) -> None:
    await Mailer(mailbox.url).send("order.created", ORDER.model_copy(update={"email": "jürgen@shop.example"}))
    assert mailbox.recipients == ["jürgen@shop.example"]


@pytest.mark.parametrize("what", ["ann@shop.example", "DATA"])
async def test_a_refusal_for_now_is_tried_again(mailbox: Mailbox, what: str) -> None:
    mailbox.refusals[what] = "451 ann@shop.example: try again later"
    with pytest.raises(TransientError, match=r"^the mail server refused the (recipient|mail) for now \(451\)$"):
        await Mailer(mailbox.url).send("order.created", ORDER)


@pytest.mark.parametrize("what", ["ann@shop.example", "DATA"])
async def test_a_refusal_for_good_is_permanent(mailbox: Mailbox, what: str) -> None:
    mailbox.refusals[what] = "550 ann@shop.example: no such user"
    with pytest.raises(PermanentError, match=r"^the mail server refused the (recipient|mail) \(550\)$"):
        await Mailer(mailbox.url).send("order.created", ORDER)


@pytest.mark.parametrize(
    "email", ["ann at home", "Ann <ann@shop.example>", "a@b.example, c@d.example", "<ann> at> home"]
)
async def test_what_is_no_address_is_permanent(mailbox: Mailbox, email: str) -> None:
    """It is not quoted, and nothing goes to what could be made of it."""
    with pytest.raises(PermanentError, match=r"^the recipient is no mail address$"):
        await Mailer(mailbox.url).send("order.created", ORDER.model_copy(update={"email": email}))
    assert mailbox.mails == []


async def test_a_server_that_is_down_is_tried_again(mailbox: Mailbox) -> None:
    """And once it is back, the mail is sent."""
    mailer = Mailer(mailbox.url)
    await mailbox.__aexit__(None, None, None)
    with pytest.raises(TransientError, match=r"^the mail server cannot be reached \(SMTPConnectError\)$"):
        await mailer.send("order.created", ORDER)
    async with mailbox:
        await mailer.send("order.created", ORDER)
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("greeting", [b"", b"220 mailbox.example ESMTP\r\n"])
async def test_a_server_that_hangs_is_given_up(greeting: bytes) -> None:
    """Before its greeting or after it: the whole mail is bounded, and the connection is closed."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()  # until the mailer closes its end

    async with serving(hang) as url:
        with pytest.raises(TransientError, match=r"^the mail server did not answer within 0\.1 s$"):
            await Mailer(url, timeout_seconds=0.1).send("order.created", ORDER)


async def test_a_mail_that_was_taken_is_sent_however_the_server_takes_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing any more; if that were a failure, the customer would get the mail again."""
    monkeypatch.setattr(mail, "_QUIT_SECONDS", 0.05)
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mailbox.example ESMTP\r\n")
        while (line := await reader.readline()) and not line.startswith(b"QUIT"):
            said.append(line)
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250 OK\r\n")
        await reader.read()

    async with serving(serve) as url:
        await Mailer(url).send("order.created", ORDER)
    assert b"DATA\r\n" in said


@pytest.mark.parametrize("answer", [b"421 busy\r\n", b"554 go away\r\n"])
async def test_a_server_that_refuses_us_is_tried_again(answer: bytes) -> None:
    """It says nothing of the mail: a wrong password must not dead-letter what customers wait for."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with serving(refuse) as url:
        with pytest.raises(TransientError, match=r"^the mail server does not serve us \((421|554)\)$"):
            await Mailer(url).send("order.created", ORDER)


async def test_a_server_without_logins_is_tried_again(mailbox: Mailbox) -> None:
    """A user is given, but the server takes none: its operator's mistake, or ours."""
    with pytest.raises(TransientError, match=r"^the mail server"):
        await Mailer(mailbox.url.replace("//", "//ann:secret@")).send("order.created", ORDER)


@pytest.mark.parametrize(
    "url",
    ["", "mail.example:25", "http://mail.example:25", "smtp://mail.example", "smtp://:25", "smtp://u:secret@h:port"],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"^the address of the mail server is not one; allowed is") as caught:
        Mailer(url)
    assert "secret" not in str(caught.value)
