"""`run` and `run_batch`: events through one router, without a queue, to the outcomes that production would settle."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, Unpack

import pydantic_core

from worker.aws.envelope import Decoded, decode
from worker.engine.once import OTHER_PAYLOAD
from worker.errors import ConfigError, InvalidPayloadError, PermanentError, TransientError
from worker.idempotency import Done, Mark, Other, Running, Store, fingerprint_of
from worker.message import Attribute, Lease, Message, Received
from worker.outcome import Ack, DeadLetter, Outcome, Retry
from worker.router import Route, Router
from worker.router.threads import RUN_IN_PLACE
from worker.testing import virtual_time

__all__ = ["FakeLease", "MessageFields", "run", "run_batch"]

_UNSET: Final = object()
_MARK_SECONDS: Final = 40.0
"""As long as a visibility timeout of 30 s makes it; a handler that is to outlast it belongs into a `Fleet`."""


@dataclass
class FakeLease:
    """A lease that lasts until the test says otherwise."""

    is_lost: bool = False
    remaining_seconds: float = 30.0
    extended: list[float] = field(default_factory=list)
    """The seconds of every `extend`, in order."""

    async def extend(self, seconds: float) -> None:
        """Note the seconds and count them as what remains, if that is more."""
        self.extended.append(seconds)
        self.remaining_seconds = max(self.remaining_seconds, seconds)


class MessageFields(TypedDict, total=False):
    """What a test may say of the message; the rest has values that fit a first receive."""

    id: str
    queue: str
    receive_count: int
    sent_at: datetime | None
    published_at: datetime | None
    group_id: str | None
    sequence_number: str | None
    lease: Lease
    state: Any
    """Instead of what the router's lifespan yields, which is then not entered."""


async def run(
    router: Router,
    event: object,
    *,
    event_type: str | None = None,
    attributes: Mapping[str, str | bytes] | None = None,
    store: Store | None = None,
    **fields: Unpack[MessageFields],
) -> Outcome:
    """Run the router's handler, with its middleware, for one event and return the outcome.

    An event of the handler's own type is handed over as it is. Text and bytes are a body, and everything else is
    written as one: it is validated as in production, and a payload that does not fit is `DeadLetter`. Without
    `event_type` the type is the attribute's, else that of the one handler annotated with the event's class, else the
    body's. `TransientError` becomes `Retry` and `PermanentError` becomes `DeadLetter`; every other exception, the
    handler's own timeout too, is raised, so that a test shows its traceback where production would retry.
    An event without the `idempotency_key` that its handler names is `DeadLetter`; with a `store`, such as a `MemoryStore`,
    its work is done once for all runs that share it, and one whose work still runs is `Retry`, where a queue would wait.
    Raises `ConfigError` when no handler takes the event or when several could.
    """
    route, decoded = _routed(router, event, event_type, dict(attributes or {}))
    state = fields.pop("state", _UNSET)
    async with router.lifespan_context() if state is _UNSET else nullcontext(state) as entered:
        message = _prepared(route, event, decoded, {**fields, "state": entered})
        return await _handle(route, message, decoded, route.call, store)


async def run_batch(
    router: Router,
    events: Sequence[object],
    *,
    event_type: str | None = None,
    attributes: Mapping[str, str | bytes] | None = None,
    store: Store | None = None,
    **fields: Unpack[MessageFields],
) -> list[Outcome]:
    """Run the router's handler of batches once, for all events together, and return the outcome of each, by position.

    Events, types, the `store` and what is raised are as with `run`; each message has an `id` of its own. Middleware sees each by itself.
    A member whose work was done before, or runs, is not handed over; where that is all of them, the handler is not called.
    Raises `ConfigError` when the events are not all taken by one handler with a `batch`.
    """
    routed = [_routed(router, event, event_type, dict(attributes or {})) for event in events]
    routes = {route for route, _ in routed}
    if len(routes) != 1:
        raise ConfigError(f"a batch is for one handler, but these events are taken by {_patterns([*routes]) or 'none'}")
    (route,) = routes
    if route.batch is None:
        raise ConfigError(
            f"{route.handler.label} asks for no batches: use `run`, or write `batch=Batch(...)` in its decorator"
        )
    state = fields.pop("state", _UNSET)
    async with router.lifespan_context() if state is _UNSET else nullcontext(state) as entered:
        batch = _Batch(route, len(events))

        async def member(number: int, event: object, decoded: Decoded) -> Outcome:
            message_id = _id(number)
            try:
                message = _prepared(route, event, decoded, {**fields, "id": message_id, "state": entered})
                return await _handle(route, message, decoded, batch.take, store)
            finally:
                await batch.ended(message_id)

        numbered = enumerate(zip(events, routed, strict=True), start=1)
        return await asyncio.gather(*(member(number, event, decoded) for number, (event, (_, decoded)) in numbered))


class _Batch:
    """Waits until each of its members has joined, or has ended without, and calls the handler with those who have."""

    def __init__(self, route: Route, members: int) -> None:
        self._handler = route.handler
        self.take = route.around(self._join)
        """Takes one member through the middleware."""
        self._awaited = members
        self._joined: dict[str, tuple[Message[Any], asyncio.Future[Outcome]]] = {}

    async def ended(self, message_id: str) -> None:
        """Wait for a member no longer that has ended without joining."""
        if message_id not in self._joined:
            await self._one_less()

    async def _one_less(self) -> None:
        """Wait for one member less, and begin when it was the last."""
        self._awaited -= 1
        if self._awaited or not self._joined:
            return
        members = list(self._joined.values())
        try:
            outcomes = await self._handler.call_batch([message for message, _ in members])
        except Exception as error:  # noqa: BLE001  # each member raises it
            outcomes = [error] * len(members)  # type: ignore[list-item]
        for (_, answer), outcome in zip(members, outcomes, strict=True):
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

    async def _join(self, message: Message[Any]) -> Outcome:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._joined[message.id] = message, answer
        await self._one_less()
        return await answer


