"""Which handler takes an event, and how it is called."""

# ruff: noqa: ARG001, ARG002, ARG005 - handlers of a test need not look at their message

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from worker import Ack, CallNext, ConfigError, ContractError, DeadLetter, Message, Outcome, Retry
from worker.middleware import retry_in_place
from worker.router import Route, Router
from worker.testing.run import FakeLease


def message(event: object = None) -> Message[Any]:
    return Message(
        id="1",
        queue="orders",
        event=event,
        event_type="order.created",
        body="",
        attributes={},
        receive_count=1,
        sent_at=None,
        published_at=None,
        group_id=None,
        sequence_number=None,
        lease=FakeLease(),
    )


def route_of(handler: Callable[..., Any], *, router: Router | None = None) -> Route:
    router = router or Router()
    router.on("*")(handler)
    found = router.resolve("any")
    assert found is not None
    return found


async def ignore(message: Message) -> None:  # type: ignore[type-arg]  # a bare Message is allowed
    pass


class TestPatterns:
    def test_the_most_specific_pattern_wins(self) -> None:
        router = Router()
        for pattern in ("*", "order.*", "order.item.*", "order.created"):
            router.on(pattern)(ignore)
        taken = {
            "order.created": "order.created",
            "order.created.again": "order.*",
            "order.item.added": "order.item.*",
            "order.item": "order.*",
            "order.": "order.*",
            "order": "*",
            "orders.created": "*",
            "Order.created": "*",
            "": "*",
            None: "*",
        }
        for event_type, pattern in taken.items():
            route = router.resolve(event_type)
            assert route is not None
            assert route.pattern == pattern, event_type

    def test_what_nobody_takes_is_none(self) -> None:
        router = Router()
        router.on("order.*")(ignore)
        assert router.resolve("invoice.paid") is None
        assert router.resolve(None) is None

    def test_the_same_pattern_twice_names_both_functions(self) -> None:
        async def again(message: Message[str]) -> None: ...

        router = Router()
        router.on("order.*")(ignore)
        with pytest.raises(
            ConfigError, match=r"again` \(.*test_router\.py:\d+\) and .*ignore` \(.*both take .*'order\.\*'"
        ):
            router.on("order.*")(again)

    @pytest.mark.parametrize("pattern", ["", " a", "a\n", "**", "a*", "*.a", ".*", "a.*.b", "a.*.*", "s3:*", "x" * 300])
    def test_an_invalid_pattern_is_refused_with_what_is_allowed(self, pattern: str) -> None:
        with pytest.raises(ConfigError, match=r"ignore` .*allowed are an exact event type such as `order.created`"):
            Router().on(pattern)(ignore)

    @pytest.mark.parametrize(
        "pattern", ["EC2 Instance State-change Notification", "s3:ObjectCreated:Put", "a..b", "bestellt.größe"]
    )
    def test_any_printable_name_may_be_an_exact_type(self, pattern: str) -> None:
        router = Router()
        router.on(pattern)(ignore)
        assert router.resolve(pattern) is router.routes[0]

    def test_a_decorator_without_parentheses_is_told(self) -> None:
        with pytest.raises(ConfigError, match=r"was given a function .*@router\.on\('order\.created'\)"):
            Router().on(ignore)  # type: ignore[arg-type]

    def test_a_hostile_event_type_is_resolved_quickly_and_not_kept(self) -> None:
        router = Router()
        router.on("a.*")(ignore)
        assert router.resolve("." * 1_000_000) is None


class TestOptions:
    def test_a_handlers_own_limits_are_on_its_route(self) -> None:
        router = Router()
        assert router.on("a", timeout=1.5, attempts=7)(ignore) is ignore
        router.on("b")(ignore)
        assert [(route.timeout_seconds, route.attempts) for route in router.routes] == [(1.5, 7), (None, None)]
        assert router.routes[0].name == f"{__name__}.ignore"

    @pytest.mark.parametrize("timeout", [0, -1, 43_201, float("nan"), float("inf"), True, "5"])
    def test_a_timeout_out_of_bounds_is_refused(self, timeout: Any) -> None:
        with pytest.raises(ConfigError, match=r"ignore` .* has timeout=.*allowed are seconds above 0 and up to 43200"):
            Router().on("a", timeout=timeout)(ignore)

    @pytest.mark.parametrize("attempts", [0, -1, 994, 2.0, True, "5"])
    def test_attempts_out_of_bounds_are_refused(self, attempts: Any) -> None:
        with pytest.raises(ConfigError, match=r"ignore` .* has attempts=.*whole number from 1 to 993"):
            Router().on("a", attempts=attempts)(ignore)


class Handlers:
    def __init__(self) -> None:
        self.seen: list[object] = []

    async def method(self, message: Message[str]) -> None:
        self.seen.append(message.event)

    async def __call__(self, message: Message[str]) -> Outcome:
        return Retry(reason="called")


