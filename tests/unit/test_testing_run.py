"""`run`: one event through one router, as production would decide it."""

# ruff: noqa: ARG001 - handlers of a test need not look at their message

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from worker import Ack, ConfigError, DeadLetter, Message, Outcome, PermanentError, Retry, Router, TransientError
from worker.testing import virtual_time
from worker.testing.run import FakeLease, run


class Order(BaseModel):
    order_id: str


@dataclass
class Line:
    sku: str


class Totals(TypedDict):
    total: int


def recording(pattern: str, annotation: Any) -> tuple[Router, list[Message[Any]]]:
    """Return a router with one handler of that annotation, and what it will see."""
    router, seen = Router(), []

    async def handle(message: Message[Any]) -> None:
        seen.append(message)

    handle.__annotations__["message"] = Message[annotation]
    router.on(pattern)(handle)
    return router, seen


async def test_an_event_of_the_handlers_type_is_handed_over_as_it_is() -> None:
    """The event type is the pattern of the one handler annotated with its class."""
    router, seen = recording("order.created", Order)
    order = Order(order_id="1")
    assert await run(router, order) == Ack()
    assert seen[0].event is order
    assert (seen[0].event_type, seen[0].body) == ("order.created", '{"order_id":"1"}')
    assert seen[0].attributes == {"event_type": "order.created"}


@pytest.mark.parametrize(
    ("annotation", "event", "expected"),
    [
        (Order, {"order_id": "1"}, Order(order_id="1")),
        (Order, '{"order_id": "1"}', Order(order_id="1")),
        (Order, b'{"order_id": "1"}', Order(order_id="1")),
        (Line, {"sku": "a"}, Line("a")),
        (Totals, {"total": "1"}, {"total": 1}),
        (dict, {"a": 1}, {"a": 1}),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (str, "text", "text"),
        (bytes, b"text", b"text"),
        (Any, [1], [1]),
    ],
)
async def test_anything_else_is_a_body(annotation: Any, event: object, expected: object) -> None:
    router, seen = recording("order.created", annotation)
    await run(router, event, event_type="order.created")
    assert seen[0].event == expected


async def test_a_payload_that_does_not_fit_is_dead_lettered_as_in_production() -> None:
    router, seen = recording("order.created", Order)
    assert await run(router, {"id": "1"}, event_type="order.created") == DeadLetter(
        "the payload does not fit Order (order_id: missing)"
    )
    assert seen == []


@pytest.mark.parametrize(
    ("event", "attributes"),
    [({"event": "order.created"}, {}), ({}, {"event_type": "order.created"}), ('{"type": "order.created"}', {})],
)
async def test_attributes_and_body_name_the_event_type_as_in_production(
    event: object, attributes: dict[str, str]
) -> None:
    router, seen = recording("order.*", Any)
    await run(router, event, attributes=attributes)
    assert seen[0].event_type == "order.created"


async def test_the_body_of_a_dict_goes_before_its_class() -> None:
    """Many handlers may take a dict; only what production would read tells them apart."""
    router = Router()

    @router.on("a")
    async def handle_a(message: Message[dict]) -> None: ...  # type: ignore[type-arg]  # a bare dict is allowed

    @router.on("b")
    async def handle_b(message: Message[Any]) -> Outcome:
        return Ack("b")

    assert await run(router, {"type": "b"}) == Ack("b")


def test_a_sync_handler_runs_in_virtual_time_too() -> None:
    router = Router()

    @router.on("*")
    def handle(message: Message[str]) -> Outcome:
        return Ack(message.event)

    assert virtual_time.run(run(router, "text")) == Ack("text")


async def test_a_handler_of_everything_takes_an_event_without_a_type() -> None:
    router, seen = recording("*", Order)
    await run(router, Order(order_id="1"))
    assert seen[0].event_type is None


async def test_an_event_type_that_cannot_be_told_is_asked_for() -> None:
    router, _ = recording("order.*", Order)
    with pytest.raises(
        ConfigError, match=r"event type of a Order cannot be told: it is taken by `order\.\*` \(.*give `event_type=`"
    ):
        await run(router, Order(order_id="1"))
    with pytest.raises(ConfigError, match=r"no handler takes an event with no event type; the router has `order\.\*`"):
        await run(router, {"order_id": "1"})
    with pytest.raises(ConfigError, match=r"no handler takes an event with the event type 'invoice'"):
        await run(router, {"order_id": "1"}, event_type="invoice")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TransientError("busy", retry_after=60), Retry(after=60, reason="busy")),
        (TransientError(), Retry(reason="TransientError")),
        (PermanentError("sold out"), DeadLetter("sold out")),
    ],
)
async def test_the_two_errors_of_a_handler_are_outcomes(error: Exception, outcome: Outcome) -> None:
    router = Router()

    @router.on("*")
    async def handle(message: Message[str]) -> None:
        raise error

    result = await run(router, "")
    assert result == outcome
    assert not isinstance(result, Ack)
    assert result.error is error


async def test_every_other_error_is_raised_for_the_test_to_show() -> None:
    router = Router()

    @router.on("*")
    async def handle(message: Message[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(router, "")


def test_the_handlers_own_timeout_holds() -> None:
    router = Router()

    @router.on("*", timeout=5)
    async def handle(message: Message[str]) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        virtual_time.run(run(router, ""))


async def test_the_lifespan_is_entered_unless_a_state_is_given() -> None:
    entered: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        entered.append("in")
        yield "ledger"
        entered.append("out")

    router = Router(lifespan=lifespan)

    @router.on("*")
    async def handle(message: Message[str]) -> Ack:
        return Ack(message.state)

    assert await run(router, "") == Ack("ledger")
    assert entered == ["in", "out"]
    assert await run(router, "", state="fake") == Ack("fake")
    assert entered == ["in", "out"]


async def test_a_test_says_what_the_message_is() -> None:
    router, seen = recording("*", str)
    lease = FakeLease()
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    await run(
        router,
        "",
        attributes={"a": b"\x00"},
        receive_count=3,
        lease=lease,
        published_at=moment,
        group_id="g",
        queue="q",
    )
    message = seen[0]
    assert (message.receive_count, message.lease, message.published_at) == (3, lease, moment)
    assert (message.group_id, message.queue, message.attributes) == ("g", "q", {"a": b"\x00"})
    await message.lease.extend(60)
    assert (lease.extended, message.lease.remaining_seconds, message.lease.is_lost) == ([60], 60, False)


async def test_a_router_that_cannot_work_is_told() -> None:
    with pytest.raises(ConfigError, match="the router has no handlers"):
        await run(Router(), "")


@pytest.mark.parametrize("is_downstream", [True, False])
async def test_whether_a_failure_lies_downstream_is_kept(*, is_downstream: bool) -> None:
    router = Router()

    @router.on("*")
    async def handle(_: Message[str]) -> None:
        raise TransientError("busy", is_downstream=is_downstream)

    outcome = await run(router, "{}")
    assert isinstance(outcome, Retry)
    assert outcome.is_downstream is is_downstream
