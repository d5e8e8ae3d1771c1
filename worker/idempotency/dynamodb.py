"""`DynamoStore`: marks in a DynamoDB table, for the processes of many machines."""

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

import structlog

from worker.aws.channel import Channel
from worker.errors import ConfigError, SourceError
from worker.idempotency.store import VERSION, Answer, Begun, Mark, Row, Running, StoreError, answer_to

__all__ = ["EXPIRY", "PARTITION_KEY", "SCHEME", "DynamoStore"]

R = TypeVar("R")

CALL_SECONDS: Final = 4.0
MOST_AT_ONCE: Final = 40
"""Items have no batch with conditions of their own: each is a call, side by side."""
VERSION_KEY: Final = "longshore:version"
SCHEME: Final = "dynamodb://"
PARTITION_KEY: Final = "key"
EXPIRY: Final = "expires_at"
"""The attribute of the time to live: when an item has ended, in seconds."""

_NAMES: Final = {"#key": "key", "#owner": "owner"}
"""Words that DynamoDB reserves."""
_FORGETS: Final = frozenset({"ENABLED", "ENABLING"})
_IS_OURS: Final = "#owner = :owner"
_HAS_ENDED: Final = "attribute_not_exists(#key) OR ends_at <= :now"

log = structlog.get_logger("idempotency")


