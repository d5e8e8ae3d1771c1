"""What a handler's annotation makes of a payload, and which functions cannot be handlers."""

# ruff: noqa: ARG001, ARG005 - handlers of a test need not look at their message

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from typing_extensions import TypedDict

from worker import ConfigError, InvalidPayloadError, Message
from worker.aws.envelope import Decoded
from worker.router import Route, Router


class Order(BaseModel):
    order_id: str
    amount: Decimal


@dataclass
class Line:
    sku: str
    count: int = 1


class Node(BaseModel):
    next: "Node | None"


class Totals(TypedDict):
    total: int


def decoded(payload: str, event_type: str | None = None) -> Decoded:
    return Decoded(body=payload, attributes={}, event_type=event_type, payload=payload, published_at=None)


def route_of(handler: Callable[..., Any]) -> Route:
    router = Router()
    router.on("*")(handler)
    return router.routes[0]


async def ignore(message: Message) -> None:  # type: ignore[type-arg]  # a bare Message is allowed
    pass


async def takes_model(message: Message[Order]) -> None: ...
async def takes_dataclass(message: Message[Line]) -> None: ...
async def takes_typed_dict(message: Message[Totals]) -> None: ...
async def takes_dict(message: Message[dict]) -> None: ...  # type: ignore[type-arg]  # a bare dict is allowed
async def takes_list(message: Message[list[int]]) -> None: ...
async def takes_text(message: Message[str]) -> None: ...
async def takes_bytes(message: Message[bytes]) -> None: ...
async def takes_any(message: Message[Any]) -> None: ...
async def takes_node(message: Message[Node]) -> None: ...
async def takes_annotated(message: Annotated[Message[Annotated[int, Field(gt=0)]], "note"]) -> None: ...
async def takes_quoted(message: "Message[Order]") -> None: ...


