"""`Router`: the object that names a queue's handlers, their resources and their middleware."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import FrameType
from typing import Any, TypeVar

from worker.errors import ConfigError
from worker.idempotency import IdempotencyKey, KeySource
from worker.middleware.protocol import Middleware
from worker.router.batch import Batch
from worker.router.handler import Handler, HandlerFunction
from worker.router.patterns import Patterns, check_pattern
from worker.router.route import HandlerOptions, Route

__all__ = ["Lifespan", "Router"]

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
"""Called once per process; what its context yields is `message.state`."""

F = TypeVar("F", bound=HandlerFunction)


class Router:
    """Handlers by event type.

    `lifespan` is an async context manager function without arguments, entered once per process. `middleware` runs
    around every handler, the first in the list outermost. Raises `ConfigError` when one of them cannot be called so.
    """

    def __init__(self, *, lifespan: Lifespan | None = None, middleware: Sequence[Middleware] = ()) -> None:
        if lifespan is not None:
            _check_lifespan(lifespan)
        for each in middleware:
            _check_middleware(each)
        self._lifespan = lifespan
        self._middleware = tuple(middleware)
        self._routes: dict[str, Route] = {}
        self._patterns: Patterns[Route] = Patterns()

    def on(
        self,
        pattern: str,
        *,
        timeout: float | None = None,
        attempts: int | None = None,
        batch: Batch | None = None,
        limit: str | None = None,
        idempotency_key: KeySource | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function for an event type, a prefix such as `order.*`, or `*`; returns it unchanged.

        `timeout` (seconds) and `attempts` (failed runs until the dead-letter queue) replace the queue's settings for
        this handler. `limit` names a limit of the fleet file that its calls keep to. `idempotency_key` names the event's business
        key: a field (`"order.id"`), several, or a function of the event; its work is then done once, by the fleet's store. With
        `batch` it takes a `Sequence[Message[T]]` and may return a mapping of message ids to outcomes; who is not in it is done,
        and raising fails the whole batch. Raises `ConfigError` at decoration: for a pattern, bound, annotation or function that cannot
        work, and for a pattern that another handler has already.
        """
        if not isinstance(pattern, str):
            raise ConfigError(
                f"`Router.on` was given a {type(pattern).__name__} as its pattern; write `@router.on('order.created')`"
            )

        def decorate(function: F) -> F:
            frame = inspect.currentframe()
            handler = Handler(function, _local_names(frame.f_back if frame else None), is_batch=batch is not None)
            check_pattern(pattern, owner=handler.label)
            key = None if idempotency_key is None else IdempotencyKey(idempotency_key, owner=handler.label)
            options = HandlerOptions(timeout, attempts, batch, limit, key)
            options.check(handler.label)
            other = self._routes.get(pattern)
            if other is not None:
                raise ConfigError(
                    f"{handler.label} and {other.handler.label} both take the pattern '{pattern}'; give one of them another"
                )
            route = Route(pattern, handler, options, self._middleware)
            self._routes[pattern] = route
            self._patterns.add(pattern, route)
            return function

        return decorate

    @property
    def largest_batch(self) -> int:
        """The most messages that one handler call takes."""
        return max((route.batch.size for route in self.routes if route.batch is not None), default=1)

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, in the order of their decoration."""
        return tuple(self._routes.values())

    def resolve(self, event_type: str | None) -> Route | None:
        """Return the route with the most specific pattern for the event type; `None` when no handler takes it."""
        return self._patterns.find(event_type)

    def check(self) -> None:
        """Raise `ConfigError` when there are no handlers, or an annotation names what does not exist."""
        if not self._routes:
            raise ConfigError("the router has no handlers; decorate at least one function with `@router.on(...)`")
        for route in self._routes.values():
            annotated = route.handler.payload.type
            if route.idempotency_key is not None:
                route.idempotency_key.check(annotated, owner=route.handler.label)

    def lifespan_context(self) -> AbstractAsyncContextManager[Any]:
        """Return the context to enter once per process; it yields `message.state`, `None` without a lifespan."""
        if self._lifespan is None:
            return nullcontext()
        context = self._lifespan()
        if not hasattr(context, "__aenter__"):
            raise ConfigError(
                f"the router's lifespan returned a {type(context).__name__}; allowed is an async context manager, such as a "
                f"function decorated with `contextlib.asynccontextmanager`"
            )
        return context


def _local_names(frame: FrameType | None) -> Mapping[str, Any]:
    """Copy the names that the decorating function has defined so far; a module's names are found through the handler."""
    return {} if frame is None or frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _check_lifespan(lifespan: Lifespan) -> None:
    if inspect.isasyncgenfunction(lifespan) or inspect.isgeneratorfunction(lifespan):
        raise ConfigError(
            "the router's lifespan is a bare generator function; decorate it with `contextlib.asynccontextmanager`"
        )
    if not _takes(lifespan, 0):
        raise ConfigError(
            "the router's lifespan cannot be called without arguments; allowed is a function that asks for none"
        )


def _check_middleware(middleware: Middleware) -> None:
    if not _takes(middleware, 2):
        name = getattr(middleware, "__qualname__", type(middleware).__qualname__)
        raise ConfigError(
            f"middleware `{name}` cannot be called with a message and `call_next`; allowed is `async def {name}(message, "
            f"call_next) -> Outcome`, and a function that makes a middleware must be called in the list"
        )


def _takes(function: Any, count: int) -> bool:
    """Whether the function can be called with that many positional arguments."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):  # ValueError: a builtin that does not tell its signature
        return False
    return True
