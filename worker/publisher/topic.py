"""`Topic`: the one thing a publisher knows of a topic; `SnsTopic` is one on Amazon SNS."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from worker.aws.address import topic_address
from worker.aws.s3 import S3Objects
from worker.aws.session import AwsAccess
from worker.aws.sns import Publication, SnsClients, publish_identified, topic_arn
from worker.errors import EntryError, UsageError
from worker.settings import Address

__all__ = ["Publication", "SnsTopic", "Topic"]


class Topic(Protocol):
    """Where events are published; a name that ends in `.fifo` makes it FIFO."""

    @property
    def name(self) -> str:
        """The bare name."""

    async def open(self) -> None:
        """Get ready; raise `UsageError` for what cannot work, such as a missing region."""

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        """Publish at most ten; return for each its message id, or why it was refused.

        Raises `SourceError` when the call fails as a whole.
        """

    async def close(self) -> None:
        """Let everything go."""


class SnsTopic:
    """A topic on SNS, by name or ARN; a name means one in the account of the credentials.

    An ARN tells the region where `access` does not. Raises `UsageError` when it is neither name nor ARN.
    """

    def __init__(self, address: str, access: AwsAccess, *, connections: int) -> None:
        try:
            topic = Address.of_topic(address)
        except ValueError as error:
            raise UsageError(f"the topic {address!r} must be {error}") from None
        self._name = topic.name
        self._address = address
        access = replace(access, region=access.region or topic.region)
        self._clients = SnsClients(access, receive_connections=1, settle_connections=connections)
        self._arn: str | None = None
        self._resolving = asyncio.Lock()

    @property
    def name(self) -> str:
        """The bare name."""
        return self._name

    def objects(self, connections: int) -> S3Objects:
        """Return S3 as the credentials of the topic see it; whoever asks for it closes it."""
        return S3Objects(self._clients, connections=connections)

    async def open(self) -> None:
        """Find region and credentials; whether the topic exists is seen at the first publish."""
        await self._clients.__aenter__()
        try:
            topic_address(self._address, self._clients.region)
        except UsageError:
            await self.close()
            raise

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        """Publish at most ten; return for each its message id, or why it was refused."""
        arn = self._arn or await self._resolve()
        return await publish_identified(self._clients, arn, publications)

    async def close(self) -> None:
        """Close the connections."""
        await self._clients.close()

    async def _resolve(self) -> str:
        async with self._resolving:  # many first publishes ask once
            if self._arn is None:
                self._arn = await topic_arn(self._clients, self._address)
            return self._arn
