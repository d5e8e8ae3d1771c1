"""The SMS API that a notice goes through: an answer says whether trying again can help, and a key keeps a second try from being a second SMS."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from worker import PermanentError, TransientError, UsageError

__all__ = ["SmsApi", "open_sms_api"]

MOST_SECONDS: Final = 43_200
"""SQS hides a message for twelve hours at most, whatever an API asks for."""
_CONNECT_SECONDS: Final = 3
_OF_US: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
"""These say nothing of the SMS: a wrong token must not dead-letter what customers wait for."""


class SmsApi:
    """Sends SMS by `POST URL/messages`, on connections that stay open."""

    def __init__(self, session: ClientSession, url: str, *, timeout_seconds: float = 10) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/messages"
        self._timeout_seconds = timeout_seconds
        self._timeout = ClientTimeout(total=timeout_seconds, connect=_CONNECT_SECONDS)

    async def send(self, to: str, text: str, *, key: str) -> None:
        """Send an SMS; with the same key the API sends it once, however often it is asked to.

        Raises `TransientError` when the API cannot be reached, is too slow, is busy (429, after `Retry-After`), is still
        at it (409), does not take us (401, 403) or fails (5xx), and `PermanentError` when it refuses the SMS with another 4xx.
        """
        call = self._session.post(
            self._url,
            json={"to": to, "text": text},
            headers={"Idempotency-Key": key},
            timeout=self._timeout,
            allow_redirects=False,  # a POST that is redirected arrives as a GET, or elsewhere
        )
        try:
            async with call as answer:
                _raise_for(answer)
        except TimeoutError:  # it may have been sent all the same; the key tells the API so
            raise TransientError(f"the SMS API did not answer within {self._timeout_seconds:g} s") from None
        except (ClientError, OSError) as error:
            raise TransientError(f"the SMS API cannot be reached ({type(error).__name__})") from None


@asynccontextmanager
async def open_sms_api(url: str, token: str | None = None) -> AsyncIterator[SmsApi]:
    """Keep connections to the API at `http[s]://HOST[:PORT][/PATH]`; raise `UsageError` when the address is none."""
    try:
        parsed = urlsplit(url)
        is_address = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        is_address = False
    if not is_address or "@" in url:
        raise UsageError(
            "the address of the SMS API is not one; allowed is one such as https://sms.example/v1, without a user: "
            "a token belongs into SMS_API_TOKEN"
        )
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with ClientSession(headers=headers) as session:
        yield SmsApi(session, url)


def _raise_for(answer: ClientResponse) -> None:
    """Raise what the answer means, unless the SMS is sent."""
    status = answer.status
    if answer.ok and status < HTTPStatus.MULTIPLE_CHOICES:
        return
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = _seconds(answer.headers.get("Retry-After", ""))
        raise TransientError("the SMS API takes no more calls for now (429)", retry_after=wait)
    if status == HTTPStatus.CONFLICT:  # what a repeated key is answered with while its first call goes on
        raise TransientError("the SMS API is still at an earlier call for this SMS (409)", is_downstream=False)
    if status in _OF_US or status < HTTPStatus.BAD_REQUEST:
        raise TransientError(f"the SMS API does not serve us ({status})")
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(
            f"the SMS API fails ({status})", retry_after=_seconds(answer.headers.get("Retry-After", ""))
        )
    raise PermanentError(f"the SMS API refuses the SMS ({status})")


def _seconds(retry_after: str) -> float | None:
    """Return how long `Retry-After` wants us to wait: seconds or a date (RFC 9110, 10.2.3); `None` for neither."""
    if retry_after.isascii() and retry_after.isdecimal():
        return min(float(retry_after), MOST_SECONDS)
    try:
        wait = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), MOST_SECONDS)
