"""`Mailbox`: a mail server for tests, on loopback in the running event loop; it takes mail, or refuses what it is told to."""

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, Envelope, Session

__all__ = ["Mailbox"]


class Mailbox:
    """An async context manager; `refusals` maps a recipient, or `DATA`, to what the server answers."""

    def __init__(self) -> None:
        self.refusals: dict[str, str] = {}
        self.mails: list[EmailMessage] = []
        """What it took, in order."""
        self.recipients: list[str] = []
        self.port = 0
        """Known once entered; the same when it is entered again."""
        self._server: asyncio.Server | None = None
        self._sessions: list[SMTP] = []

    @property
    def url(self) -> str:
        """Its address, as `ORDERS_SMTP` has it."""
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def ids(self) -> list[str]:
        """The Message-IDs of what it took."""
        return [str(mail["Message-ID"]) for mail in self.mails]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for session in self._sessions:
            if session.transport is not None:
                session.transport.close()
        await asyncio.sleep(0)  # connections are closed by the next turn of the loop

    def _session(self) -> SMTP:
        self._sessions.append(SMTP(self, hostname="mailbox.example", enable_SMTPUTF8=True))
        return self._sessions[-1]

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name and signature
        self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if refusal := self.refusals.get(address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - likewise
        if refusal := self.refusals.get("DATA"):
            return refusal
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.mails.append(message_from_bytes(content, policy=policy.default))
        self.recipients += envelope.rcpt_tos
        return "250 OK"
