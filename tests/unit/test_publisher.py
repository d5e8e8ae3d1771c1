"""Publishing: events share calls, every one gets its own answer, and nothing waits or is tried for ever."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker import Outgoing, Publisher, PublishError, PublishManyError, UsageError
from worker.errors import EntryError, Fault, SourceError
from worker.publisher.topic import Publication

THROTTLED = EntryError(Fault.THROTTLED, "ThrottledException", "Rate exceeded")
BROKEN = EntryError(Fault.INVALID, "InvalidParameter", "no")
OUTAGE = SourceError(Fault.UNAVAILABLE, "ServiceUnavailable")


class Wire:
    """A topic that notes every call and its time, takes a second for each, and answers as it is told."""

    def __init__(self, name: str = "orders", seconds: float = 1.0) -> None:
        self.name = name
        self.seconds = seconds
        self.calls: list[list[str]] = []
        self.started_at: list[float] = []
        self.on_the_wire = self.most_on_the_wire = 0
        self.errors: list[Exception | None] = []
        """What the next calls raise, in turn."""
        self.outage: Exception | None = None
        self.refusals: dict[str, list[EntryError]] = {}
        """What is answered to a body, one at a time."""
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        bodies = [publication.body for publication in publications]
        self.calls.append(bodies)
        self.started_at.append(now())
        self.on_the_wire += 1
        self.most_on_the_wire = max(self.most_on_the_wire, self.on_the_wire)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.on_the_wire -= 1
        error = self.errors.pop(0) if self.errors else self.outage
        if error is not None:
            raise error
        return [self.refusals[body].pop(0) if self.refusals.get(body) else f"id-{body}" for body in bodies]


def now() -> float:
    return asyncio.get_running_loop().time()


def numbers(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [("order.created", str(number)) for number in range(start, start + count)]


async def publish_all(publisher: Publisher, events: Sequence[tuple[str, str]]) -> list[str | PublishError]:
    """Publish concurrently, as many request handlers do."""

    async def one(event_type: str, event: str) -> str | PublishError:
        try:
            return await publisher.publish(event_type, event)
        except PublishError as error:
            return error

    return await asyncio.gather(*(one(*event) for event in events))


async def test_a_lone_event_waits_for_nobody() -> None:
    wire = Wire()
    async with Publisher(wire) as publisher:
        started = now()
        assert await publisher.publish("order.created", "1") == "id-1"
    assert wire.started_at == [started]


async def test_a_lone_event_after_others_waits_for_nobody() -> None:
    """The time for gathering ends with what was gathered."""
    wire = Wire(seconds=0.001)
    async with Publisher(wire) as publisher:
        first = asyncio.create_task(publisher.publish("order.created", "first"))
        await asyncio.sleep(0.0005)
        await publish_all(publisher, numbers(10))
        await first
        started = now()
        await publisher.publish("order.created", "lone")
    assert wire.started_at[-1] == started


async def test_concurrent_publishes_share_calls_of_ten() -> None:
    wire = Wire()
    async with Publisher(wire) as publisher:
        ids = await publish_all(publisher, numbers(25))
    assert [len(call) for call in wire.calls] == [10, 10, 5]
    assert ids == [f"id-{number}" for number in range(25)]


async def test_what_comes_while_a_call_is_on_the_wire_gathers_for_a_moment() -> None:
    wire = Wire()
    async with Publisher(wire) as publisher, asyncio.TaskGroup() as group:
        group.create_task(publisher.publish("order.created", "0"))
        await asyncio.sleep(0.1)
        for event in numbers(3, start=1):
            group.create_task(publisher.publish(*event))
            await asyncio.sleep(0.005)
    assert wire.calls == [["0"], ["1", "2", "3"]]
    assert 0.1 < wire.started_at[1] - wire.started_at[0] < 0.13


async def test_a_call_is_no_larger_than_the_topic_takes() -> None:
    """SNS counts bodies and attributes of the whole batch."""
    wire = Wire()
    async with Publisher(wire, max_bytes=10_000) as publisher:
        await publish_all(publisher, [("order.created", "x" * 4_000), *numbers(2), ("order.created", "y" * 4_000)] * 2)
    assert [sum(map(len, call)) // 1000 for call in wire.calls] == [8, 8]


async def test_a_call_that_is_full_of_bytes_does_not_gather() -> None:
    wire = Wire()
    async with Publisher(wire, max_bytes=10_000) as publisher, asyncio.TaskGroup() as group:
        group.create_task(publisher.publish("order.created", "first"))
        await asyncio.sleep(0.1)
        started = now()
        for text in ("x" * 6_000, "y" * 6_000):
            group.create_task(publisher.publish("order.created", text))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert wire.started_at[1:] == [started]


async def test_calls_in_flight_are_bounded_and_then_callers_wait() -> None:
    """A burst neither opens a hundred connections nor piles up in memory: publishes wait for room."""
    wire = Wire()
    accepted = 0

    def events() -> Iterator[tuple[str, str]]:
        nonlocal accepted
        for event in numbers(500):
            accepted += 1
            yield event

    async with Publisher(wire, batches_in_flight=2) as publisher:
        publishing = asyncio.create_task(publisher.publish_many(events()))
        await asyncio.sleep(0.5)
        assert accepted == 2 * 2 * 10 + 1
        assert len(await publishing) == 500
    assert wire.most_on_the_wire == 2
    assert wire.started_at[-1] - wire.started_at[0] == pytest.approx(24)


async def test_every_event_gets_its_own_answer() -> None:
    """Answers are read per entry, by position: one bad event does not fail its neighbours."""
    wire = Wire()
    wire.refusals = {"1": [BROKEN]}
    async with Publisher(wire) as publisher:
        first, second, third = await publish_all(publisher, numbers(3))
    assert (first, third) == ("id-0", "id-2")
    assert str(second) == (
        "order.created was not published to orders: SNS refuses it (InvalidParameter: no): correct the event, "
        "it will never be taken as it is"
    )
    assert isinstance(second, PublishError)
    assert (second.event_type, second.fault, second.code) == ("order.created", Fault.INVALID, "InvalidParameter")
    assert wire.calls == [["0", "1", "2"]]


async def test_only_what_may_pass_is_tried_again() -> None:
    wire = Wire()
    wire.refusals = {"0": [BROKEN], "1": [THROTTLED, THROTTLED]}
    async with Publisher(wire) as publisher:
        results = await publish_all(publisher, numbers(3))
    assert [type(result) for result in results] == [PublishError, str, str]
    assert wire.calls == [["0", "1", "2"], ["1"], ["1"]]


async def test_a_lost_answer_is_tried_again() -> None:
    """A call that fails as a whole is repeated: twice is possible, loss is not."""
    wire = Wire()
    wire.errors = [SourceError(Fault.TIMEOUT, "Deadline")]
    async with Publisher(wire) as publisher:
        assert await publisher.publish("order.created", "1") == "id-1"
    assert wire.calls == [["1"], ["1"]]


async def test_retries_are_jittered_and_end() -> None:
    """Delays grow, are never the same for all, and stop at the patience of the publisher."""
    wire = Wire(seconds=0.01)
    wire.outage = OUTAGE
    async with Publisher(wire, patience_seconds=30) as publisher:
        with pytest.raises(PublishError) as raised:
            await publisher.publish("order.created", "secret payload")
        assert now() - wire.started_at[0] <= 30.1
    assert str(raised.value) == (
        "order.created was not confirmed by orders: no answer but ServiceUnavailable in 30 s: publish it again later; "
        "it may then arrive twice"
    )
    delays = [later - earlier - 0.01 for earlier, later in zip(wire.started_at, wire.started_at[1:], strict=False)]
    assert max(delays) <= 5
    assert max(delays) > 1
    assert len(set(delays)) == len(delays)


async def test_an_outage_fails_what_waits_at_the_end_of_its_patience_too() -> None:
    """Whoever publishes in an outage waits about `patience_seconds`, however many are before them."""
    wire = Wire(seconds=1)
    wire.outage = OUTAGE
    async with Publisher(wire, patience_seconds=20, batches_in_flight=1) as publisher:
        started = now()
        results = await publish_all(publisher, numbers(100))
        assert now() - started < 23
    assert [type(result) for result in results] == [PublishError] * 100


async def test_a_long_queue_is_no_outage() -> None:
    """An event is not given up for those before it: the patience counts from the last event that SNS took."""
    wire = Wire(seconds=1)
    async with Publisher(wire, patience_seconds=5, batches_in_flight=1) as publisher:
        wire.errors = [None] * 9 + [OUTAGE]
        results = await publish_all(publisher, numbers(200))
    assert all(isinstance(result, str) for result in results)
    assert now() > 20


async def test_a_call_that_sns_refuses_as_a_whole_is_split() -> None:
    """One event that SNS will never take cannot take the others with it."""
    wire = Wire()
    wire.errors = [SourceError(Fault.INVALID, "BatchRequestTooLong"), None, SourceError(Fault.INVALID, "Invalid")]
    async with Publisher(wire) as publisher:
        results = await publish_all(publisher, numbers(3))
    assert [type(result) for result in results] == [str, PublishError, str]
    assert wire.calls == [["0", "1", "2"], ["0"], ["1"], ["2"]]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            Fault.MISSING,
            "the topic does not exist (Code: detail): create it with `longshore topology apply`, or correct its name, region or account",
        ),
        (Fault.DENIED, "AWS denies it (Code: detail): allow these credentials the action sns:Publish on the topic"),
    ],
)
async def test_what_cannot_heal_is_not_tried_again(fault: Fault, sentence: str) -> None:
    wire = Wire()
    wire.outage = SourceError(fault, "Code", "detail")
    async with Publisher(wire) as publisher:
        with pytest.raises(PublishError) as raised:
            await publisher.publish("order.created", "secret payload")
    assert str(raised.value) == f"order.created was not published to orders: {sentence}"
    assert len(wire.calls) == 1


async def test_credentials_that_expired_are_said() -> None:
    wire = Wire()
    wire.outage = SourceError(Fault.EXPIRED, "ExpiredToken")
    async with Publisher(wire, patience_seconds=1) as publisher:
        with pytest.raises(PublishError, match=r"AWS does not take the credentials \(ExpiredToken\): renew them"):
            await publisher.publish("order.created", "1")


async def test_many_are_answered_in_order() -> None:
    wire = Wire()
    async with Publisher(wire) as publisher:
        assert await publisher.publish_many(numbers(30)) == [f"id-{number}" for number in range(30)]
        assert await publisher.publish_many([]) == []


async def test_many_tell_which_failed_and_the_others_are_published() -> None:
    wire = Wire()
    wire.refusals = {"2": [BROKEN]}
    events: list[Outgoing | tuple[str, Any]] = [*numbers(3), Outgoing("order.created", ""), ("order.created", "4")]
    async with Publisher(wire) as publisher:
        with pytest.raises(PublishManyError) as raised:
            await publisher.publish_many(events)
    assert str(raised.value).startswith(
        "2 of 5 events were not published to orders; the first: order.created was not published to orders: SNS refuses"
    )
    assert [result if isinstance(result, str) else type(result) for result in raised.value.results] == [
        "id-0",
        "id-1",
        PublishError,
        PublishError,
        "id-4",
    ]


async def test_leaving_publishes_what_was_accepted() -> None:
    """`close` flushes: also what waits for the wire, and those who wait for room."""
    wire = Wire()
    publisher = Publisher(wire, batches_in_flight=1)
    await publisher.open()
    tasks = [asyncio.create_task(publisher.publish(*event)) for event in numbers(45)]
    await asyncio.sleep(0.5)
    await publisher.close()
    assert not wire.is_open
    assert [task.result() for task in tasks] == [f"id-{number}" for number in range(45)]
    await publisher.close()


async def test_receipts_need_not_be_awaited() -> None:
    """`submit` accepts, leaving publishes; an error that nobody asks for disturbs nobody."""
    wire = Wire()
    wire.refusals = {"1": [BROKEN]}
    async with Publisher(wire) as publisher:
        for event in numbers(3):
            await publisher.submit(Outgoing(*event))
    assert wire.calls == [["0", "1", "2"]]


async def test_a_closed_publisher_refuses() -> None:
    publisher = Publisher(Wire())
    sentence = "order.created was not published: the publisher of orders is not open: publish inside `async with"
    with pytest.raises(PublishError, match=sentence):
        await publisher.publish("order.created", "1")
    async with publisher:
        await publisher.publish("order.created", "1")
    with pytest.raises(PublishError, match=sentence):
        await publisher.publish("order.created", "1")


async def test_a_cancelled_close_leaves_nobody_waiting_and_nothing_running() -> None:
    wire = Wire(seconds=3600)
    publisher = Publisher(wire, batches_in_flight=1)
    await publisher.open()
    publishing = asyncio.create_task(publish_all(publisher, numbers(45)))
    await asyncio.sleep(1)
    closing = asyncio.create_task(publisher.close())
    await asyncio.sleep(1)
    closing.cancel()
    results = await publishing
    assert closing.cancelled()
    assert [type(result) for result in results] == [PublishError] * 45
    assert str(results[0]) == (
        "order.created was not confirmed by orders: its publisher was cancelled before SNS had answered: publish it again; "
        "it may then arrive twice"
    )
    assert not wire.is_open
    assert len(wire.calls) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_caller_that_gives_up_takes_its_event_back() -> None:
    """What was not sent yet is not sent; neighbours do not notice."""
    wire = Wire()
    async with Publisher(wire, batches_in_flight=1) as publisher:
        tasks = [asyncio.create_task(publisher.publish(*event)) for event in numbers(13)]
        await asyncio.sleep(0.5)
        tasks[3].cancel()  # on the wire already
        tasks[11].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert wire.calls == [[str(number) for number in range(10)], ["10", "12"]]
    assert [position for position, result in enumerate(results) if not isinstance(result, str)] == [3, 11]


async def test_what_nobody_waits_for_is_not_tried_again() -> None:
    wire = Wire()
    wire.outage = OUTAGE
    async with Publisher(wire) as publisher:
        publishing = asyncio.create_task(publisher.publish("order.created", "1"))
        await asyncio.sleep(0.5)
        publishing.cancel()
    assert wire.calls == [["1"]]


async def test_an_outage_is_logged_when_it_begins_and_when_it_ends() -> None:
    wire = Wire()
    wire.errors = [OUTAGE] * 5
    with capture_logs() as lines:
        async with Publisher(wire) as publisher:
            await publisher.publish_many(numbers(3))
    assert [line["event"] for line in lines] == ["publishing to orders fails", "publishing to orders works again"]


async def test_room_comes_back_from_all_that_ends() -> None:
    """Answers, refusals, cancellations and defects all give their room back, exactly once."""
    wire = Wire(seconds=0.01)
    wire.errors = [None, OUTAGE, ZeroDivisionError("a defect"), SourceError(Fault.INVALID, "Invalid")]
    wire.refusals = {"5": [BROKEN], "6": [THROTTLED]}
    async with Publisher(wire, batches_in_flight=1) as publisher:
        with capture_logs():
            for _ in range(3):
                tasks = [asyncio.create_task(publisher.publish(*event)) for event in numbers(33)]
                await asyncio.sleep(0)
                tasks[7].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        batches = publisher._batches
        assert batches is not None
        await asyncio.sleep(1)
        assert batches._room._value == 20


async def test_a_defect_of_a_topic_leaves_nobody_waiting() -> None:
    wire = Wire()
    wire.errors = [ZeroDivisionError("a defect")]
    async with Publisher(wire) as publisher:
        with capture_logs() as lines:
            assert await publisher.publish("order.created", "1") == "id-1"
    assert lines[0]["event"] == "a topic raised what it must not raise"


async def test_a_topic_that_answers_for_too_few_events_leaves_nobody_waiting() -> None:
    class Short(Wire):
        async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
            return (await super().publish(publications))[1:]

    async with Publisher(Short(), patience_seconds=3) as publisher:
        with capture_logs():
            assert [type(result) for result in await publish_all(publisher, numbers(2))] == [PublishError] * 2


async def test_a_fifo_topic_gets_one_call_at_a_time() -> None:
    """Two calls on two connections could arrive in the wrong order; a retry comes before what follows it."""
    wire = Wire("orders.fifo")
    wire.errors = [OUTAGE]
    async with Publisher(wire) as publisher:
        await publisher.publish_many(Outgoing(*event, group_id="g") for event in numbers(25))
    assert wire.most_on_the_wire == 1
    assert wire.calls[0] == wire.calls[1]
    assert [body for call in wire.calls[1:] for body in call] == [str(number) for number in range(25)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_bytes": 10}, "max_bytes of a Publisher is 10, but must be a number from 1,024 to 1,048,576"),
        ({"batches_in_flight": 0}, "batches_in_flight of a Publisher is 0, but must be a number from 1 to 1,000"),
        ({"patience_seconds": -1}, "patience_seconds of a Publisher is -1, but must be a number from 0 to 86,400"),
        ({"patience_seconds": "30"}, "patience_seconds of a Publisher is '30', but must be a number from 0 to 86,400"),
    ],
)
def test_impossible_limits_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Publisher(Wire(), **options)


def test_a_topic_that_is_no_name_is_refused() -> None:
    with pytest.raises(UsageError, match="the topic 'order events' must be a topic's name of 1 to 256 letters"):
        Publisher("order events")
    with pytest.raises(UsageError, match="must be an ARN of the form arn:aws:sns:REGION:ACCOUNT:NAME"):
        Publisher("arn:aws:sqs:us-east-1:000000000000:orders")
    assert Publisher("arn:aws:sns:us-east-1:000000000000:orders").topic == "orders"