class TestEvents:
    @pytest.mark.parametrize(
        ("handler", "payload", "event"),
        [
            (takes_model, '{"order_id": "1", "amount": "9.90"}', Order(order_id="1", amount=Decimal("9.90"))),
            (takes_quoted, '{"order_id": "1", "amount": 1}', Order(order_id="1", amount=Decimal(1))),
            (takes_dataclass, '{"sku": "a"}', Line("a")),
            (takes_typed_dict, '{"total": 1}', {"total": 1}),
            (takes_dict, '{"a": [1]}', {"a": [1]}),
            (takes_list, "[1, 2]", [1, 2]),
            (takes_annotated, "3", 3),
            (takes_text, '{"a": 1}', '{"a": 1}'),
            (takes_bytes, "ü", b"\xc3\xbc"),
            (takes_any, '{"id": 123456789012345678901234567890}', {"id": 123456789012345678901234567890}),
            (takes_any, "no JSON", "no JSON"),
            (takes_any, "NaN", "NaN"),
            (takes_any, "", ""),
            (ignore, "[1]", [1]),
        ],
    )
    def test_the_annotation_says_what_the_event_is(self, handler: Any, payload: str, event: object) -> None:
        found = route_of(handler).event_of(decoded(payload))
        assert found == event
        assert type(found) is type(event)

    def test_what_does_not_fit_is_told_by_place_and_kind(self) -> None:
        class Basket(BaseModel):
            model_config = ConfigDict(extra="forbid")
            user_id: str
            amount: int = Field(alias="Amount")
            lines: list[Line]
            prices: dict[str, int]
            token: SecretStr

        async def handle(message: Message[Basket]) -> None: ...

        body = '{"user_id": 7, "lines": [{"sku": "a"}, {"sku": {}}], "prices": {"hush": "hush"}, "hush": 1, "token": 5}'
        with pytest.raises(InvalidPayloadError) as caught:
            route_of(handle).event_of(decoded(body))
        assert str(caught.value) == (
            "the payload does not fit Basket (user_id: string_type; Amount: missing; lines.1.sku: string_type; "
            "prices.?: int_parsing; token: string_type; and 1 more)"
        )
        assert "hush" not in str(caught.value)
        assert caught.value.__context__ is None  # pydantic's error would bring the payload into every traceback

    @pytest.mark.parametrize("body", ["", "text", "null", "[]", "{" * 100_000, '{"order_id": ' * 100_000, '"\ud800"'])
    def test_what_is_no_object_is_told_in_one_short_sentence(self, body: str) -> None:
        with pytest.raises(InvalidPayloadError, match=r"^the payload does not fit Order \(payload: \w+\)$"):
            route_of(takes_model).event_of(decoded(body))

    def test_a_payload_with_countless_errors_is_counted_only(self) -> None:
        with pytest.raises(InvalidPayloadError, match=r"\(100000 errors\)$"):
            route_of(takes_list).event_of(decoded("[" + ",".join(['"a"'] * 100_000) + "]"))

    def test_a_payload_as_deep_as_its_type_allows_is_no_crash(self) -> None:
        for depth in (100, 190, 1_000, 100_000):
            try:
                route_of(takes_node).event_of(decoded('{"next": ' * depth + "null" + "}" * depth))
            except InvalidPayloadError as error:
                assert depth > 190, error  # noqa: PT017 - shallow ones are events

    def test_lone_surrogates_are_no_bytes(self) -> None:
        with pytest.raises(InvalidPayloadError, match="lone surrogates") as caught:
            route_of(takes_bytes).event_of(decoded("\ud800"))
        assert caught.value.__context__ is None

    def test_a_type_without_a_json_schema_names_no_key(self) -> None:
        class Odd(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            call: Callable[[], None]

        async def handle(message: Message[Odd]) -> None: ...

        with pytest.raises(InvalidPayloadError, match=r"\(\?: missing\)"):
            route_of(handle).event_of(decoded("{}"))


def generator(message: Message[str]) -> Iterator[None]:
    yield


async def async_generator(message: Message[str]) -> AsyncIterator[None]:
    yield


class Handlers:
    async def method(self, message: Message[str]) -> None: ...


class TestWrongHandlers:
    @pytest.mark.parametrize(
        ("handler", "found"),
        [
            (lambda message: None, "does not annotate `message`"),
            (lambda: None, "has no parameter for the message"),
            (lambda *messages: None, "has no parameter for the message"),
            (lambda message, ledger: None, r"asks for more than the message \(`ledger`\)"),
            (lambda message, *, ledger: None, r"asks for more than the message \(`ledger`\)"),
            (Handlers.method, "is a method without its object"),
            (max, "does not tell its parameters"),
            (generator, "is a generator function"),
            (async_generator, "is a generator function"),
            (staticmethod(ignore), "is a staticmethod object; put that decorator above `on`"),
            (classmethod(ignore), "is a classmethod object"),  # type: ignore[arg-type]  # the mistake
            (Handlers, "is a type"),
            (None, "is a NoneType"),
            (print, "."),
        ],
    )
    def test_a_function_that_cannot_be_a_handler_is_refused(self, handler: Any, found: str) -> None:
        with pytest.raises(ConfigError, match=f"handler `.*` \\(.*{found}"):
            route_of(handler)

    def test_a_wrong_annotation_is_refused_where_it_stands(self) -> None:
        async def number(message: int) -> None: ...
        async def several(message: list[Message[str]]) -> None: ...
        async def optional(message: Message[str] | None) -> None: ...
        async def two(message: "Message[int, str]") -> None: ...  # type: ignore[type-arg]  # the mistake
        async def syntax(message: "Message[") -> None: ...  # type: ignore[valid-type]  # noqa: F722 - the mistake

        for handler in (number, several, optional, two, syntax):
            with pytest.raises(ConfigError, match=rf"{handler.__name__}` \(.*test_router_events\.py:\d+\).*allowed is"):
                route_of(handler)

    def test_a_type_that_nobody_can_read_is_refused(self) -> None:
        class Opaque:
            pass

        async def handle(message: Message[Opaque]) -> None: ...

        with pytest.raises(
            ConfigError, match=r"handle` \(.* events of that type cannot be read .*; use a pydantic model"
        ):
            route_of(handle)

    def test_a_name_that_never_comes_is_told_by_check(self) -> None:
        async def handle(message: "Message[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the mistake

        router = Router()
        router.on("a")(handle)
        with pytest.raises(
            ConfigError, match=r"handle` \(.*name 'Nowhere' is not defined.*outside `if TYPE_CHECKING:`"
        ):
            router.check()


class TestNames:
    def test_names_are_found_where_the_handler_stands(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Postponed annotations, classes inside functions, and classes further down all work."""
        (tmp_path / "postponed.py").write_text(
            "from __future__ import annotations\n"
            "from typing import TYPE_CHECKING\n"
            "from worker import Message, Router\n"
            "from pydantic import BaseModel\n"
            "if TYPE_CHECKING:\n    from nowhere import Elsewhere\n"
            "router = Router()\n"
            "@router.on('later')\nasync def later(message: Message[Later]) -> Elsewhere: ...\n"
            "class Later(BaseModel):\n    field: Inner\n"
            "class Inner(BaseModel):\n    number: int\n"
            "def local():\n"
            "    class Local(BaseModel):\n        number: int\n"
            "    @router.on('local')\n    async def handle(message: Message[Local]): ...\n"
            "    return Local\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        import postponed  # type: ignore[import-not-found]

        local = postponed.local()
        postponed.router.check()
        by_pattern = {route.pattern: route for route in postponed.router.routes}
        assert by_pattern["later"].event_of(decoded('{"field": {"number": 1}}')).field.number == 1
        assert type(by_pattern["local"].event_of(decoded('{"number": 1}'))) is local
