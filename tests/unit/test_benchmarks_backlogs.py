"""The stub's FIFO queue behaves as SQS's: groups in order, locked while in flight, so that lanes have what they would have."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.backlogs import GROUPS, Backlog, GroupedBacklog, backlog_of
from benchmarks.handlers import batches
from benchmarks.sqs import StubSqs
from benchmarks.stub import Polls, serve
from benchmarks.workers import BATCHES, FIFO, PLAIN, fleet_of
from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.aws.sqs import SqsSource
from worker.message import Received
from worker.settings import load
from worker.source import ReceiveRequest

ORDERS = {"QueueUrl": "http://127.0.0.1/000000000000/orders.fifo"}
TEN = ReceiveRequest(limit=10, wait_seconds=0, visibility_timeout_seconds=30)


@pytest.fixture
def sqs() -> StubSqs:
    return StubSqs("orders.fifo")


@pytest.fixture
async def source(sqs: StubSqs) -> AsyncIterator[SqsSource]:
    """What the worker consumes from, on the stub."""
    async with await serve(sqs):
        access = AwsAccess("us-east-1", sqs.endpoint, credentials=Credentials("stub", "stub"))
        async with AwsClients(access) as clients:
            yield SqsSource(clients, "orders.fifo", dead_letter="orders-dlq.fifo")


def group_of(messages: list[Received]) -> str | None:
    """Return the one group that all messages are of."""
    (group,) = {message.group_id for message in messages}
    return group


class TestGroups:
    def test_a_receive_gets_the_next_of_one_group(self) -> None:
        backlog = GroupedBacklog()
        first = list(backlog.take(10))
        assert {number % GROUPS for number in first} == {0}
        assert first == sorted(first)
        assert {number % GROUPS for number in backlog.take(3)} == {1}
        assert backlog.in_flight == 13

    def test_a_group_is_locked_until_all_of_it_is_deleted(self) -> None:
        backlog = GroupedBacklog()
        taken = [list(backlog.take(2)) for _ in range(GROUPS)]
        assert not backlog.has_messages
        assert list(backlog.take(10)) == []
        assert backlog.delete(taken[7][:1]) == 1
        assert not backlog.has_messages
        assert backlog.delete(taken[7]) == 1  # the first is gone already
        assert list(backlog.take(2)) == [2 * GROUPS + 7, 3 * GROUPS + 7]

    def test_what_is_given_back_comes_again_in_its_place(self) -> None:
        backlog = GroupedBacklog()
        taken = list(backlog.take(4))
        backlog.give_back(reversed(taken[1:3]))
        assert backlog.delete(taken[1:3]) == 0
        backlog.delete([taken[0], taken[3]])
        for _ in range(1, GROUPS):
            backlog.take(1)
        assert list(backlog.take(3)) == [taken[1], taken[2], 4 * GROUPS]

    def test_no_message_comes_twice_and_none_is_left_out(self) -> None:
        """However many are asked for and in whatever order they are deleted."""
        backlog, seen = GroupedBacklog(), defaultdict[int, list[int]](list)
        for turn in range(1_000):
            numbers = list(backlog.take(turn % 10 + 1))
            for number in numbers:
                seen[number % GROUPS].append(number // GROUPS)
            assert backlog.delete(reversed(numbers)) == len(numbers)
        assert all(positions == list(range(len(positions))) for positions in seen.values())
        assert backlog.in_flight == 0

    def test_a_standard_queue_has_no_groups(self) -> None:
        backlog = backlog_of("orders")
        assert type(backlog) is Backlog
        assert list(backlog.take(3)) == [0, 1, 2]
        assert backlog.delete([1, 7]) == 1
        backlog.give_back([0])
        assert backlog.in_flight == 1


@pytest.mark.real_time
async def test_the_worker_sees_groups_in_order(sqs: StubSqs, source: SqsSource) -> None:
    """Longshore's own client reads the group and the sequence number of every message."""
    first, second = await source.receive(TEN), await source.receive(TEN)
    assert (group_of(first), group_of(second)) == ("customer-000", "customer-001")
    numbers = [message.sequence_number or "" for message in first]
    assert numbers == sorted(numbers)
    assert {len(number) for number in numbers} == {20}
    assert all(message.deduplication_id for message in first)
    assert await source.delete([message.receipt for message in first]) == [None] * 10
    assert await source.extend([(message.receipt, 0) for message in second]) == [None] * 10
    assert (await source.depth()).in_flight == 0
    assert (await source.describe()).redrive_target == "orders-dlq.fifo"
    assert sqs.deleted == {"orders.fifo": 10}
    groups = [group_of(await source.receive(TEN)) for _ in range(GROUPS)]
    assert groups[-2:] == ["customer-000", "customer-001"]
    assert await source.receive(TEN) == []  # all are locked


@pytest.mark.real_time
async def test_a_poll_ends_once_a_group_is_unlocked(source: SqsSource) -> None:
    """And takes that group, while another poll goes on waiting."""
    taken = [await source.receive(TEN) for _ in range(GROUPS)]
    polls = [asyncio.create_task(source.receive(replace(TEN, wait_seconds=20))) for _ in range(2)]
    await asyncio.sleep(0.2)  # they are on the wire by then
    await source.delete([message.receipt for message in taken[5]])
    done, waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
    assert [group_of(poll.result()) for poll in done] == ["customer-005"]
    assert len(waiting) == 1
    for poll in waiting:
        poll.cancel()


def test_polls_that_want_the_same_are_not_all_ended(sqs: StubSqs) -> None:
    """One group is unlocked: the first poll has it, the others are not answered with nothing."""
    polls, ended = Polls(sqs), list[bytes]()
    taken: list[dict[str, Any]] = []
    for _ in range(GROUPS):
        taken += orjson.loads(sqs.answer("ReceiveMessage", {**ORDERS, "MaxNumberOfMessages": 1}))["Messages"]

    def waiting(number: int) -> Callable[[], None]:
        def end() -> None:
            polls.forget(end)
            ended.append(sqs.answer("ReceiveMessage", {**ORDERS, "MaxNumberOfMessages": number}))

        return end

    for number in (1, 2, 3):
        polls.wait({**ORDERS, "MaxNumberOfMessages": number}, waiting(number))
    sqs.answer("DeleteMessageBatch", {**ORDERS, "Entries": [{"Id": "0", "ReceiptHandle": taken[0]["ReceiptHandle"]}]})
    polls.wake()
    assert [answer.count(b"ReceiptHandle") for answer in ended] == [1]


@pytest.mark.parametrize(("queue", "calls"), [(PLAIN, 40), (FIFO, 100), (BATCHES, 4)])
def test_every_measured_worker_has_a_fleet_file(tmp_path: Path, queue: str, calls: int) -> None:
    """Valid, with its journals where they end with the benchmark, and with the queue's kind."""
    fleet = load(fleet_of(queue, str(tmp_path)), environ={})
    (settings,) = fleet.queues.values()
    assert (settings.name, settings.max_concurrency, settings.is_fifo) == (queue, calls, queue == FIFO)
    assert fleet.state_dir == str(tmp_path)
    assert settings.breaker != "none"


def test_the_handler_of_batches_takes_two_hundred() -> None:
    assert batches.largest_batch == 200