class TestCalls:
    async def test_none_is_an_ack_and_an_outcome_passes(self) -> None:
        for returned in (None, Ack("why"), Retry(5), DeadLetter("bad")):

            async def handle(message: Message[Any], returned: Outcome | None = returned) -> Outcome | None:
                return returned

            assert await route_of(handle).call(message()) == (returned or Ack())

    @pytest.mark.parametrize("returned", [True, 0, "ack", {}, Ack], ids=str)
    async def test_anything_else_is_a_contract_error(self, returned: Any) -> None:
        """A value that is no outcome is loud, never success (E1)."""

        async def handle(message: Message[Any]) -> Any:
            return returned

        with pytest.raises(
            ContractError, match=r"handle` \(.*returned (a value of type|the class) \w+; allowed is None, Ack"
        ):
            await route_of(handle).call(message())

    async def test_methods_partials_and_callable_objects_are_handlers(self) -> None:
        async def with_ledger(message: Message[str], ledger: list[object]) -> None:
            ledger.append(message.event)

        handlers = Handlers()
        ledger: list[object] = []
        for handler, name in (
            (handlers.method, "test_router.Handlers.method"),
            (functools.partial(with_ledger, ledger=ledger), "with_ledger"),
            (handlers, "test_router.Handlers.__call__"),
        ):
            route = route_of(handler)
            assert route.name.endswith(name)
            await route.call(message("x"))
        assert handlers.seen == ledger == ["x"]

    def test_a_sync_function_runs_in_a_thread(self) -> None:
        def handle(message: Message[Any]) -> Outcome:
            return Retry(reason=threading.current_thread().name)

        outcome = asyncio.run(_call(route_of(handle)))
        assert isinstance(outcome, Retry)
        assert outcome.reason.startswith("longshore-handler-")

    def test_a_plain_wrapper_around_an_async_function_is_awaited(self) -> None:
        def plain(
            function: Callable[[Message[Any]], Awaitable[Outcome]],
        ) -> Callable[[Message[Any]], Awaitable[Outcome]]:
            @functools.wraps(function)
            def wrapper(message: Message[Any]) -> Awaitable[Outcome]:
                return function(message)

            return wrapper

        @plain
        async def handle(message: Message[Any]) -> Outcome:
            return Ack("awaited")

        assert asyncio.run(_call(route_of(handle))) == Ack("awaited")


async def _call(route: Route) -> Outcome:
    return await route.call(message())


class TestMiddleware:
    async def test_the_first_is_outermost(self) -> None:
        seen: list[str] = []

        def named(name: str) -> Any:
            async def middleware(message: Message[Any], call_next: CallNext) -> Outcome:
                seen.append(f"{name} in")
                outcome = await call_next(message)
                seen.append(f"{name} out")
                return outcome

            return middleware

        async def handle(message: Message[Any]) -> None:
            seen.append("handler")

        assert await route_of(handle, router=Router(middleware=[named("a"), named("b")])).call(message()) == Ack()
        assert seen == ["a in", "b in", "handler", "b out", "a out"]

    async def test_a_middleware_that_forgets_to_return_is_a_contract_error(self) -> None:
        async def forgetful(message: Message[Any], call_next: CallNext) -> Any:
            await call_next(message)

        with pytest.raises(ContractError, match=r"middleware `.*forgetful` returned a value of type NoneType"):
            await route_of(ignore, router=Router(middleware=[forgetful])).call(message())

    @pytest.mark.parametrize("middleware", [lambda: None, lambda message: None, None, 7, max, retry_in_place])
    def test_what_cannot_be_called_as_middleware_is_refused(self, middleware: Any) -> None:
        with pytest.raises(ConfigError, match=r"cannot be called with a message and `call_next`"):
            Router(middleware=[middleware])


class TestLifespan:
    async def test_what_it_yields_is_the_state(self) -> None:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[str]:
            yield "ledger"

        async with Router(lifespan=lifespan).lifespan_context() as state:
            assert state == "ledger"
        async with Router().lifespan_context() as state:
            assert state is None

    def test_what_is_no_async_context_manager_is_refused(self) -> None:
        async def bare() -> AsyncIterator[None]:
            yield

        with pytest.raises(ConfigError, match=r"decorate it with `contextlib.asynccontextmanager`"):
            Router(lifespan=bare)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="without arguments"):
            Router(lifespan=lambda router: router)  # type: ignore[arg-type,misc]
        with pytest.raises(ConfigError, match=r"returned a int"):
            Router(lifespan=lambda: 7).lifespan_context()  # type: ignore[arg-type,return-value]


def test_a_router_without_handlers_is_told() -> None:
    with pytest.raises(ConfigError, match="the router has no handlers"):
        Router().check()
