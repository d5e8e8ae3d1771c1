"""How a handler names its business key, and what of it a store is told (I1)."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from worker import ConfigError, Message, PermanentError, Router
from worker.idempotency import IdempotencyKey, KeySource, fingerprint_of


class Kind(StrEnum):
    NEW = "new"


class Customer(BaseModel):
    id: int


class Order(BaseModel):
    order_id: str = "1"
    customer: Customer = Customer(id=7)
    kind: Kind = Kind.NEW

    @property
    def both(self) -> str:
        return f"{self.order_id}/{self.customer.id}"


@dataclass
class Payment:
    order: Order


def read(source: KeySource, event: object) -> str:
    return IdempotencyKey(source, owner="handler `x`").read(event)


@pytest.mark.parametrize(
    ("source", "event"),
    [
        ("order_id", {"order_id": "1"}),
        ("order_id", Order()),
        ("order.order_id", Payment(Order())),
        ("order.order_id", {"order": {"order_id": "1", "more": 2}}),
        (("order_id",), Order()),
        (lambda order: order.order_id, Order()),
        (lambda order: [order.order_id], Order()),
        ("n", {"n": 1}),
        ("n", {"n": Decimal(1)}),
    ],
)
def test_the_same_value_is_the_same_key_wherever_it_stands(source: KeySource, event: object) -> None:
    """So a key survives a change of the event's shape."""
    assert read(source, event) == read("order_id", {"order_id": "1"})


def test_several_fields_are_one_key_without_ambiguity() -> None:
    first = read(("a", "b"), {"a": "1", "b": "23"})
    assert first != read(("a", "b"), {"a": "12", "b": "3"})
    assert first != read("a", {"a": "123"})
    assert read(["kind", "customer.id"], Order()) == read(lambda _: ("new", 7), None)


def test_uuids_and_properties_name_work_too() -> None:
    assert read("id", {"id": UUID(int=5)}) == read("id", {"id": str(UUID(int=5))})
    assert read("both", Order()) == read("x", {"x": "1/7"})


def test_a_key_tells_nothing_of_its_value() -> None:
    """It stands in stores and logs."""
    assert "secret" not in read("email", {"email": "secret"})
    assert len(read("email", {"email": "x" * 10_000})) == 64


@pytest.mark.parametrize(
    ("source", "event", "told"),
    [
        ("order.id", {"order": {}}, "the payload's order.id is missing"),
        ("order.id", {"order": None}, "the payload's order.id is missing"),
        ("order.id", "text", "the payload's order.id is missing"),
        ("id", {"id": True}, "the payload's id is a bool, which names nothing"),
        ("id", {"id": 1.5}, "the payload's id is a float, which names nothing"),
        ("id", {"id": ["secret"]}, "the payload's id is a list, which names nothing"),
        ("id", {"id": " "}, "the payload's id is empty"),
        ("id", {"id": "\ud800"}, "the payload's id has lone surrogates"),
        (lambda _: None, {}, "what its function returns is missing"),
        (lambda _: (), {}, "its function returns an empty sequence"),
        (lambda event: event["nested"]["id"], {}, "its function raised KeyError"),
        (lambda event: int(event["n"]), {"n": "secret"}, "its function raised ValueError"),
    ],
)
def test_an_event_without_its_key_can_never_succeed(source: KeySource, event: object, told: str) -> None:
    with pytest.raises(PermanentError) as refused:
        read(source, event)
    assert refused.value.reason == f"no idempotency key: {told}"


@pytest.mark.parametrize("source", ["", "order.", ".id", (), (1,), 5, [""]])
def test_what_can_never_name_a_key_is_refused_at_decoration(source: Any) -> None:
    with pytest.raises(ConfigError, match=r"idempotency_key=.*allowed is a field of the event"):
        Router().on("*", idempotency_key=source)(handle)


def test_a_field_that_a_model_does_not_have_is_refused_at_the_start() -> None:
    router = Router()

    @router.on("*", idempotency_key="order_ids")
    async def handle_order(_: Message[Order]) -> None: ...

    with pytest.raises(ConfigError, match="Order has no field order_ids; it has order_id, customer, kind"):
        router.check()


@pytest.mark.parametrize("source", ["order_id", "both", "customer.id"])
def test_fields_and_properties_of_a_model_are_taken(source: str) -> None:
    router = Router()

    @router.on("*", idempotency_key=source)
    async def handle_order(_: Message[Order]) -> None: ...

    router.check()


async def handle(_: Message[Any]) -> None: ...


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ('{"a": 1, "b": 2}', ' {"b":2,"a":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": "ä"}', '{"a": "\\u00e4"}', True),
        ("text", "text", True),
        ("text", "text ", False),
        ("\ud800", "\ud801", False),
    ],
)
def test_a_fingerprint_is_of_what_the_json_says(one: str, other: str, *, is_same: bool) -> None:
    assert (fingerprint_of(one) == fingerprint_of(other)) is is_same


def test_a_function_may_be_any_callable() -> None:
    class Named:
        def __call__(self, event: Any) -> str:
            return str(event["id"])

    source: Callable[[Any], Any] = Named()
    assert read(source, {"id": 1}) == read("id", {"id": 1})
