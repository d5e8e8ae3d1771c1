"""`AwsClients`: the AWS clients of one process, made from one session whose credentials are never frozen."""

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import metadata
from types import TracebackType
from typing import Any, Self

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.session import Session as BlockingSession

from worker.aws.channel import Channel
from worker.aws.lane import Lane
from worker.errors import UsageError

__all__ = ["AwsAccess", "AwsClients", "Credentials"]

RECEIVE_READ_TIMEOUT_SECONDS = 25
"""SQS's longest poll is 20 s; a shorter read timeout would cut polls that are only waiting."""
DYNAMODB_CONNECTIONS = 40
_READ_TIMEOUT_SECONDS = 10
_CONNECT_TIMEOUT_SECONDS = 5
_BLOCKING_TIMEOUT_SECONDS = 2
"""Of calls that are made because time is short."""
_REMEDY = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the host or pod a role"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Fixed credentials, as the embedded AWS has them; a real fleet leaves finding them to the AWS SDK."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """Where AWS is and who asks."""

    region: str | None = None
    """`None`: what the AWS SDK finds (`AWS_DEFAULT_REGION`, the profile); `AWS_REGION` is for the caller to read."""
    endpoint_url: str | None = None
    """Every request goes there, whatever host stands in a queue's URL. `None`: `AWS_ENDPOINT_URL`, else AWS itself."""
    service_endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    """Those of services (`sqs`, `s3`, ...) that have one of their own."""
    credentials: Credentials | None = None
    """`None`: what the AWS SDK finds (environment, `AWS_PROFILE`, role), read anew when they expire."""

    def endpoint_for(self, service: str) -> str | None:
        """Return where requests to `service` (`sqs`, `sns`, ...) go."""
        return self.service_endpoint_urls.get(service, self.endpoint_url)