class DynamoStore:
    """One item for each mark: one conditional write to begin, one to finish; where a key is not free, one read.

    DynamoDB has no clock to ask, so the machines' clocks must agree to a few seconds, as NTP keeps them. Its time to live
    deletes what has ended, by the attribute `expires_at`.
    """

    def __init__(self, channel: Channel, table: str, *, retention_seconds: float) -> None:
        self._channel = channel
        self._table = table
        self._retention_seconds = retention_seconds
        self._has_made_it = False
        self._room = asyncio.Semaphore(MOST_AT_ONCE)

    async def open(self) -> None:
        """Look at the table, and make it where there is none; raises `StoreError` until DynamoDB has made it."""
        if not await self.is_made():
            await self._make()
            self._has_made_it = True
            raise StoreError(f"the DynamoDB table {self._table} is being made")
        await self._write_version()
        if self._has_made_it:  # whoever made it by hand or from a template has said when it forgets
            await self._let_dynamodb_forget()
            self._has_made_it = False

    async def is_made(self) -> bool:
        """Look at the table, and at who wrote into it."""
        try:
            described = await self._call("describe_table")
        except StoreError as error:
            if _code(error) != "ResourceNotFoundException":
                raise
            return False
        if (schema := described["Table"]["KeySchema"]) != [{"AttributeName": "key", "KeyType": "HASH"}]:
            raise ConfigError(
                f"the DynamoDB table {self._table} has the key {schema}, but must have a partition key named key, of type S, "
                f"and no sort key: name another table"
            )
        if described["Table"]["TableStatus"] not in {"ACTIVE", "UPDATING"}:
            raise StoreError(f"the DynamoDB table {self._table} is {described['Table']['TableStatus']}")
        found = await self._call("get_item", Key={"key": {"S": VERSION_KEY}}, ConsistentRead=True)
        version = found["Item"]["version"]["N"] if "Item" in found else str(VERSION)
        if version != str(VERSION):
            raise ConfigError(
                f"the DynamoDB table {self._table} has version {version}, but this release reads {VERSION}: "
                f"run the release that wrote it, or name another table"
            )
        return True

    async def close(self) -> None:
        """Leave the connections to the process's AWS clients."""

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        """Mark as in progress what is free."""
        return await self._each([self._begin(mark) for mark in marks])

    async def finish(self, marks: Sequence[Mark]) -> None:
        """Mark as done."""
        ends_at = time.time() + self._retention_seconds
        await self._each([self._call("put_item", Item=_item(mark, ends_at, owner=None)) for mark in marks])

    async def release(self, marks: Sequence[Mark]) -> None:
        """Free the keys."""
        await self._each([self._change("delete_item", mark) for mark in marks])

    async def renew(self, marks: Sequence[Mark]) -> None:
        """Push the ends back."""
        await self._each(
            [
                self._change(
                    "update_item", mark, _ends(time.time() + mark.seconds), UpdateExpression="SET ends_at = :end, expires_at = :expiry"
                )
                for mark in marks
            ]
        )  # fmt: skip

    async def prune(self) -> int:
        """Leave it to DynamoDB's time to live."""
        return 0

    async def doubts(self) -> list[str]:
        """Ask whether DynamoDB forgets what has ended; a worker need not be allowed to."""
        try:
            told = (await self._call("describe_time_to_live"))["TimeToLiveDescription"]
        except StoreError:
            return []
        if told.get("TimeToLiveStatus") in _FORGETS and told.get("AttributeName", EXPIRY) == EXPIRY:
            return []
        return [f"it has no time to live on the attribute {EXPIRY}, so that marks are never deleted: enable it"]

    async def _begin(self, mark: Mark) -> Answer:
        now = time.time()
        is_free = f"{_HAS_ENDED} OR ({_IS_OURS} AND fingerprint = :fingerprint)"
        begins = self._if_it_holds(
            "put_item",
            Item=_item(mark, now + mark.seconds, owner=mark.owner),
            ConditionExpression=is_free,
            ExpressionAttributeNames=_NAMES,
            ExpressionAttributeValues={
                ":now": {"N": str(now)},
                ":owner": {"S": mark.owner},
                ":fingerprint": {"S": mark.fingerprint},
            },
        )
        if await begins:
            return Begun()
        found = await self._call("get_item", Key={"key": {"S": mark.key}}, ConsistentRead=True)
        answer = answer_to(mark, _row(found.get("Item")), time.time())
        return Running(0) if isinstance(answer, Begun) else answer  # let go since then: free in a moment

    async def _change(
        self, operation: str, mark: Mark, values: dict[str, Any] | None = None, **parameters: Any
    ) -> bool:
        """Delete or update the item where it is its owner's."""
        return await self._if_it_holds(
            operation,
            Key={"key": {"S": mark.key}},
            ConditionExpression=_IS_OURS,
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":owner": {"S": mark.owner}, **(values or {})},
            **parameters,
        )

    async def _if_it_holds(self, operation: str, **parameters: Any) -> bool:
        try:
            await self._call(operation, **parameters)
        except StoreError as error:
            if _code(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    async def _write_version(self) -> None:
        item = {"key": {"S": VERSION_KEY}, "version": {"N": str(VERSION)}}
        await self._if_it_holds(
            "put_item",
            Item=item,
            ConditionExpression="attribute_not_exists(#key)",
            ExpressionAttributeNames={"#key": "key"},
        )

    async def _let_dynamodb_forget(self) -> None:
        """Have what has ended deleted; without it the table grows, but every answer is right."""
        ttl = {"Enabled": True, "AttributeName": EXPIRY}
        try:
            await self._call("update_time_to_live", TimeToLiveSpecification=ttl)
        except StoreError as error:
            if _code(error) != "ValidationException":  # it is enabled already
                log.warning("time to live cannot be enabled: see that it is, on the attribute expires_at", table=self._table, error=str(error))  # fmt: skip

    async def _make(self) -> None:
        try:
            await self._call(
                "create_table",
                AttributeDefinitions=[{"AttributeName": PARTITION_KEY, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": PARTITION_KEY, "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except StoreError as error:
            if _code(error) != "ResourceInUseException":  # another process makes it
                raise

    async def _each(self, calls: Sequence[Awaitable[R]]) -> list[R]:
        """Make the calls side by side; each ends before the first failure is raised."""
        ended = await asyncio.gather(*calls, return_exceptions=True)
        return [_raised(each) for each in ended]

    async def _call(self, operation: str, **parameters: Any) -> Any:
        async with self._room:
            try:
                return await self._channel.call(operation, deadline=CALL_SECONDS, TableName=self._table, **parameters)
            except SourceError as error:
                raise StoreError(f"the DynamoDB table {self._table}: {error}") from error


def _raised(ended: R | BaseException) -> R:
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _code(error: StoreError) -> str:
    """Return what DynamoDB calls the failure."""
    return error.__cause__.code if isinstance(error.__cause__, SourceError) else ""


def _ends(at: float) -> dict[str, Any]:
    """Return the end for conditions, and in whole seconds for the time to live."""
    return {":end": {"N": str(at)}, ":expiry": {"N": str(math.ceil(at))}}


def _item(mark: Mark, ends_at: float, *, owner: str | None) -> dict[str, Any]:
    """Return what is kept of a mark; without an owner it is done."""
    end = _ends(ends_at)
    item = {
        "key": {"S": mark.key},
        "fingerprint": {"S": mark.fingerprint},
        "ends_at": end[":end"],
        "expires_at": end[":expiry"],
    }
    return item if owner is None else {**item, "owner": {"S": owner}}


def _row(item: dict[str, Any] | None) -> Row | None:
    if item is None:
        return None
    owner = item.get("owner")
    return Row(item["fingerprint"]["S"], None if owner is None else owner["S"], float(item["ends_at"]["N"]))
