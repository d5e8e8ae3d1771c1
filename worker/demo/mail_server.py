"""The demo's mail server: real SMTP on loopback, with a latency, closed mailboxes and outages."""

import asyncio
from collections import Counter
from email import message_from_bytes
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP

__all__ = ["MailServer"]

_HOST = "127.0.0.1"


class MailServer:
    """Takes mail while inside `async with`, except between `down` and `up`.

    A mail takes `latency_seconds`; one to a mailbox in `closed` is refused for good (550).
    """

    def __init__(self, *, latency_seconds: float, closed: frozenset[str] = frozenset()) -> None:
        self.received: Counter[str] = Counter()
        """How often each `Message-ID` was taken."""
        self._latency_seconds = latency_seconds
        self._closed = closed
        self._server: asyncio.Server | None = None
        self.port = 0
        """Known once entered; the same after an outage."""

    @property
    def url(self) -> str:
        """Where it is, also while it is down."""
        return f"smtp://{_HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def is_down(self) -> bool:
        """Whether it refuses connections."""
        return self._server is None

    async def up(self) -> None:
        """Listen; the second time on the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, hostname="mail.shop.example"), _HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Refuse connections; mails on the wire are still taken."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names its hooks after SMTP's verbs
        self, server: object, session: object, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Answer `RCPT TO`."""
        del server, session, options
        if address in self._closed:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802 - see above
        """Take the mail, in the time that it takes."""
        del server, session
        await asyncio.sleep(self._latency_seconds)
        self.received[str(message_from_bytes(envelope.content)["Message-ID"])] += 1
        return "250 OK"