class AwsClients:
    """The clients of one process; an async context manager.

    Receives have their own connections, so long polls cannot starve deletes and extends. Entering raises
    `UsageError` when there is no region, no credentials, an unknown profile or an impossible endpoint.
    """

    def __init__(
        self, access: AwsAccess | None = None, *, receive_connections: int = 10, settle_connections: int = 10
    ) -> None:
        self._access = access or AwsAccess()
        self._session = self._new_session(None)
        self._account: tuple[str, str] | None = None
        self._blocking: Any = None
        self._making = threading.Lock()
        self.region = ""
        """Known once entered."""
        self.receive = self._channel("sqs", receive_connections, RECEIVE_READ_TIMEOUT_SECONDS)
        """SQS, for receives only: as many connections as receive loops of all queues."""
        self.settle = self._channel("sqs", settle_connections)
        """SQS, for everything else."""
        self.sns = self._channel("sns", settle_connections)
        self.dynamodb = self._channel("dynamodb", DYNAMODB_CONNECTIONS)
        """DynamoDB, for idempotency marks; its client is made at the first call."""
        self.sts = self._channel("sts", 1)

    async def __aenter__(self) -> Self:
        self.region = await self._find_what_is_needed()
        try:
            await self.receive.start()
            await self.settle.start()
        except (boto.BotoCoreError, ValueError) as error:
            await self.close()
            raise UsageError(
                f"no AWS client can be made for the region {self.region!r} and the endpoint "
                f"{self._access.endpoint_for('sqs')!r}: {error}; correct aws.region or aws.endpoint_url"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def blocking_sqs(self) -> Any:
        """Return a boto3 client of SQS for a thread without an event loop, always the same; may be asked from any thread.

        It is made when it is first asked for, because most processes never do. Calls end within a few seconds.
        """
        with self._making:
            if self._blocking is None:
                self._blocking = self._new_blocking_client()
            return self._blocking

    def _new_blocking_client(self) -> Any:
        session, fixed = BlockingSession(), self._access.credentials
        if fixed is not None:
            session.set_credentials(fixed.access_key_id, fixed.secret_access_key)
        config = Config(
            user_agent=f"longshore/{_version()}",
            retries={"mode": "standard", "total_max_attempts": 1},  # the watchdog looks again in half a second
            connect_timeout=_BLOCKING_TIMEOUT_SECONDS,
            read_timeout=_BLOCKING_TIMEOUT_SECONDS,
        )
        return session.create_client(
            "sqs", region_name=self.region, endpoint_url=self._access.endpoint_for("sqs"), config=config
        )

    async def close(self) -> None:
        """Close every connection."""
        for channel in (self.receive, self.settle, self.sns, self.dynamodb, self.sts):
            await channel.close()

    async def account(self) -> tuple[str, str]:
        """Return the partition and the account number that the credentials belong to; raise `SourceError`."""
        if self._account is None:
            identity = await self.sts.call("get_caller_identity")
            self._account = (identity["Arn"].split(":")[1], identity["Account"])
        return self._account

    def _channel(self, service: str, connections: int, read_timeout_seconds: int = _READ_TIMEOUT_SECONDS) -> Channel:
        config = AioConfig(
            user_agent=f"longshore/{_version()}",  # a fixed one: botocore's own is composed anew at every call
            parameter_validation=False,  # parameters come from our own code only
            retries={"mode": "standard", "total_max_attempts": 1},  # receive loops and settlement retry, by deadline
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            read_timeout=read_timeout_seconds,
            max_pool_connections=connections,
            # An endpoint of one's own seldom has a host name for each bucket.
            s3={"addressing_style": "path"} if self._access.endpoint_for(service) else None,
        )
        used: AioSession | None = None

        async def open_client(*, is_expired: bool) -> AbstractAsyncContextManager[Any]:
            nonlocal used
            if is_expired and used is self._session:  # else another channel has renewed it already
                self._session = self._new_session(self._session)
            used = self._session
            context: AbstractAsyncContextManager[Any] = used.create_client(
                service, region_name=self.region, endpoint_url=self._access.endpoint_for(service), config=config
            )
            return _in_the_lane(context) if service == "sqs" else context

        return Channel(open_client)

    def _new_session(self, old: AioSession | None) -> AioSession:
        """Make a session that looks for credentials afresh: a session never reads a shared file twice."""
        session = AioSession()
        session.register("before-parse.sqs", _refuse_what_is_no_json)
        if old is not None:  # what it has parsed of the service models stays good
            session.register_component("data_loader", old.get_component("data_loader"))
        if self._access.credentials is not None:
            fixed = self._access.credentials
            session.set_credentials(fixed.access_key_id, fixed.secret_access_key)
        return session

    async def _find_what_is_needed(self) -> str:
        """Return the region; load the credentials once, before many first calls would each ask their provider."""
        try:
            region = self._access.region or self._session.get_config_variable("region")
            credentials = await self._session.get_credentials()
        except boto.ProfileNotFound:
            raise UsageError(
                f"the AWS profile {self._session.profile!r} was not found in ~/.aws/config or ~/.aws/credentials: "
                f"correct AWS_PROFILE"
            ) from None
        except (boto.BotoCoreError, boto.ClientError, OSError) as error:
            raise UsageError(f"the AWS credentials cannot be loaded ({error}): {_REMEDY}") from None
        if not region:
            raise UsageError(
                "no AWS region was found in the fleet file, in AWS_REGION, in AWS_DEFAULT_REGION or in the AWS profile: "
                "set aws.region in the fleet file, or AWS_REGION"
            )
        if credentials is None:
            raise UsageError(
                f"no AWS credentials were found in the environment, in ~/.aws or from a container or instance role: "
                f"{_REMEDY}"
            )
        return str(region)


def _refuse_what_is_no_json(*, response_dict: Mapping[str, Any], operation_model: Any, **_: Any) -> None:
    """Raise where botocore does not: it takes a 200 whose body is cut short or HTML for an empty answer.

    An empty answer means that a queue is empty, or that a dead letter was taken.
    """
    if operation_model.service_model.resolved_protocol != "json" or response_dict["status_code"] != HTTPStatus.OK:
        return
    body: bytes = response_dict["body"]
    if body and not (body.startswith(b"{") and body.endswith(b"}")):
        raise ResponseParserError("the answer is no JSON object")


def _version() -> str:
    try:
        return metadata.version("longshore")
    except metadata.PackageNotFoundError:
        return "unknown"


@asynccontextmanager
async def _in_the_lane(context: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
    async with context as client:
        Lane.take(client)
        yield client
