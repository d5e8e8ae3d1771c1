"""The mail that a customer gets, sent for real: a refusal says whether trying again can help."""

import asyncio
from contextlib import suppress
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import aiosmtplib

from worker import PermanentError, TransientError, UsageError
from worker.handlers.events import Order

__all__ = ["Mailer"]

_DOMAIN: Final = "orders.example"
_SENDER: Final = f"orders@{_DOMAIN}"
_PERMANENT: Final = 500
_QUIT_SECONDS: Final = 1.0
_NEWS: Final = {
    "order.created": "We have your order",
    "order.updated": "Your order was changed",
    "order.cancelled": "Your order is cancelled",
    "order.shipped": "Your order is on its way",
    "order.delivered": "Your order was delivered",
}


class Mailer:
    """Sends mails through the server at `smtp://[user:password@]host:port`, or `smtps://` for TLS from the first byte.

    Raises `UsageError` when the address is none. A connection is made per mail.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 10) -> None:
        try:
            server = urlsplit(url)
            port = server.port
        except ValueError:
            raise _refused() from None
        if server.scheme not in ("smtp", "smtps") or not server.hostname or not port:
            raise _refused()
        self._hostname, self._port = server.hostname, port
        self._is_tls = server.scheme == "smtps"
        self._username = unquote(server.username) if server.username else None
        self._password = unquote(server.password) if server.password else None
        self._timeout_seconds = timeout_seconds

    async def send(self, event_type: str, order: Order) -> None:
        """Tell the customer what became of the order; the same news has the same Message-ID each time.

        Raises `TransientError` when the server cannot be reached, is too slow, does not take us, or answers 4xx, and
        `PermanentError` when it refuses the recipient or the mail with 5xx.
        """
        if parseaddr(order.email)[1] != order.email:  # else it would go to what the library takes for the address
            raise PermanentError("the recipient is no mail address")
        client = aiosmtplib.SMTP(
            hostname=self._hostname,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._is_tls,
            timeout=self._timeout_seconds,
        )
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await client.connect()
                await client.send_message(_compose(event_type, order), sender=_SENDER, recipients=[order.email])
            with suppress(aiosmtplib.SMTPException):  # it is sent, however the server takes our leave
                await client.quit(timeout=_QUIT_SECONDS)
        except aiosmtplib.SMTPRecipientsRefused as refusal:
            raise _failure(refusal.recipients[0].code, "the recipient") from None
        except aiosmtplib.SMTPDataError as refusal:
            raise _failure(refusal.code, "the mail") from None
        except (aiosmtplib.SMTPNotSupported, ValueError):  # the latter quotes the address
            raise PermanentError("the recipient is no address that the mail server can deliver to") from None
        except aiosmtplib.SMTPResponseException as refusal:  # of us, not of this mail: it will do when we are mended
            raise TransientError(f"the mail server does not serve us ({refusal.code})") from None
        except TimeoutError:
            raise TransientError(f"the mail server did not answer within {self._timeout_seconds:g} s") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise TransientError(f"the mail server cannot be reached ({type(error).__name__})") from None
        finally:
            client.close()


def _compose(event_type: str, order: Order) -> EmailMessage:
    mail = EmailMessage()
    mail["Message-ID"] = f"<{quote(event_type)}.{quote(order.order_id)}@{_DOMAIN}>"
    mail["From"] = _SENDER
    mail["To"] = order.email
    mail["Subject"] = f"{_NEWS.get(event_type, 'News of your order')}: {order.order_id}"
    mail.set_content(f"{order.quantity} x {order.product}, {order.amount} in all.\n")
    return mail


def _failure(code: int, refused: str) -> PermanentError | TransientError:
    if code >= _PERMANENT:
        return PermanentError(f"the mail server refused {refused} ({code})")
    return TransientError(f"the mail server refused {refused} for now ({code})")


def _refused() -> UsageError:
    """Return the error for an address; it may hold a password, so it is not quoted."""
    return UsageError(
        "the address of the mail server is not one; allowed is one such as smtp://127.0.0.1:1025 or "
        "smtps://user:password@host:465, with special characters of a password written as %XX"
    )