def _prepared(route: Route, event: object, decoded: Decoded, fields: dict[str, Any]) -> Message[Any] | DeadLetter:
    try:
        message = _message(route, event, decoded, fields)
    except InvalidPayloadError as error:
        return DeadLetter(error.reason)
    try:
        if route.idempotency_key is not None:
            route.idempotency_key.read(message.event)
    except PermanentError as error:
        return DeadLetter(error.reason, error=error)
    return message


async def _handle(
    route: Route,
    message: Message[Any] | DeadLetter,
    decoded: Decoded,
    call: Callable[[Message[Any]], Awaitable[Outcome]],
    store: Store | None,
) -> Outcome:
    """Return what becomes of the message; with a store, its work is done once."""
    if store is None or route.idempotency_key is None or isinstance(message, DeadLetter):
        return await _outcome(route, message, call)
    key = f"{message.queue}:{route.idempotency_key.read(message.event)}"
    mark = Mark(key, fingerprint_of(decoded.payload), secrets.token_hex(8), _MARK_SECONDS)
    return await _once(store, mark, _outcome(route, message, call))


async def _once(store: Store, mark: Mark, work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Do the work if its mark says so; what the engine does with marks, for one message."""
    with closing(work):  # it may not be begun
        (answer,) = await store.begin([mark])
        match answer:
            case Done():
                return Ack("done before")
            case Other():
                return DeadLetter(OTHER_PAYLOAD)
            case Running(seconds=seconds):
                return Retry(after=seconds, reason="work with this idempotency key runs", is_downstream=False)
        outcome: Outcome | None = None
        try:
            outcome = await work
        finally:
            await (store.finish if isinstance(outcome, Ack) else store.release)([mark])
        return outcome


async def _outcome(
    route: Route, message: Message[Any] | DeadLetter, call: Callable[[Message[Any]], Awaitable[Outcome]]
) -> Outcome:
    if isinstance(message, DeadLetter):
        return message
    token = RUN_IN_PLACE.set(virtual_time.is_running())
    try:
        async with asyncio.timeout(route.timeout_seconds):
            return await call(message)
    except TransientError as error:
        return Retry(
            after=error.retry_after,
            reason=error.reason or type(error).__name__,
            error=error,
            is_downstream=getattr(error, "is_downstream", True) is not False,  # as the breaker asks
        )
    except PermanentError as error:
        return DeadLetter(error.reason or type(error).__name__, error=error)
    finally:
        RUN_IN_PLACE.reset(token)


def _routed(
    router: Router, event: object, event_type: str | None, attributes: dict[str, str | bytes]
) -> tuple[Route, Decoded]:
    """Return the route of an event and its decoded body."""
    router.check()
    if event_type is None and "event_type" not in attributes:
        event_type = _type_by_annotation(router, event)
    if event_type is not None:
        attributes["event_type"] = event_type
    decoded = decode(_received(event, attributes), "raw")
    route = router.resolve(decoded.event_type)
    if route is None:
        found = "no event type" if decoded.event_type is None else f"the event type {decoded.event_type[:200]!r}"
        raise ConfigError(f"no handler takes an event with {found}; the router has {_patterns(router.routes)}")
    return route, decoded


def _type_by_annotation(router: Router, event: object) -> str | None:
    """Return the pattern of the one handler annotated with the event's class; `None` leaves it to the body."""
    takers = [route for route in router.routes if route.handler.payload.type is type(event)]
    if not takers or isinstance(event, (str, bytes, dict)):
        return None
    if len(takers) > 1 or takers[0].pattern.endswith(".*"):
        raise ConfigError(
            f"the event type of a {type(event).__name__} cannot be told: it is taken by {_patterns(takers)}; "
            f"give `event_type=`"
        )
    return None if takers[0].pattern == "*" else takers[0].pattern


def _received(event: object, attributes: Mapping[str, str | bytes]) -> Received:
    if isinstance(event, bytes):
        body = event.decode()
    elif isinstance(event, str):
        body = event
    else:
        body = pydantic_core.to_json(event, fallback=repr).decode()
    kept = {
        name: Attribute("Binary" if isinstance(value, bytes) else "String", value) for name, value in attributes.items()
    }
    return Received(id=_id(1), receipt="receipt", body=body, attributes=kept)


def _message(route: Route, event: object, decoded: Decoded, fields: dict[str, Any]) -> Message[Any]:
    is_ready = route.handler.payload.type in type(event).__mro__ and not isinstance(event, (str, bytes))
    known: dict[str, Any] = {
        "id": _id(1),
        "queue": "test",
        "event": event if is_ready else route.event_of(decoded),
        "event_type": decoded.event_type,
        "body": decoded.body,
        "attributes": decoded.attributes,
        "receive_count": 1,
        "sent_at": datetime.now(UTC),
        "published_at": decoded.published_at,
        "group_id": None,
        "sequence_number": None,
        "lease": FakeLease(),
    }
    return Message(**known | fields)


def _id(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012}"


def _patterns(routes: tuple[Route, ...] | list[Route]) -> str:
    return ", ".join(f"`{route.pattern}` ({route.name})" for route in routes)
