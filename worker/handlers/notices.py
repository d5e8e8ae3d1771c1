"""Notices to customers, by the Distributed Queue Pattern: one router writes every notice down, one sends those that ask for an SMS.

Which queue gets which notice is decided by the subscription's filter on the attribute `action`, not here.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import BaseModel, StringConstraints
from sqlalchemy import Connection

from worker import Message, Router
from worker.handlers.notice_database import WRITE, NoticeDatabase
from worker.handlers.sms_api import SmsApi, open_sms_api

__all__ = ["NOTICES_TOPIC", "NOTICE_REQUESTED", "SEND_SMS", "Notice", "records", "sms"]

NOTICES_TOPIC = "notices"
NOTICE_REQUESTED = "notice.requested"
SEND_SMS = "sendSMS"
"""The attribute `action` of a notice that is to be sent as an SMS."""


class Notice(BaseModel):
    """The payload of `notice.requested`."""

    notice_id: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
    """Names it for good; printable ASCII, for it becomes an HTTP header."""
    to: Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{6,14}$")]
    """A telephone number as E.164 writes it."""
    text: Annotated[str, StringConstraints(min_length=1, max_length=1_600, pattern=r"^[^\x00]+$")]


@asynccontextmanager
async def database() -> AsyncIterator[NoticeDatabase]:
    """Open the database that `NOTICES_DATABASE` names."""
    async with NoticeDatabase(os.environ.get("NOTICES_DATABASE", "sqlite:///notices.sqlite")) as opened:
        yield opened


@asynccontextmanager
async def sms_api() -> AsyncIterator[SmsApi]:
    """Keep connections to the API at `SMS_API`, as whoever `SMS_API_TOKEN` says."""
    url = os.environ.get("SMS_API", "http://127.0.0.1:8025")
    async with open_sms_api(url, os.environ.get("SMS_API_TOKEN")) as api:
        yield api


records = Router(lifespan=database)
sms = Router(lifespan=sms_api)


@records.on(NOTICE_REQUESTED)
async def write_down(message: Message[Notice]) -> None:
    """Write the notice down once: row and mark are committed together."""
    state: NoticeDatabase = message.state
    notice = message.event

    def work(connection: Connection) -> None:
        with message.once(connection, key=notice.notice_id) as first:
            if first:
                row = {"notice_id": notice.notice_id, "recipient": notice.to, "text": notice.text}
                connection.execute(WRITE, row)

    await state.run(work)


@sms.on(NOTICE_REQUESTED)
async def send_sms(message: Message[Notice]) -> None:
    """Send the SMS; the notice's id is the key by which the API sends it once."""
    state: SmsApi = message.state
    await state.send(message.event.to, message.event.text, key=message.event.notice_id)
