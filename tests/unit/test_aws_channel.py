"""Rules of `worker.aws.channel`, with AWS clients that do as they are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from worker.aws import channel as channel_module
from worker.aws.channel import Channel
from worker.errors import Fault, SourceError

SOON = 0.02


class Aws:
    """Builds clients whose one operation, `ask`, behaves as the last one of `behaviour` says."""

    def __init__(self) -> None:
        self.built: list[bool] = []
        """For each client, whether credentials were to be read anew."""
        self.closed: list[int] = []
        self.behaviour: Callable[[int], Any] = lambda number: asyncio.sleep(0, number)

    async def open(self, *, is_expired: bool) -> AbstractAsyncContextManager[Any]:
        self.built.append(is_expired)
        return self._client(len(self.built))

    @asynccontextmanager
    async def _client(self, number: int) -> AsyncIterator[Any]:
        class Client:
            async def ask(client) -> Any:  # noqa: N805 - `self` is Aws
                return await self.behaviour(number)

        yield Client()
        self.closed.append(number)


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture(autouse=True)
def _rebuild_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_REBUILD_INTERVAL_SECONDS", 0)


async def hangs(_number: int) -> None:
    await asyncio.Event().wait()


async def expired(_number: int) -> None:
    raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "old"}}, "Ask")


async def time_out(channel: Channel, times: int) -> None:
    for _ in range(times):
        with pytest.raises(SourceError) as raised:
            await channel.call("ask", deadline=SOON)
        assert raised.value.fault is Fault.TIMEOUT


async def test_the_client_is_built_once(aws: Aws) -> None:
    channel = Channel(aws.open)
    assert await asyncio.gather(*(channel.call("ask") for _ in range(5))) == [1] * 5
    await channel.close()
    assert (aws.built, aws.closed) == ([False], [1])


async def test_three_missed_deadlines_in_a_row_rebuild_the_client(aws: Aws) -> None:
    """A client that hangs again and again is replaced, so that a stuck pool heals without a restart (R5)."""
    channel = Channel(aws.open)
    aws.behaviour = hangs
    await time_out(channel, 3)
    aws.behaviour = lambda number: asyncio.sleep(0, number)
    assert await channel.call("ask") == 2
    await channel.close()
    assert (aws.built, aws.closed) == ([False, False], [1, 2])
    assert (channel.deadline_hits, channel.rebuilds) == (3, 1)


async def test_an_answer_in_between_starts_the_count_anew(aws: Aws) -> None:
    channel = Channel(aws.open)
    for _ in range(2):
        aws.behaviour = hangs
        await time_out(channel, 2)
        aws.behaviour = lambda number: asyncio.sleep(0, number)
        assert await channel.call("ask") == 1
    await channel.close()


async def test_expired_credentials_are_read_anew_by_the_next_call(aws: Aws) -> None:
    """Credentials that have expired heal without a restart (R6)."""
    channel = Channel(aws.open)
    aws.behaviour = expired
    with pytest.raises(SourceError) as raised:
        await channel.call("ask")
    assert raised.value.fault is Fault.EXPIRED
    aws.behaviour = lambda number: asyncio.sleep(0, number)
    assert await channel.call("ask") == 2
    assert aws.built == [False, True]
    await channel.close()


async def test_a_lasting_fault_does_not_rebuild_at_every_call(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_REBUILD_INTERVAL_SECONDS", 60)
    channel = Channel(aws.open)
    aws.behaviour = expired
    for _ in range(20):
        with pytest.raises(SourceError):
            await channel.call("ask")
    assert aws.built == [False]
    await channel.close()


async def test_the_old_client_is_closed_when_its_last_call_has_ended(aws: Aws) -> None:
    """A rebuild does not cut the calls that still go well on the old client (R5)."""
    channel = Channel(aws.open)
    started, answer = asyncio.Event(), asyncio.Event()

    async def waits(number: int) -> int:
        started.set()
        await answer.wait()
        return number

    aws.behaviour = waits
    slow = asyncio.create_task(channel.call("ask", deadline=600))
    await started.wait()
    aws.behaviour = hangs
    await time_out(channel, 3)
    aws.behaviour = lambda number: asyncio.sleep(0, number)
    assert await channel.call("ask") == 2
    await asyncio.sleep(SOON)
    assert aws.closed == []
    answer.set()
    assert await slow == 1
    await asyncio.sleep(SOON)
    assert aws.closed == [1]
    await channel.close()


async def test_building_the_client_stands_under_the_deadline() -> None:
    """A credential provider that hangs cannot hang a call (R5)."""

    async def never_opens(*, is_expired: bool) -> AbstractAsyncContextManager[Any]:
        assert not is_expired
        return await asyncio.Future[AbstractAsyncContextManager[Any]]()

    await time_out(Channel(never_opens), 1)


async def test_unforeseen_errors_are_source_errors(aws: Aws) -> None:
    async def breaks(_number: int) -> None:
        raise ZeroDivisionError

    channel = Channel(aws.open)
    aws.behaviour = breaks
    with pytest.raises(SourceError, match="ZeroDivisionError"):
        await channel.call("ask")
    await channel.close()


async def test_cancelling_the_caller_ends_the_call(aws: Aws) -> None:
    channel = Channel(aws.open)
    ended = asyncio.Event()

    async def notices(_number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    aws.behaviour = notices
    caller = asyncio.create_task(channel.call("ask"))
    await asyncio.sleep(SOON)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
    await channel.close()
